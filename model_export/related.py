"""What goes with an item, as two tables of a release: what is like it, and what completes it.

Both are mined from events by type. Two items are *similar* where visitors look at them in one go, and where they read
and look alike. One item is *complementary* to another where it is taken with or after it, or looked at right after the
other was taken, and is not one of its kind. Each of these is a draw: an item that led, and one that followed it. What
counts is how much oftener a pair was drawn than chance would draw it, by Dunning's likelihood ratio (Computational
Linguistics 19, 1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import chdtri, xlogy

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.item_item import content_neighbours, distributions, unit_rows
from mmrec_stream.ranking.items import CONTENT_TEMPERATURE
from mmrec_stream.releases.folder import ASSOCIATION

Likeness = NDArray[np.float32] | sp.csr_matrix
"""What items are compared by, (items, width): vectors, or weights of words; a row of zeros is an item without."""

KEPT = 32
"""Items kept of each: a widget shows 6 to 12, and what is sold out or ruled out must leave it full. 16 found 3% less on
baskets, 128 nothing more."""

SESSION_MS = 30 * 60_000
"""A visitor who has done nothing for half an hour begins another session: what web analytics counts by."""

LOOKS_APART = 3
"""Looks at most that lie between two that are compared: what is farther apart in a session is a change of mind."""

MOST_LINES = 100
"""Lines of a basket that pairs are made of, its first: a wholesaler's order of a thousand would make half a million,
each worth a thousandth of that of two."""

DOUBT = 0.001
"""Probability at which chance alone makes a pair as frequent as it was: pairs above are no complements."""

SUPPORT = 2
"""Times that a pair must have been seen: once is one visitor's whim, whatever its likelihood."""

TRUST = 2.0
"""Observations of an item at which behaviour and content weigh the same in its row, as in p_item's own."""

CANDIDATES = 2_000
"""Items of a category, the most seen, among which an item without sales finds what may complete it."""

LOOKS = (EventType.VIEW, EventType.CLICK)
TAKES = (EventType.ADD_TO_CART, EventType.PURCHASE)


@dataclass(frozen=True)
class Draws:
    """How often item j was drawn after item i in one way, (items, items); both have entries at the same places."""

    weights: sp.csr_matrix
    """Draws: where several may have been meant, each has its part."""
    seen: sp.csr_matrix
    """How often it happened at all."""

    @classmethod
    def of(cls, first: NDArray[np.int32], then: NDArray[np.int32], weights: NDArray[np.float64], items: int) -> "Draws":
        """Pairs as a matrix; an item drawn after itself says nothing."""
        apart = first != then
        places = first[apart], then[apart]
        shape = items, items
        return cls(
            sp.csr_matrix((weights[apart], places), shape=shape),
            sp.csr_matrix((np.ones(int(apart.sum())), places), shape=shape),
        )

    def surprise(self) -> sp.csr_matrix:
        """The likelihood ratio G² of each pair that is drawn oftener than by chance, (items, items)."""
        return surprise(self.weights)


def surprise(draws: sp.csr_matrix) -> sp.csr_matrix:
    """How unlikely it is that chance alone draws as often as it was: G² of the pairs that are drawn oftener.

    G² = 2 Σ k ln(k / expected) over the four cells "i or not" by "j or not" (Dunning 1993). Under chance it is
    χ²-distributed with one degree of freedom.

    Args:
        draws: Counts or weights, (n, n).
    """
    pairs = draws.tocoo()
    rows, columns = (np.asarray(draws.sum(axis=axis), dtype=np.float64).ravel() for axis in (1, 0))
    total = float(rows.sum())
    both = pairs.data.astype(np.float64)
    left: NDArray[np.float64] = rows[pairs.row]
    right: NDArray[np.float64] = columns[pairs.col]
    neither = np.maximum(total - left - right + both, 0.0)
    ratio = (
        _plogp(both)
        + _plogp(np.maximum(left - both, 0.0))
        + _plogp(np.maximum(right - both, 0.0))
        + _plogp(neither)
        - _plogp(left)
        - _plogp(right)
        - _plogp(total - left)
        - _plogp(total - right)
        + _plogp(np.array(total))
    )
    oftener = both * total > left * right
    kept = oftener & (ratio > 0)
    return sp.csr_matrix((2 * ratio[kept], (pairs.row[kept], pairs.col[kept])), shape=draws.shape)


