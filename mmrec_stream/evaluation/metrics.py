"""Metrics of recommendation lists: accuracy, coverage, novelty, calibration, popularity, with bootstrap intervals.

Everything is computed from the lists as a user would see them, an int array (cases, length) of item numbers, best
first, padded with -1. Ties among scores are broken before that, by `top_lists`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.splits import Cases, Ragged

Lists = NDArray[np.int32]
Values = NDArray[np.float64]

RESAMPLES = 1_000
"""Bootstrap samples: the ends of a 95% interval then rest on 25 samples each, which moves them by a few per cent of
the interval's width from seed to seed."""

CALIBRATION_SMOOTHING = 0.01
"""Share of the history's own distribution mixed into the list's, so that a missing category costs much but not
infinitely much; the value of Steck (RecSys 2018)."""


@dataclass(frozen=True)
class Figure:
    """A metric's value and its 95% bootstrap interval; no interval where the value is not a mean over cases."""

    value: float
    low: float | None = None
    high: float | None = None


def top_lists(
    scores: NDArray[np.floating], length: int, banned: Sequence[NDArray[np.integer]] | None, order: NDArray[np.int64]
) -> Lists:
    """The `length` best items of each row of scores (cases, items), without those of `banned`, best first.

    Equal scores are ranked as `order`, a permutation of the items, has them: drawn at random once a run, it favours no
    item systematically, whereas ties by item number would favour early items, which are often the popular ones.
    Items scored -inf or NaN are never listed. Shorter lists are padded with -1.
    """
    values = np.fmax(scores.astype(np.float32), np.float32(-np.inf))
    if banned is not None:
        for row, items in enumerate(banned):
            values[row, items] = -np.inf
    length = min(length, values.shape[1])
    best = _largest(values, length)
    # Shuffling every row would decide ties as well, at ten times the cost; few rows have any where it matters.
    least = np.take_along_axis(values, best, axis=1).min(axis=1)
    tied = np.flatnonzero(((values >= least[:, None]).sum(axis=1) > length) & (least > -np.inf))
    if len(tied):
        best[tied] = order[_largest(values[tied][:, order], length)]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    best = np.take_along_axis(best, np.argsort(place[best], axis=1), axis=1)
    found = np.take_along_axis(values, best, axis=1)
    by_score = np.argsort(-found, axis=1, kind="stable")
    ranked = np.take_along_axis(best, by_score, axis=1)
    return np.where(np.isneginf(np.take_along_axis(found, by_score, axis=1)), -1, ranked).astype(np.int32)


def hits(lists: Lists, targets: Ragged) -> NDArray[np.bool_]:
    """Which places of the lists hold a target, (cases, length)."""
    width = int(max(lists.max(initial=0), targets.values.max(initial=0))) + 1
    owners = np.repeat(np.arange(len(targets)), targets.lengths)
    keys = owners * width + targets.values
    asked = np.arange(len(lists))[:, None] * width + lists
    return np.asarray(np.isin(asked, keys) & (lists >= 0))


def hit_rate(hit: NDArray[np.bool_], k: int) -> Values:
    """1 where any of the first k places is a target, (cases,)."""
    return np.asarray(hit[:, :k].any(axis=1), dtype=np.float64)


def recall(hit: NDArray[np.bool_], targets: Ragged, k: int) -> Values:
    """Share of the targets that are among the first k places, (cases,)."""
    return np.asarray(hit[:, :k].sum(axis=1) / targets.lengths)


def reciprocal_rank(hit: NDArray[np.bool_], k: int) -> Values:
    """1 / rank of the first target within the first k places, 0 without one, (cases,)."""
    first = hit[:, :k].argmax(axis=1)
    return np.asarray(np.where(hit[:, :k].any(axis=1), 1.0 / (first + 1), 0.0))


