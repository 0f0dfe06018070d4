"""p_item's side of a release: what items say of each other, as K weighted neighbours of each item.

A row mixes what followed the item in behaviour (directed, recency-weighted) with what resembles it by content: by its
learned vector, its feature columns, or the words and labels that describe it. Where behaviour has seen an item often,
it decides; where it has not, content does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.item_item import (
    content_neighbours,
    description_terms,
    directed_cooccurrence,
    distributions,
    ease,
)
from mmrec_stream.ranking.items import CONTENT_TEMPERATURE
from model_export.config import ModelConfig
from model_export.encoders import PRECOMPUTED, Attributes, LstmText
from model_export.inputs import Inputs
from model_export.season import Season

REGRESSION_L2 = 250.0
"""Ridge penalty of the regression, EASE's usual order of size for a few events a user; 100 to 500 are as good."""


@dataclass(frozen=True)
class AssociationSettings:
    """How a row is made; chosen on validation."""

    window: float = 10
    """Farthest distance in a sequence that counts, each pair weighing 1 / distance: what is farther adds nothing."""
    backward: float = 0.3
    """Weight of what came before an item, beside what came after it."""
    discount: float = 0.0
    """Exponent of an item's frequency that its weight as a neighbour is divided by: 0 favours popular items."""
    trust: float = 2.0
    """Occurrences at which behaviour and content weigh the same in an item's row."""
    regression: float = 0.5
    """Share of the regression in what behaviour says, where it is asked for: it knows which items explain each other,
    counting knows the order, and together they foresee a fifth more than either."""
    content: tuple[str, ...] = ("vectors",)
    """Which sources of content count, in equal parts; see `ContentSources`."""
    season: float = 0.0
    """Exponent of the demand at the moment of asking that rows are multiplied by; see `Season`."""