def complementary_draws(log: Interactions, items: int) -> list[Draws]:
    """The ways in which one item is led to by the taking of another.

    - *Together*: another line of the same basket that was not taken before it, one drawn a line.
    - *Looked at next*: what the visitor looked at right after it.

    What is in the visitor's next basket says no more: with those lines, next baskets were foreseen worse.

    Args:
        log: Events of all types, sorted by user and time.
        items: Number of items.
    """
    lines = log.where(np.isin(log.types, TAKES))
    baskets = sessions(lines)
    # What was put into the cart and then bought is one line: of the moment it was chosen.
    lines, baskets = _once(lines, baskets, items)
    place = _places(baskets)
    short = place < MOST_LINES
    lines, baskets, place = lines.where(short), baskets[short], place[short]
    looked = log.where(np.isin(log.types, (*LOOKS, EventType.ADD_TO_CART)))
    return [_together(lines, baskets, items), _looked_next(looked, items)]


def similar_draws(log: Interactions, items: int) -> Draws:
    """Which items are looked at in one go: within a session, up to the moment when one is taken, either way round.

    What is looked at after something was taken is looked for beside it, not instead of it.

    Args:
        log: Events of all types, sorted by user and time.
        items: Number of items.
    """
    steps = log.where(np.isin(log.types, (*LOOKS, *TAKES)))
    took = np.isin(steps.types, TAKES)
    spell = sessions(steps) + np.cumsum(took) - took
    steps, spell = steps.where(~took), spell[~took]
    last = _last_of_runs(spell, steps.items)
    steps, spell = steps.where(last), spell[last]
    first, then, weights = [], [], []
    for distance in range(1, LOOKS_APART + 1):
        near = np.flatnonzero(spell[:-distance] == spell[distance:])
        one, other = steps.items[near], steps.items[near + distance]
        first += [one, other]
        then += [other, one]
        weights += [np.full(2 * len(near), 1.0 / distance)]
    return Draws.of(_joined(first), _joined(then), np.concatenate(weights), items)


def complementary_table(
    log: Interactions, categories: Sequence[str | None], likeness: Likeness, kept: int = KEPT
) -> NDArray[np.void]:
    """What completes each item, most of all first, as a release has it: `ASSOCIATION`, (items, kept).

    A pair counts where it was seen `SUPPORT` times in one way and is as frequent as chance makes it with probability
    `DOUBT` at most. Where both items have a category, it has to be another: a second dress is no
    complement of a dress, though many look at one. What an item's own pairs leave open is filled from the categories
    that complete its own by the same test, with what resembles it most: items without sales have that alone.

    Args:
        log: Events of all types, sorted by user and time.
        categories: Of each item, None where it has none.
        likeness: What goes with an item in another category resembles it in style, use or price.
        kept: Most of each item.
    """
    items = len(categories)
    codes = _codes(categories)
    ways = [way for way in complementary_draws(log, items) if way.weights.nnz]
    if not ways:
        return _empty(items, kept)
    evidence = _sum([way.surprise() for way in ways])
    # What one visitor does may count both ways: it is one observation, and the tests are not independent (Bonferroni).
    seen = _largest([way.seen for way in ways])
    floor = float(chdtri(1, DOUBT / len(ways)))
    # A line of a large basket is a small part of a draw, and was seen as surely as one of a small basket.
    certain = _largest([surprise(way.seen) for way in ways])
    pairs = evidence.tocoo()
    times, certainty = (np.asarray(each[pairs.row, pairs.col]).ravel() for each in (seen, certain))
    alike = (codes[pairs.row] == codes[pairs.col]) & (codes[pairs.row] > 0)
    sure = (certainty >= floor) & (times >= SUPPORT) & ~alike
    where = pairs.row[sure], pairs.col[sure]
    shape = items, items
    behaviour = distributions(sp.csr_matrix((pairs.data[sure], where), shape=shape))
    counts = sp.csr_matrix((times[sure], where), shape=shape)
    content = _of_categories(_sum([way.weights for way in ways]), codes, likeness, kept)
    return _table(behaviour, counts, content, kept)


