"""Re-ranking: a second look at a list's candidates, by more than the two halves of the mix say of each.

The mix chooses the candidates and explains them; a release's re-ranker shares their probability out anew. Training,
judging and serving have `candidate_features` and `rerank` in common.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.ranking.providers import session_on
from mmrec_stream.ranking.types import Features, Lists

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""What a re-ranker gives for features (batch, candidates, `NAMES`): (batch, candidates), higher is better."""

CANDIDATES = 100
"""Items of a list that are looked at again, five times a list of 20. What follows them keeps the order of the mix."""

RECENT = 10
"""Newest events that candidates are compared with, as many as spread to neighbours."""

APART = 3
"""Of them, those with features of their own; the others count in sums."""

FADING = 0.8
"""What an event counts in sums beside the one after it."""

SHRINK = 5.0
"""Added to the norms of a cosine of users, so that two items with one user each are not taken for the same."""

OF_LIST = (
    "ln p", "ln p below best", "ln p_user", "ln p_user below best", "ln p_item", "ln p_item below best",
    "place", "place by p_user", "place by p_item", "associated",
)  # fmt: skip
OF_ITEM = ("ln events", "ln likings", "ln likings of newest")
OF_VECTORS = ("cosine, mean", "cosine, largest")
OF_EVENT = ("cosine", "users' cosine", "ln after", "ln next", "ln before")
SUMMED = ("ln users' cosine", "ln after", "associated events", "followed events")

NAMES = (
    *OF_LIST,
    *OF_ITEM,
    *OF_VECTORS,
    *(f"{name}, event {event}" for event in range(1, APART + 1) for name in OF_EVENT),
    *(f"{name}, all" for name in SUMMED),
)
"""Features of a candidate, in order. `ln p` comes first: the re-ranker's graph begins with it."""


class Counts:
    """What was counted of pairs of items, by item."""

    def __init__(self, entries: NDArray[np.void], items: int) -> None:
        """Entries of `COUNTED`, in the order of `of`, about the first `items` rows of the item table."""
        self.entries = np.ascontiguousarray(entries)
        self.offsets = np.searchsorted(self.entries["of"], np.arange(items + 1)).astype(np.int64)
        """Where each item's entries begin, (items + 1,)."""


def candidate_features(
    features: Features, lists: Lists, vectors: NDArray[np.float32], counts: Counts
) -> NDArray[np.float32]:
    """What is known of each candidate, (batch, candidates, `NAMES`).

    Args:
        features: What the lists were made of.
        lists: The candidates by the mix, best first; those whose score is not above 0 are none, and have zeros.
        vectors: Of all items, (items, d).
        counts: Of the items that training knew.
    """
    found = np.zeros((*lists.rows.shape, len(NAMES)), dtype=np.float32)
    _of_lists(lists.scores, lists.p_user, lists.p_item, found)
    _of_histories(
        features.history_rows,
        features.lengths,
        lists.rows,
        lists.scores,
        vectors,
        counts.entries,
        counts.offsets,
        found,
    )
    return found


def rerank(features: Features, lists: Lists, vectors: NDArray[np.float32], counts: Counts, logits: Logits) -> Lists:
    """The lists with their first `CANDIDATES` in the order of a re-ranker.

    Args:
        features: What the lists were made of.
        lists: By the mix, best first.
        vectors: Of all items, (items, d).
        counts: Of the items that training knew.
        logits: The re-ranker.
    """
    head = lists.places(slice(CANDIDATES))
    return reordered(lists, logits(candidate_features(features, head, vectors, counts)))


def reordered(lists: Lists, logits: NDArray[np.float32]) -> Lists:
    """Lists whose first places are ordered by logits (batch, candidates), each item with its own halves of the mix.

    Scores stay probabilities: the softmax of the logits shares out what the mix gives to these candidates together.
    What follows them stays behind them, its scores lowered where they would not be. Places whose score is not above 0
    stay last, as they are.
    """
    count = logits.shape[1]
    mixed, rest = lists.scores[:, :count], lists.scores[:, count:]
    there = mixed > 0
    # Within e⁶⁰ of the best a share is above 0, so that no candidate is taken for an empty place.
    best = np.where(there, logits, -np.inf).max(axis=1, keepdims=True, initial=-1e30)
    shares = np.where(there, np.exp(np.maximum(logits - best, -60.0)), 0.0)
    mass = np.where(there, mixed, 0.0).sum(axis=1, keepdims=True)
    scores = np.where(there, mass * shares / np.maximum(shares.sum(axis=1, keepdims=True), 1.0), mixed)
    order = np.argsort(-scores, axis=1, kind="stable")
    if rest.shape[1]:
        last = np.minimum(scores.min(axis=1, keepdims=True) / np.maximum(mixed[:, -1:], 1e-30), 1.0)
        scores = np.concatenate([scores, np.where(rest > 0, rest * last, rest)], axis=1)
        order = np.concatenate([order, np.broadcast_to(np.arange(count, lists.rows.shape[1]), rest.shape)], axis=1)
    return Lists(
        rows=np.take_along_axis(lists.rows, order, axis=1),
        scores=np.take_along_axis(scores.astype(np.float32), order, axis=1),
        p_user=np.take_along_axis(lists.p_user, order, axis=1),
        p_item=np.take_along_axis(lists.p_item, order, axis=1),
        alpha=lists.alpha,
    )


