"""Objectives: what a shop wants of a list beside that its user likes it, such as margin, as a share of the score."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.rules import Objective
from mmrec_stream.policies.expressions import Program

SAMPLE = 4_096
"""Products by whose values ranks are told: to one in a hundred, and sorted in a third of a millisecond."""

GROWN = 1.5
"""With this many times the products that were there, ranks are told anew. In between, a product that comes or changes
has the rank that its value would have had."""


@dataclass
class _Merit:
    """One objective over the catalogue."""

    rule: Objective
    of: Program
    sample: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    """Values of some products, sorted."""
    ranks: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    """By row of the columns, from 0 to 1."""


class Objectives:
    """The objectives of a rule set, ready for use. One thread refreshes; lists may be weighed on another."""

    def __init__(self, rules: Sequence[tuple[Objective, Program]]) -> None:
        """Each with its expression, which reads the product alone."""
        self._merits = [_Merit(rule, of) for rule, of in rules]
        self._told = 0
        """Products when ranks were told."""

    def refresh(self, columns: ProductColumns, rows: NDArray[np.int64] | None) -> None:
        """Take over what the catalogue says: of all products, or of the rows that changed."""
        if not self._merits:
            return
        there = len(columns)
        if (
            rows is None
            or there > max(GROWN * self._told, 1)
            or len(self._merits[0].ranks) != len(columns.arrays["id"])
        ):
            self._told, rows = there, None
        for merit in self._merits:
            values = _values(merit.of, columns, rows)
            if rows is None:
                known = values[1:there]
                known = known[~np.isnan(known)]
                merit.sample = np.sort(known[:: len(known) // SAMPLE + 1])
                merit.ranks = _ranks(values, merit.sample)
            else:
                merit.ranks[rows] = _ranks(values, merit.sample)

    def weighed(self, surface: str, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of which objectives have their share, (users, candidates).

        Of a user's candidates, each score is by the best of them (from 0 to 1) before it is mixed with the ranks, and
        the mixture is on the scale of the scores again: (1 − Σ wᵢ)·score + best score · Σ wᵢ·rankᵢ.

        Args:
            surface: where.
            scores: (users, candidates); those not above 0 are no candidates, and stay so.
            rows: of the columns, (users, candidates).
        """
        here = [one for one in self._merits if not one.rule.surfaces or surface in one.rule.surfaces]
        if not here:
            return scores
        merit = sum((one.rule.weight * one.ranks[rows] for one in here), np.zeros(rows.shape))
        rest = 1 - sum(one.rule.weight for one in here)
        mixed = rest * scores + scores.max(axis=1, keepdims=True) * merit
        return np.where(scores > 0, mixed, 0).astype(np.float32)

    def found(self, columns: ProductColumns) -> list[tuple[str, int, float, float, float]]:
        """Of how many products each objective is known, and the lowest, middle and highest value; NaN where of none."""
        told = []
        for merit in self._merits:
            values = _values(merit.of, columns, None)[1 : len(columns)]
            known = values[~np.isnan(values)]
            low, middle, high = np.quantile(known, (0, 0.5, 1)).tolist() if len(known) else [np.nan] * 3
            told.append((merit.rule.id, len(known), low, middle, high))
        return told


def _values(of: Program, columns: ProductColumns, rows: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """The expression for all products or some rows, NaN where it has no value."""
    count = len(columns.arrays["id"]) if rows is None else len(rows)
    part = slice(None) if rows is None else rows
    parts = of.of_products({f"item.{name}": array[part] for name, array in columns.arrays.items()})
    found = of.result(parts, np.arange(count), {})
    values = np.broadcast_to(np.asarray(found.value, dtype=np.float64), count)
    return np.where(found.error, np.nan, values)


def _ranks(values: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the sample that lies below each value, of equal ones half; 0 where there is none."""
    if not len(sample):
        return np.zeros(len(values))
    below = np.searchsorted(sample, values, side="left") + np.searchsorted(sample, values, side="right")
    return np.where(np.isnan(values), 0.0, below / (2 * len(sample)))