def similar_table(log: Interactions, likeness: Sequence[Likeness], kept: int = KEPT) -> NDArray[np.void]:
    """What is like each item, most of all first, as a release has it: `ASSOCIATION`, (items, kept).

    Args:
        log: Events of all types, sorted by user and time.
        likeness: What items are compared by, each for an equal part; where behaviour has seen an item often, that
            decides.
        kept: Most of each item.
    """
    items = likeness[0].shape[0]
    if items < 2:
        return _empty(items, kept)
    draws = similar_draws(log, items)
    evidence = draws.surprise()
    counts = draws.seen.multiply(evidence > 0)
    parts = []
    for one in likeness:
        weights = content_neighbours(one, kept)
        weights.data = np.exp((weights.data - 1.0) / CONTENT_TEMPERATURE)
        parts.append(distributions(weights))
    content = distributions(_sum(parts))
    return _table(distributions(evidence), sp.csr_matrix(counts), content, kept)


def sessions(log: Interactions) -> NDArray[np.int64]:
    """The number of each event's session, shape (events,): a user's events without `SESSION_MS` of rest among them."""
    if not len(log):
        return np.empty(0, dtype=np.int64)
    begins = (log.users[1:] != log.users[:-1]) | (np.diff(log.times) > SESSION_MS)
    return np.cumsum(np.r_[False, begins])


def _once(lines: Interactions, baskets: NDArray[np.int64], items: int) -> tuple[Interactions, NDArray[np.int64]]:
    _, first = np.unique(baskets * items + lines.items, return_index=True)
    first = np.sort(first)
    return lines.where(first), baskets[first]


def _together(lines: Interactions, baskets: NDArray[np.int64], items: int) -> Draws:
    sizes = np.bincount(baskets) if len(baskets) else np.zeros(0, dtype=np.int64)
    first, then, weights = [], [], []
    for distance in range(1, int(sizes.max(initial=1))):
        one = np.flatnonzero(baskets[:-distance] == baskets[distance:])
        other = one + distance
        part = 1.0 / (sizes[baskets[one]] - 1)
        first.append(lines.items[one])
        then.append(lines.items[other])
        weights.append(part)
        same = lines.times[one] == lines.times[other]  # an order's lines came at once: either leads to the other
        first.append(lines.items[other[same]])
        then.append(lines.items[one[same]])
        weights.append(part[same])
    return Draws.of(_joined(first), _joined(then), np.concatenate([*weights, np.empty(0)]), items)


def _looked_next(steps: Interactions, items: int) -> Draws:
    session = sessions(steps)
    ends = np.flatnonzero(_last_of_runs(session, steps.items))
    successor = ends[np.searchsorted(ends, np.arange(len(steps)))] + 1
    took = np.flatnonzero(steps.types == EventType.ADD_TO_CART)
    took = took[successor[took] < len(steps)]
    took = took[session[successor[took]] == session[took]]
    return Draws.of(steps.items[took], steps.items[successor[took]], np.ones(len(took)), items)