class Reranker:
    """A release's graph, and the counts that it goes by."""

    def __init__(self, path: Path, counts: Counts, threads: int) -> None:
        """The graph at `path`, with `threads` threads of one run; 0 lets ONNX Runtime choose."""
        self.counts = counts
        self._session = session_on(str(path), "cpu", threads)

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of candidates with these features; as `Logits`."""
        found: NDArray[np.float32] = self._session.run(["logits"], {"features": features})[0]
        return found

    def rerank(self, features: Features, lists: Lists, vectors: NDArray[np.float32]) -> Lists:
        """The lists in its order; see the function of this name."""
        return rerank(features, lists, vectors, self.counts, self.logits)


@njit(cache=True, nogil=True)
def _of_lists(scores, p_user, p_item, found):  # type: ignore[no-untyped-def]
    """The features of `OF_LIST`."""
    users, count = scores.shape
    least_user, least_item = np.float32(1e-9), np.float32(1e-6)
    for user in range(users):
        best_user, best_item = np.float32(0), np.float32(0)
        for one in range(count):
            if scores[user, one] > 0:
                best_user, best_item = max(best_user, p_user[user, one]), max(best_item, p_item[user, one])
        place = 0
        for one in np.argsort(-p_user[user]):
            if scores[user, one] > 0:
                found[user, one, 7] = np.log1p(np.float32(place))
                place += 1
        place = 0
        for one in np.argsort(-p_item[user]):
            if scores[user, one] > 0:
                found[user, one, 8] = np.log1p(np.float32(place))
                # Those that no association names share the place after the last that one does.
                place += p_item[user, one] > 0
        place = 0
        for one in range(count):
            if scores[user, one] <= 0:
                continue
            mine = found[user, one]
            mine[0] = np.log(scores[user, one] + least_user)
            mine[1] = mine[0] - np.log(scores[user, 0] + least_user)
            mine[2] = np.log(p_user[user, one] + least_user)
            mine[3] = mine[2] - np.log(best_user + least_user)
            mine[4] = np.log(p_item[user, one] + least_item)
            mine[5] = mine[4] - np.log(best_item + least_item)
            mine[6] = np.log1p(np.float32(place))
            mine[9] = p_item[user, one] > 0
            place += 1


_EVENTS_AT = len(OF_LIST) + len(OF_ITEM) + len(OF_VECTORS)
_SUMS_AT = _EVENTS_AT + APART * len(OF_EVENT)
_PER_EVENT = len(OF_EVENT)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _of_histories(rows, lengths, candidates, scores, vectors, entries, offsets, found):  # type: ignore[no-untyped-def]
    """All other features."""
    users, count = candidates.shape
    trained = len(offsets) - 1
    dim = vectors.shape[1]
    place_of = np.full(len(vectors), -1, dtype=np.int32)
    recent = np.empty((RECENT, dim), dtype=np.float32)
    own = np.empty(dim, dtype=np.float32)
    likings = np.empty(count, dtype=np.float32)
    summed = np.empty((count, 2), dtype=np.float32)
    for user in range(users):
        length = lengths[user]
        events = min(length, RECENT)
        of_newest = _likings(rows[user, length - 1], entries, offsets)
        for event in range(events):
            _unit(vectors[rows[user, length - 1 - event]], recent[event])
        for one in range(count):
            summed[one] = 0
            likings[one] = 0
            if scores[user, one] <= 0:
                continue
            row = candidates[user, one]
            place_of[row] = one
            likings[one] = _likings(row, entries, offsets)
            mine = found[user, one]
            mine[10] = np.log(np.float32(length))
            mine[11] = np.log1p(likings[one])
            mine[12] = np.log1p(of_newest)
            _unit(vectors[row], own)
            total, largest = np.float32(0), np.float32(-1)
            for event in range(events):
                cosine = np.float32(0)
                for d in range(dim):
                    cosine += recent[event, d] * own[d]
                total += cosine
                largest = max(largest, cosine)
                if event < APART:
                    mine[_EVENTS_AT + _PER_EVENT * event] = cosine
            mine[13] = total / np.float32(events)
            mine[14] = largest
        fading = np.float32(1)
        for event in range(events):
            row = rows[user, length - 1 - event]
            if row < trained:
                liked = _likings(row, entries, offsets)
                for at in range(offsets[row] + 1, offsets[row + 1]):
                    one = place_of[entries[at]["item"]]
                    if one < 0:
                        continue
                    pair = entries[at]
                    mine = found[user, one]
                    cosine = pair["users"] / (np.sqrt(liked * likings[one]) + np.float32(SHRINK))
                    if event < APART:
                        here = _EVENTS_AT + _PER_EVENT * event
                        mine[here + 1] = cosine
                        mine[here + 2] = np.log1p(pair["after"])
                        mine[here + 3] = np.log1p(pair["next"])
                        mine[here + 4] = np.log1p(pair["before"])
                    summed[one, 0] += fading * cosine
                    summed[one, 1] += fading * pair["after"]
                    mine[_SUMS_AT + 2] += np.float32(1)
                    mine[_SUMS_AT + 3] += np.float32(pair["after"] > 0)
            fading *= np.float32(FADING)
        for one in range(count):
            if scores[user, one] > 0:
                place_of[candidates[user, one]] = -1
                found[user, one, _SUMS_AT] = np.log(summed[one, 0] + np.float32(1e-4))
                found[user, one, _SUMS_AT + 1] = np.log(summed[one, 1] + np.float32(1e-3))


@njit(cache=True, nogil=True)
def _likings(row, entries, offsets):  # type: ignore[no-untyped-def]
    """How many liked an item."""
    if row >= len(offsets) - 1 or offsets[row] == offsets[row + 1]:
        return np.float32(0)
    return entries[offsets[row]]["users"]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _unit(vector, out):  # type: ignore[no-untyped-def]
    """The vector at length 1, into `out`; 0 stays 0."""
    square = np.float32(0)
    for d in range(len(vector)):
        square += vector[d] * vector[d]
    factor = np.float32(1) / np.sqrt(max(square, np.float32(1e-18)))
    for d in range(len(vector)):
        out[d] = vector[d] * factor
