"""Ranking in two stages, for catalogues too large to score whole: candidates first, then the hybrid mix of those.

Candidates are what an index finds closest to the user's vector, and everything that the newest events are associated
with. The mix over them is the ranker's own, p = α·p_user + (1 − α)·p_item: an item that no index finds and no
association names has no share worth a place. Only p_user's denominator, a sum over the whole catalogue, is estimated:
exactly over the candidates, and from a sample for the rest.
"""

import logging
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.ranking.approximate import ApproximateIndex
from mmrec_stream.ranking.exact import ExactIndex
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.types import Lists
from mmrec_stream.ranking.users import Users

Method = Literal["exact", "approximate"]

CANDIDATES = 100
"""Items that the index finds for a list of 20. They fill the list where associations name nothing, and carry the
larger part of p_user's sum."""

SPARE = 5
"""Candidates a place for longer lists: as many as `CANDIDATES` has for 20."""

SAMPLE = 2048
"""Items that stand for the rest of the catalogue in p_user's sum. The sum's error is the same for all items of a user,
so that it moves only how the halves weigh against each other: by 1 to 2% up to 100,000 items, and by 6% at a million
where items come in clusters of thousands. Twice as many would halve the variance for 30 µs more a user."""

log = logging.getLogger(__name__)


class Retrieval:
    """The first stage over an item table, kept in step with it, and the second."""

    def __init__(
        self, table: ItemTable, method: Method, *, threads: int, users: NDArray[np.float32], recall: float = 0.95
    ) -> None:
        """Build the index; takes .3 s (exact) or 14 s (approximate) for a million items.

        Args:
            table: The items.
            method: `exact` finds the closest items; `approximate` finds `recall` of them, many times as fast.
            threads: Threads of a search; 0 lets ONNX Runtime choose.
            users: Users' vectors that the recall is measured on, (users, d).
            recall: What an approximate index has to reach.

        Raises:
            UserError: faiss is not installed, and `method` needs it.
        """
        self._table = table
        self._random = np.random.default_rng(0)
        vectors, available = self._note()
        self._index: ExactIndex | ApproximateIndex
        if method == "exact":
            self._index = ExactIndex(vectors, available, threads=threads)
            log.info("an exact index finds candidates among %d items", len(vectors))
        else:
            self._index = ApproximateIndex(vectors, available, recall=recall, queries=users)
            log.info(
                "an approximate index finds candidates among %d items, %.1f%% of the best 100",
                len(vectors),
                100 * self._index.recall,
            )

    def lists(self, users: Users, excluded: NDArray[np.int64], k: int) -> Lists:
        """The `k` best items of each user, as `Scorer.run`.

        Args:
            users: A batch of them.
            excluded: Rows that must not be in the list, (batch, any), padded with −1.
            k: Places; at most as many as there are items.
        """
        if self._version != self._table.version:
            self._update()
        # What is excluded counts in p_user's sum all the same, as in the ranker; the list is full without it.
        wanted = max(CANDIDATES, SPARE * k, k + excluded.shape[1])
        rows, logits = self._index.search(users.user_vectors, min(wanted, len(self._vectors)))
        batch = len(users.alpha)
        lists = Lists(
            rows=np.zeros((batch, k), dtype=np.int64),
            scores=np.zeros((batch, k), dtype=np.float32),
            p_user=np.zeros((batch, k), dtype=np.float32),
            p_item=np.zeros((batch, k), dtype=np.float32),
            alpha=users.alpha,
        )
        _mix(
            users.user_vectors, rows, logits, users.association_rows, users.association_weights, users.alpha, excluded,
            self._vectors, self._sample, self._sample_vectors, self._sellable,
            lists.rows, lists.scores, lists.p_user, lists.p_item,
        )  # fmt: skip
        return lists

    def _update(self) -> None:
        """Take over what has changed in the table: new rows, vectors, and whether an item is available."""
        before = self._version
        vectors, available = self._note()
        if isinstance(self._index, ExactIndex):
            changed = self._table.changed_since(before)
            self._index.update(vectors, available, changed[changed < len(vectors)])
        else:
            self._index.update(vectors, available)

    def _note(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Remember the table's state, and say which vectors and availability it has.

        The version first: what another thread changes from here on makes it differ again. Rows that it adds between the
        two arrays are left for the next time.
        """
        self._version = self._table.version
        available = self._table.available
        self._vectors = self._table.vectors[: len(available)]
        self._available = available.copy()
        self._sellable = np.count_nonzero(self._available)
        drawn = self._random.choice(len(available), min(2 * SAMPLE, len(available)), replace=False)
        self._sample = drawn[self._available[drawn]][:SAMPLE]
        self._sample_vectors = self._vectors[self._sample]
        return self._vectors, available


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _mix(  # type: ignore[no-untyped-def]
    users, rows, logits, associated, weights, alpha, excluded, vectors, sample, sample_vectors, sellable,
    best_rows, best_scores, best_user, best_item,
):  # fmt: skip
    """Fill the lists, user by user: candidates in a hash table, p_user's sum, and the best by insertion.

    `logits` are −inf where the index found nothing.
    """
    size = 16
    while size < 2 * (rows.shape[1] + associated.shape[1]):
        size *= 2
    slot_row = np.full(size, -1, dtype=np.int64)
    slot_logit = np.zeros(size, dtype=np.float32)
    slot_item = np.zeros(size, dtype=np.float32)
    used = np.zeros(size, dtype=np.int64)
    places = best_rows.shape[1]
    for user in range(users.shape[0]):
        count = 0
        for place in range(rows.shape[1]):
            if logits[user, place] == -np.inf:
                continue
            slot = _slot(slot_row, rows[user, place])
            if slot_row[slot] < 0:
                slot_row[slot], slot_logit[slot], slot_item[slot] = rows[user, place], logits[user, place], 0.0
                used[count] = slot
                count += 1
        for place in range(associated.shape[1]):
            if weights[user, place] <= 0:
                continue
            row = associated[user, place]
            slot = _slot(slot_row, row)
            if slot_row[slot] < 0:
                slot_row[slot], slot_logit[slot], slot_item[slot] = row, _dot(users, user, vectors, row), 0.0
                used[count] = slot
                count += 1
            slot_item[slot] += weights[user, place]
        top = np.float32(-np.inf)
        for number in range(count):
            top = max(top, slot_logit[used[number]])
        others = 0
        sampled = np.float32(0)
        for number in range(sample.shape[0]):
            if slot_row[_slot(slot_row, sample[number])] >= 0:
                continue
            sampled += np.exp(_dot(users, user, sample_vectors, number) - top)
            others += 1
        total = np.float32(0)
        for number in range(count):
            total += np.exp(slot_logit[used[number]] - top)
        if others:
            total += sampled * np.float32(max(sellable - count, 0)) / np.float32(others)
        filled = 0
        for number in range(count):
            slot = used[number]
            row = slot_row[slot]
            out = False
            for place in range(excluded.shape[1]):
                out = out or excluded[user, place] == row
            p_user = np.exp(slot_logit[slot] - top) / total
            score = np.float32(0) if out else alpha[user] * p_user + (1 - alpha[user]) * slot_item[slot]
            if score <= 0 or (filled == places and score <= best_scores[user, places - 1]):
                continue
            place = min(filled, places - 1)
            while place > 0 and best_scores[user, place - 1] < score:
                best_rows[user, place] = best_rows[user, place - 1]
                best_scores[user, place] = best_scores[user, place - 1]
                best_user[user, place] = best_user[user, place - 1]
                best_item[user, place] = best_item[user, place - 1]
                place -= 1
            best_rows[user, place], best_scores[user, place] = row, score
            best_user[user, place], best_item[user, place] = p_user, slot_item[slot]
            filled = min(filled + 1, places)
        for number in range(count):
            slot_row[used[number]] = -1


@njit(cache=True, nogil=True)
def _slot(slot_row, row):  # type: ignore[no-untyped-def]
    """Where a row is in the hash table, or would be: linear probing from a multiplicative hash."""
    mask = slot_row.shape[0] - 1
    slot = (row * 0x9E3779B1 >> 7) & mask
    while slot_row[slot] != row and slot_row[slot] >= 0:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _dot(a, row, b, other):  # type: ignore[no-untyped-def]
    """Inner product of two matrices' rows; by indices, as views of rows would be counted references."""
    total = np.float32(0)
    for place in range(a.shape[1]):
        total += a[row, place] * b[other, place]
    return total