def _of_categories(draws: sp.csr_matrix, codes: NDArray[np.int64], likeness: Likeness, kept: int) -> sp.csr_matrix:
    """For each item, of the categories that complete its own, what resembles it: distributions, (items, items)."""
    items = len(codes)
    belongs = sp.csr_matrix((np.ones(items), (np.arange(items), codes)), shape=(items, int(codes.max(initial=0)) + 1))
    flows = sp.csr_matrix(belongs.T @ draws @ belongs)
    unlikely = surprise(flows).tocoo()
    sure = (
        (unlikely.data >= chdtri(1, DOUBT)) & (unlikely.row != unlikely.col) & (unlikely.row > 0) & (unlikely.col > 0)
    )
    if not sure.any():
        return sp.csr_matrix((items, items))
    pairs = unlikely.row[sure], unlikely.col[sure]
    often = np.asarray(flows[pairs]).ravel()
    shares = distributions(sp.csr_matrix((often, pairs), shape=flows.shape))
    seen = np.asarray(draws.sum(axis=0)).ravel()
    unit = unit_rows(likeness)
    rows, columns, values = [], [], []
    for category, goal in zip(*pairs, strict=True):
        own = np.flatnonzero(codes == category)
        found = np.flatnonzero(codes == goal)
        found = found[np.argsort(-seen[found], kind="stable")[:CANDIDATES]]
        keep = min(kept, len(found))
        for start in range(0, len(own), 1024):
            block = own[start : start + 1024]
            product = unit[block] @ unit[found].T
            cosine = np.asarray(product.toarray() if sp.issparse(product) else product, dtype=np.float64)
            best = np.argpartition(cosine, len(found) - keep, axis=1)[:, len(found) - keep :]
            weights = np.exp((np.take_along_axis(cosine, best, axis=1) - 1.0) / CONTENT_TEMPERATURE)
            weights *= shares[category, goal] / weights.sum(axis=1, keepdims=True)
            rows.append(np.repeat(block, keep))
            columns.append(found[best].ravel())
            values.append(weights.ravel())
    return sp.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(items, items)
    )


def _table(behaviour: sp.csr_matrix, counts: sp.csr_matrix, content: sp.csr_matrix, kept: int) -> NDArray[np.void]:
    """Rows of both, behaviour by how much of it there is; the heaviest first, sharing out 1."""
    support = np.asarray(counts.sum(axis=1)).ravel()
    share = support / (support + TRUST)
    share = np.where(np.diff(content.indptr) > 0, share, 1.0)
    mixed = sp.csr_matrix(sp.diags(share) @ behaviour + sp.diags(1.0 - share) @ content)
    mixed.setdiag(0.0)
    mixed.eliminate_zeros()
    mixed.sum_duplicates()
    table = _empty(mixed.shape[0], kept)
    owner = np.repeat(np.arange(mixed.shape[0]), np.diff(mixed.indptr))
    order = np.lexsort((mixed.indices, -mixed.data, owner))
    rank = np.arange(len(order)) - np.repeat(mixed.indptr[:-1], np.diff(mixed.indptr))
    best = order[rank < kept]
    place = owner[best], rank[rank < kept]
    table["item"][place] = mixed.indices[best]
    table["weight"][place] = mixed.data[best]
    table["count"][place] = np.asarray(counts[owner[best], mixed.indices[best]]).ravel()
    table["weight"] /= np.maximum(table["weight"].sum(axis=1, keepdims=True), 1e-12)
    return table


def _empty(items: int, kept: int) -> NDArray[np.void]:
    table = np.zeros((items, kept), dtype=ASSOCIATION)
    table["item"] = -1
    return table


def _codes(categories: Sequence[str | None]) -> NDArray[np.int64]:
    """A number a category, 0 for none, (items,)."""
    known: dict[str | None, int] = {None: 0, "": 0}
    return np.array([known.setdefault(category, len(known) - 1) for category in categories], dtype=np.int64)


def _places(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each element's place in its run of equal numbers, from 0."""
    if not len(numbers):
        return numbers
    starts = np.flatnonzero(np.r_[True, np.diff(numbers) != 0])
    return np.arange(len(numbers)) - np.repeat(starts, np.diff(np.r_[starts, len(numbers)]))


def _last_of_runs(numbers: NDArray[np.int64], items: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which events end a run of events about one item in one session, shape (events,)."""
    change = (numbers[1:] != numbers[:-1]) | (items[1:] != items[:-1])
    return np.concatenate([change, np.ones(min(len(items), 1), dtype=bool)])


def _joined(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([*parts, np.empty(0, dtype=np.int32)])


def _plogp(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(xlogy(values, values))


def _sum(matrices: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    total = matrices[0]
    for one in matrices[1:]:
        total = total + one
    return sp.csr_matrix(total)


def _largest(matrices: Sequence[sp.csr_matrix]) -> sp.csr_matrix:
    largest = matrices[0]
    for one in matrices[1:]:
        largest = largest.maximum(one)
    return sp.csr_matrix(largest)