class ContentSources:
    """The likenesses of items that content can be asked for, each computed once, when it is first asked for."""

    def __init__(
        self,
        inputs: Inputs,
        names: Sequence[str],
        vectors: NDArray[np.float32],
        neighbours: int,
        columns: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        """What there is to compare.

        Args:
            inputs: What is known of the items.
            names: The encoders in use: what no encoder reads is not compared either.
            vectors: The items' learned vectors, (items, d).
            neighbours: How many an item keeps of each source.
            columns: What else there is of the items, by name, each (items, width).
        """
        self._keep = min(neighbours, max(len(vectors) - 1, 0))
        self._compared: dict[str, NDArray[np.float32] | sp.csr_matrix] = {"vectors": vectors, **(columns or {})}
        for column, values in inputs.content.features.items():
            if column in names or PRECOMPUTED + column in names:
                self._compared[column] = values
        texts, labels = LstmText.name in names, Attributes.name in names
        if texts or labels:
            described = description_terms(inputs.catalogue, texts=texts, labels=labels)
            if described.nnz:
                self._compared["description"] = described
        self._weights: dict[str, sp.csr_matrix] = {}

    def choices(self) -> list[tuple[str, ...]]:
        """Each source alone, each pair, and all of them."""
        names = list(self._compared)
        some = [chosen for size in (1, 2, len(names)) for chosen in combinations(names, size)]
        return list(dict.fromkeys(some))

    def rows(self, chosen: Sequence[str]) -> sp.csr_matrix:
        """Distributions over the items that resemble each item, (items, items), equal parts of the chosen sources."""
        parts = [self._of(name) for name in chosen]
        return distributions(sp.csr_matrix(sum(parts[1:], parts[0])))

    def _of(self, name: str) -> sp.csr_matrix:
        if name not in self._weights:
            compared = self._compared[name]
            if self._keep:
                weights = content_neighbours(compared, self._keep)
                weights.data = np.exp((weights.data - 1.0) / CONTENT_TEMPERATURE)
            else:
                weights = sp.csr_matrix(np.zeros((compared.shape[0],) * 2, dtype=np.float32))
            self._weights[name] = distributions(weights)
        return self._weights[name]


class BehaviourSources:
    """What a log says of items: counted, and mixed with a regression, which is solved once, when first asked for."""

    def __init__(self, config: ModelConfig, log: Interactions, items: int, *, seasons: bool = False) -> None:
        """Which associations, as configured, of how many items.

        Args:
            config: How the model is made.
            log: Whose likings they are learned from.
            items: How many items there are.
            seasons: Whether time and the catalogue's order can tell what is in season.
        """
        self._config, self._log, self._items = config, log.where(log.likings), items
        self.seasons = seasons
        self.support = np.bincount(self._log.items, minlength=items)
        """How often each item was liked, (items,)."""

    def rows(self, settings: AssociationSettings) -> sp.csr_matrix:
        """Distributions over the items that follow each item, (items, items); an empty row where none does."""
        counted = directed_cooccurrence(
            self._log,
            self._items,
            window=int(settings.window),
            backward=settings.backward,
            row_power=0.0,
            repeats=self._config.repeats,
        )
        if settings.discount:
            counted = sp.csr_matrix(counted @ sp.diags(np.maximum(self.support, 1.0) ** -settings.discount))
        if self._config.associations != "regressed":
            return distributions(counted)
        share = settings.regression
        return sp.csr_matrix((1.0 - share) * distributions(counted) + share * self._regressed)

    def season(self, settings: AssociationSettings) -> Season | None:
        """What is in season when, where it counts."""
        return Season(self._log, self._items, settings.season) if self.seasons and settings.season else None

    @cached_property
    def _regressed(self) -> sp.csr_matrix:
        dense = ease(self._log, self._items, l2=REGRESSION_L2)
        keep = min(self._config.neighbours, self._items)
        least = np.partition(dense, self._items - keep, axis=1)[:, self._items - keep, None]
        dense[(dense < least) | (dense < 0)] = 0.0
        return distributions(sp.csr_matrix(dense))


def association_rows(
    config: ModelConfig, behaviour: BehaviourSources, content: ContentSources, settings: AssociationSettings
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The neighbours and weights, as of `neighbour_rows`, whatever the season.

    Args:
        config: How many neighbours.
        behaviour: What follows what.
        content: What resembles what.
        settings: How a row is made.
    """
    alike = content.rows(settings.content)
    return neighbour_rows(behaviour.rows(settings), alike, behaviour.support, settings.trust, config.neighbours)


def neighbour_rows(
    behaviour: sp.csr_matrix, content: sp.csr_matrix, support: NDArray[np.int64], trust: float, neighbours: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The release's rows: neighbours int32 (items, K), −1 where there is none, and their weights, which sum to 1.

    Args:
        behaviour: (items, items), as `BehaviourSources.rows` gives it.
        content: (items, items), as `ContentSources.rows` gives it.
        support: How often each item occurs in the log, (items,).
        trust: See `AssociationSettings`.
        neighbours: K.
    """
    share = support / (support + trust)
    # An item without any successor has only content to go by, however often it occurs.
    share = np.where(np.diff(behaviour.indptr) > 0, share, 0.0)
    mixed = sp.csr_matrix(sp.diags(share) @ behaviour + sp.diags(1.0 - share) @ content)
    return _heaviest(mixed, neighbours)


def _heaviest(matrix: sp.csr_matrix, keep: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `keep` heaviest entries of each row, heaviest first (ties by column), shared out to sum to 1."""
    matrix.sum_duplicates()
    items = matrix.shape[0]
    owner = np.repeat(np.arange(items), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, owner))
    rank = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = (rank < keep) & (matrix.data[order] > 0)
    neighbours = np.full((items, keep), -1, dtype=np.int32)
    weights = np.zeros((items, keep), dtype=np.float32)
    neighbours[owner[order][kept], rank[kept]] = matrix.indices[order][kept]
    weights[owner[order][kept], rank[kept]] = matrix.data[order][kept]
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return neighbours, weights.astype(np.float32)