def ndcg(hit: NDArray[np.bool_], targets: Ragged, k: int) -> Values:
    """Normalised discounted cumulative gain of the first k places with gain 1 a target, (cases,).

    Järvelin and Kekäläinen (2002), discount 1 / log2(rank + 1); the ideal list has min(k, targets) targets first.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.r_[0.0, np.cumsum(discounts)][np.minimum(targets.lengths, k)]
    shown = hit[:, :k]
    return np.asarray((shown @ discounts[: shown.shape[1]]) / ideal)


def coverage(lists: Lists, k: int, items: int) -> float:
    """Share of all items that are within the first k places of any list."""
    shown = lists[:, :k]
    return len(np.unique(shown[shown >= 0])) / items


def novelty(lists: Lists, popularity: NDArray[np.integer], k: int) -> Values:
    """Mean self-information -log2 p(item) of the first k places in bits, (cases,).

    Vargas and Castells (RecSys 2011); p is the item's share of the training events with one added to each count.
    """
    bits = -np.log2((popularity + 1) / (popularity.sum() + len(popularity)))
    return _mean_of_shown(bits, lists[:, :k])


def popularity_lift(lists: Lists, cases: Cases, popularity: NDArray[np.integer], k: int) -> Values:
    """How much more popular the first k places are than the history: mean count / mean count of the history - 1.

    Abdollahpouri et al. (2020). 0 is no bias; histories of items that training never saw count as popularity 1.
    """
    weights = popularity.astype(np.float64)
    total = np.r_[0.0, np.cumsum(weights[cases.log.items])]
    history = (total[cases.ends] - total[cases.starts]) / cases.lengths
    return np.asarray(_mean_of_shown(weights, lists[:, :k]) / np.maximum(history, 1.0) - 1.0)


def miscalibration(lists: Lists, cases: Cases, categories: NDArray[np.integer], k: int) -> Values:
    """KL divergence of the list's mix of categories from the history's, in nats, (cases,); 0 is perfectly calibrated.

    Steck (RecSys 2018). `categories` gives each item's category number, -1 for none; such items count for nothing,
    and a case whose history has no category is 0.
    """
    width = int(categories.max(initial=-1)) + 1
    owners = np.repeat(np.arange(len(cases)), cases.lengths)
    inner = np.arange(len(owners)) - np.repeat(np.cumsum(cases.lengths) - cases.lengths, cases.lengths)
    rows = np.repeat(cases.starts, cases.lengths) + inner
    history = _shares(owners, categories[cases.log.items[rows]], len(cases), width)
    shown = lists[:, :k]
    listed = np.where(shown >= 0, categories[np.maximum(shown, 0)], -1)
    mix = _shares(np.repeat(np.arange(len(lists)), shown.shape[1]), listed.ravel(), len(lists), width)
    mix = (1 - CALIBRATION_SMOOTHING) * mix + CALIBRATION_SMOOTHING * history
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(history > 0, history * np.log(history / mix), 0.0)
    return np.asarray(terms.sum(axis=1))


def bootstrap(values: Values, groups: NDArray[np.integer], seed: int = 0) -> Figure:
    """The mean of `values` with the 95% percentile interval of resampling whole groups (users) with replacement."""
    if not len(values):
        return Figure(float("nan"))
    _, member = np.unique(groups, return_inverse=True)
    sums = np.bincount(member, weights=values)
    sizes = np.bincount(member).astype(np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for sample in range(RESAMPLES):
        drawn = generator.integers(0, len(sums), len(sums))
        means[sample] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return Figure(float(values.mean()), float(low), float(high))


def _largest(values: NDArray[np.float32], length: int) -> NDArray[np.int64]:
    """Columns of the `length` largest values of each row, in no order; among equal ones, any."""
    count = values.shape[1]
    return np.asarray(np.argpartition(values, count - length, axis=1)[:, count - length :], dtype=np.int64)


def _mean_of_shown(weights: Values, shown: Lists) -> Values:
    """Mean weight of the items of each list, 0 for an empty list."""
    there = shown >= 0
    return np.asarray(
        np.where(there, weights[np.maximum(shown, 0)], 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    )


def _shares(
    owners: NDArray[np.integer], categories: NDArray[np.integer], cases: int, width: int
) -> NDArray[np.float64]:
    """Each case's distribution over categories, (cases, categories); zeros where it has none."""
    known = categories >= 0
    flat = np.bincount(owners[known] * width + categories[known], minlength=cases * width)
    counts = flat.reshape(cases, width).astype(np.float64)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0))
