"""The item table: which row an item has, and everything the ranker knows of each row."""

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.catalogue.index import UNKNOWN, KeyIndex
from mmrec_stream.contracts.identity import id_keys

T = TypeVar("T", bound=np.generic)

_SLACK = 1.25
"""Rows reserved beyond those there are. A catalogue grows by a few percent between two releases, so that the arrays
are copied about never; each reserved row of 64 floats costs 256 bytes."""

CONTENT_TEMPERATURE = 0.1
"""Softmax temperature of cosine similarities: a difference of .1 between two neighbours makes one count e times the
other, which is about how far the nearest neighbours of a trained table lie apart."""

INTRODUCED_TO = 8
"""Items that an added one becomes a neighbour of: those that resemble it most. Whoever has looked at one of them is led
to it; a product page shows about as many."""

ADDED_SHARE = 0.25
"""At most this share of an item's neighbours are added ones that nobody has been seen to choose after it. Beyond that
the weakest of them makes room, so that a delivery of a thousand alike products leaves what behaviour has shown."""

_TOGETHER = 256
"""Added items that look for their neighbours at once, as many as are encoded at once."""

_COMPARED = 1_000_000
"""Similarities held at a time while they do: 4 MB, which a processor's caches hold."""


class ItemTable:
    """Rows of items, grown by `add`, never renumbered.

    One thread adds; others may say meanwhile what can be sold, and rank.

    The arrays are views of the reserved ones: growing within the reserve copies nothing, and whoever holds an older
    view goes on with the rows that were there when it was taken.
    """

    def __init__(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.float32],
        neighbours: NDArray[np.int32],
        neighbour_weights: NDArray[np.float32],
    ) -> None:
        """A table of the given items, all available.

        Args:
            ids: Item ids, (items,).
            vectors: (items, d).
            neighbours: (items, K), −1 where there is none.
            neighbour_weights: (items, K), 0 where there is none.
        """
        self._ids = list(ids)
        self._count = len(self._ids)
        capacity = max(1, int(self._count * _SLACK))
        self._vectors = _reserved(vectors, capacity, 0.0)
        self._norms = _reserved(_norms(self._vectors[: self._count]), capacity, 1.0)
        """Of the vectors: a million of them take longer to compute than all else that an added item costs."""
        self._neighbours = _reserved(neighbours, capacity, -1)
        self._neighbour_weights = _reserved(neighbour_weights, capacity, 0.0)
        self._available = np.ones(capacity, dtype=bool)
        self._sellable = np.ones(capacity, dtype=bool)
        self._permitted = np.ones(capacity, dtype=bool)
        self._trained = self._count
        self._strangers: deque[tuple[int, int]] = deque()
        """Added rows, and what each is to become a neighbour of."""
        self._linking = Lock()
        """Held while neighbours change in place, and while they move."""
        self._placing = Lock()
        """Held while rows are added, and while what is said of rows changes."""
        self._changed_at = np.zeros(capacity, dtype=np.int64)
        """The version that each row's vector or availability changed with."""
        self._index = KeyIndex()
        keys = id_keys(self._ids)
        self._keys = _reserved(keys, capacity, 0)
        self._index.add(keys)
        self.version = 0
        """Grows with every change of what the ranker sees, so that a copy on a device knows when it is stale."""

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> Sequence[str]:
        """Item id of each row. Only for reading."""
        return self._ids

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(items, d)."""
        return self._vectors[: self._count]

    @property
    def neighbours(self) -> NDArray[np.int32]:
        """(items, K)."""
        return self._neighbours[: self._count]

    @property
    def neighbour_weights(self) -> NDArray[np.float32]:
        """(items, K)."""
        return self._neighbour_weights[: self._count]

    @property
    def available(self) -> NDArray[np.bool_]:
        """(items,): whether the item may be recommended: it can be sold, and rules permit it."""
        return self._available[: self._count]

    @property
    def keys(self) -> NDArray[np.uint64]:
        """(items,): `id_key` of each item."""
        return self._keys[: self._count]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What the ranker reads, by the names of its inputs, all of the same number of rows.

        For the thread that ranks, when it is done with the arrays that it had before: neighbours change in place, and
        may be rows that those did not have.
        """
        if self._strangers:
            with self._linking:
                while self._strangers:
                    self._introduce(*self._strangers.popleft())
        count = self._count
        return {
            "item_vectors": self._vectors[:count],
            "neighbours": self._neighbours[:count],
            "neighbour_weights": self._neighbour_weights[:count],
            "available": self._available[:count],
        }

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each item key (`id_key`), `UNKNOWN` where the table does not have it; the shape of `keys`."""
        return self._index.rows(keys)

    def row(self, item_id: str) -> int:
        """The row of one item, or `UNKNOWN`."""
        return int(self.rows(id_keys([item_id]))[0])

    def add(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Append items, or give items that are there another vector.

        Nothing is known of what follows an appended item, so its neighbours are the items that resemble it most, and it
        becomes a neighbour of theirs when the arrays are next asked for.

        Args:
            ids: Different item ids, (n,).
            vectors: (n, d).

        Returns:
            The rows, (n,).
        """
        rows, fresh = self.place(ids, vectors)
        self.resemble(fresh)
        return rows

    def place(
        self, ids: Sequence[str], vectors: NDArray[np.float32], available: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `add`, without looking for the neighbours of appended items, which `resemble` does.

        Args:
            ids: Different item ids, (n,).
            vectors: (n, d).
            available: Whether appended items can be sold; that of items that are there stays.

        Returns:
            The rows, (n,), and those of them that were appended.
        """
        keys = id_keys(ids)
        with self._placing:
            rows = self.rows(keys)
            fresh = np.flatnonzero(rows == UNKNOWN)
            rows[fresh] = np.arange(self._count, self._count + len(fresh))
            if self._count + len(fresh) > len(self._available):
                self._grow(int((self._count + len(fresh)) * _SLACK) + 1)
            self._vectors[rows] = vectors
            self._norms[rows] = _norms(vectors)
            self._keys[rows] = keys
            self._sellable[rows[fresh]] = self._available[rows[fresh]] = available
            self._ids.extend(ids[position] for position in fresh.tolist())
            # The index last: a reader on another thread that finds an item must find its row filled.
            self._index.add(keys[fresh])
            self._count += len(fresh)
            self._note(rows)
        return rows, rows[fresh]

    def resemble(self, rows: NDArray[np.int64]) -> None:
        """Make the items that resemble those of `rows` most their neighbours, for the thread that adds."""
        for start in range(0, len(rows), _TOGETHER):
            self._resemble(rows[start : start + _TOGETHER])
        if len(rows):
            with self._placing:
                self._note(rows)

    def changed_since(self, version: int) -> NDArray[np.int64]:
        """The rows whose vector or availability has changed since the table had this version, added ones too."""
        return np.flatnonzero(self._changed_at[: self._count] > version)

    def set_available(self, rows: NDArray[np.int64], available: NDArray[np.bool_] | bool) -> None:
        """Say which rows can be sold; `UNKNOWN` rows are passed over."""
        known = rows >= 0
        with self._placing:
            self._sellable[rows[known]] = np.broadcast_to(available, rows.shape)[known]
            self._combine(rows[known])

    def permit(self, rows: NDArray[np.int64], permitted: NDArray[np.bool_]) -> None:
        """Say which rows rules permit, both (n,); `UNKNOWN` rows are passed over."""
        known = rows >= 0
        with self._placing:
            self._permitted[rows[known]] = permitted[known]
            self._combine(rows[known])

    def _combine(self, rows: NDArray[np.int64]) -> None:
        changed = self._sellable[rows] & self._permitted[rows]
        if not np.array_equal(self._available[rows], changed):
            self._available[rows] = changed
            self._note(rows)

    def _note(self, rows: NDArray[np.int64]) -> None:
        """Rows have changed. The version last: whoever reads it on another thread finds all that came with it."""
        self._changed_at[rows] = self.version + 1
        self.version += 1

    def _resemble(self, rows: NDArray[np.int64]) -> None:
        """Make the nearest items by cosine the neighbours of `rows`, weighted by a softmax."""
        keep = min(self._neighbours.shape[1], self._count - 1)
        if keep < 1:
            return
        table, norms = self.vectors, self._norms[: self._count]
        own = table[rows] / norms[rows, None]
        nearest = np.full((len(rows), keep), -1, dtype=np.int64)
        closeness = np.full((len(rows), keep), -np.inf, dtype=np.float32)
        # Block by block: the table is read once for all rows, and what is held stays small.
        block = max(1, _COMPARED // len(rows))
        for start in range(0, len(table), block):
            cosine = own @ table[start : start + block].T
            cosine /= norms[start : start + block]
            here = np.flatnonzero((rows >= start) & (rows < start + block))
            cosine[here, rows[here] - start] = -np.inf
            _keep_largest(cosine, start, closeness, nearest)
        weights = np.exp((closeness - closeness.max(axis=1, keepdims=True)) / CONTENT_TEMPERATURE)
        self._neighbours[rows, :keep] = nearest
        self._neighbour_weights[rows, :keep] = weights / weights.sum(axis=1, keepdims=True)
        for place, row in enumerate(rows.tolist()):
            for other in nearest[place, :INTRODUCED_TO].tolist():
                self._strangers.append((row, other))

    def _introduce(self, row: int, other: int) -> None:
        """Make `row` a neighbour of `other`, with the mean weight of those it has; their sum stays what it was."""
        neighbours, weights = self._neighbours[other].copy(), self._neighbour_weights[other].copy()
        if (neighbours == row).any():
            return
        added, total = np.flatnonzero(neighbours >= self._trained), float(weights.sum())
        if len(added) >= max(1, int(ADDED_SHARE * len(neighbours))) and other < self._trained:
            place = added[weights[added].argmin()]
        else:
            place = np.where(neighbours < 0, -1.0, weights).argmin()
        weights[place] = 0.0
        kept = weights[weights > 0]
        neighbours[place], weights[place] = row, kept.mean() if len(kept) else 1.0
        self._neighbour_weights[other] = weights * ((total or 1.0) / weights.sum())
        self._neighbours[other] = neighbours

    def _grow(self, capacity: int) -> None:
        self._vectors = _reserved(self.vectors, capacity, 0.0)
        self._norms = _reserved(self._norms[: self._count], capacity, 1.0)
        self._keys = _reserved(self.keys, capacity, 0)
        self._sellable = _reserved(self._sellable[: self._count], capacity, True)
        self._permitted = _reserved(self._permitted[: self._count], capacity, True)
        with self._linking:
            self._neighbours = _reserved(self.neighbours, capacity, -1)
            self._neighbour_weights = _reserved(self.neighbour_weights, capacity, 0.0)
        self._available = _reserved(self.available, capacity, True)
        self._changed_at = _reserved(self._changed_at[: self._count], capacity, 0)


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.maximum(np.linalg.norm(vectors, axis=1), np.float32(1e-9))
    return norms


@njit(cache=True, nogil=True)
def _keep_largest(values, first, best, found):  # type: ignore[no-untyped-def]
    """Bring the largest values of each row, largest first, up to date with more columns, numbered from `first`."""
    keep = best.shape[1]
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            value = values[row, column]
            if value <= best[row, keep - 1]:
                continue
            place = keep - 1
            while place > 0 and best[row, place - 1] < value:
                best[row, place], found[row, place] = best[row, place - 1], found[row, place - 1]
                place -= 1
            best[row, place], found[row, place] = value, first + column


def _reserved(array: NDArray[T], capacity: int, fill: object) -> NDArray[T]:
    """A copy of `array` at the head of one with `capacity` rows; reserved rows take no memory until written."""
    reserved = np.zeros((capacity, *array.shape[1:]), dtype=array.dtype)
    reserved[: len(array)] = array
    if fill:
        reserved[len(array) :] = fill
    return reserved
