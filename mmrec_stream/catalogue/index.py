"""An index from 64-bit keys to rows that looks up a whole batch at a time."""

import numba
import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""The row of a key that the index does not have."""

_FIRST_SLOTS = 2_048

_MAX_LOAD = 0.5
"""At most this share of the slots is taken: a lookup then needs 1.5 probes on average."""


class KeyIndex:
    """Rows of keys in order of arrival: the first key has row 0. Keys are hashes (`id_key`) and never 0.

    One thread may add while others look up: they see the index as it was or as it is.
    """

    def __init__(self) -> None:
        self._count = 0
        self._slots = _slots(_FIRST_SLOTS)

    def __len__(self) -> int:
        return self._count

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each key, `UNKNOWN` where there is none; the shape of `keys`."""
        found = np.empty(keys.shape, dtype=np.int64)
        _lookup(*self._slots, np.ascontiguousarray(keys).reshape(-1), found.reshape(-1))
        return found

    def add(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each key, shape (keys,); keys that are new get the next rows, in their order."""
        slot_keys, slot_rows = self._slots
        if self._count + len(keys) > _MAX_LOAD * len(slot_keys):
            grown = _slots(1 << int((self._count + len(keys)) / _MAX_LOAD).bit_length())
            taken = slot_keys != 0
            _place(*grown, slot_keys[taken], slot_rows[taken])
            self._slots = slot_keys, slot_rows = grown
        rows = np.empty(len(keys), dtype=np.int64)
        self._count = int(_add(slot_keys, slot_rows, keys, rows, self._count))
        return rows


def _slots(count: int) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    return np.zeros(count, dtype=np.uint64), np.full(count, UNKNOWN, dtype=np.int32)


@numba.njit(cache=True, nogil=True)
def _lookup(slot_keys, slot_rows, keys, found):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slot_keys) - 1)
    for position in range(len(keys)):
        slot = keys[position] & mask
        there = slot_keys[slot]
        while there != keys[position] and there != 0:
            slot = (slot + np.uint64(1)) & mask
            there = slot_keys[slot]
        # An empty slot may get another key's row before it is read here.
        found[position] = slot_rows[slot] if there == keys[position] else UNKNOWN


@numba.njit(cache=True, nogil=True)
def _add(slot_keys, slot_rows, keys, rows, count):  # type: ignore[no-untyped-def]
    """Open addressing with linear probing; keys are hashes already, so their low bits are the slot."""
    mask = np.uint64(len(slot_keys) - 1)
    for position in range(len(keys)):
        slot = keys[position] & mask
        while slot_keys[slot] != keys[position] and slot_keys[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        if slot_keys[slot] == 0:
            # The row first: a reader on another thread that finds the key must find its row.
            slot_rows[slot] = count
            slot_keys[slot] = keys[position]
            count += 1
        rows[position] = slot_rows[slot]
    return count


@numba.njit(cache=True, nogil=True)
def _place(slot_keys, slot_rows, keys, rows):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(slot_keys) - 1)
    for position in range(len(keys)):
        slot = keys[position] & mask
        while slot_keys[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        slot_rows[slot] = rows[position]
        slot_keys[slot] = keys[position]
