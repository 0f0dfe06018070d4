"""Profiles to ranker inputs: a gather, with nothing to decode."""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.catalogue.index import UNKNOWN
from mmrec_stream.contracts.identity import short_key
from mmrec_stream.profiles.fold import decay_to
from mmrec_stream.profiles.record import Records
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.repeats import Repeats, barred
from mmrec_stream.ranking.types import Features


class Labels:
    """The indices that a release gives to categories or brands, by their 32-bit keys."""

    def __init__(self, names: Sequence[str]) -> None:
        keys = np.array([short_key(name) for name in names], dtype=np.uint32)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def index(self, keys: NDArray[np.uint32]) -> NDArray[np.int64]:
        """1-based index of each key in the release's list, 0 where it is unknown; the shape of `keys`."""
        if not len(self._keys):
            return np.zeros(keys.shape, dtype=np.int64)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._order[place] + 1, 0)


def features_of(
    records: Records,
    table: ItemTable,
    categories: Labels,
    brands: Labels,
    *,
    now_ms: int | NDArray[np.int64],
    repeats: Repeats,
    max_history: int,
    tastes: Tastes = SHOP_TASTES,
) -> tuple[Features, NDArray[np.bool_]]:
    """Ranker inputs for profiles.

    Args:
        records: shape (batch,); a copy, as what decays is brought forward to now.
        table: the release's items.
        categories: the release's categories.
        brands: the release's brands.
        now_ms: the moment of recommending, or each profile's own, shape (batch,).
        repeats: when an item that a user has had may come back.
        max_history: the newest interactions that are used; older ones are cut.
        tastes: the rule that affinities fade by.

    Returns:
        The inputs, and for which profiles the table knows at least one interaction, shape (batch,). Of the others the
        history is one item at row 0 with type 0, which no caller should take for an answer.
    """
    batch = len(records)
    moments = np.full(batch, now_ms, dtype=np.int64)
    decay_to(records, moments, tastes)
    now_s = moments // 1000
    rows = table.rows(records["items"])
    history = np.zeros((batch, max_history), dtype=np.int64)
    types = np.zeros((batch, max_history), dtype=np.int64)
    ages = np.zeros((batch, max_history), dtype=np.float32)
    lengths = np.zeros(batch, dtype=np.int64)
    _gather(records, rows, now_s, history, types, ages, lengths)
    category_index = categories.index(records["category_keys"])
    brand_index = brands.index(records["brand_keys"])
    features = Features(
        history_rows=history,
        history_types=types,
        history_ages=ages,
        lengths=np.maximum(lengths, 1),
        categories=category_index,
        category_weights=np.where(category_index > 0, records["category_weights"], np.float32(0)),
        brands=brand_index,
        brand_weights=np.where(brand_index > 0, records["brand_weights"], np.float32(0)),
        price_bands=np.ascontiguousarray(records["price_weights"]),
        type_counts=np.ascontiguousarray(records["counts"]),
        excluded=_excluded(rows, table.rows(records["held_items"]), *barred(records, now_s, repeats)),
    )
    return features.cropped(), lengths > 0


def _excluded(
    rows: NDArray[np.int64], held_rows: NDArray[np.int64], seen: NDArray[np.bool_], held: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The rows that the masks name, −1 elsewhere, without columns that have none; shape (batch, any)."""
    excluded = np.where(np.concatenate([seen, held], axis=1), np.concatenate([rows, held_rows], axis=1), UNKNOWN)
    return np.ascontiguousarray(excluded[:, (excluded != UNKNOWN).any(axis=0)])


@njit(cache=True, nogil=True)
def _gather(records, rows, now_s, history, types, ages, lengths):  # type: ignore[no-untyped-def]
    """The newest known interactions of each profile, oldest first, from the left."""
    longest = history.shape[1]
    for user in range(len(records)):
        record = records[user]
        size = int(record.size)
        known = 0
        for place in range(size):
            if rows[user, place] != UNKNOWN:
                known += 1
        skip = max(known - longest, 0)
        length = 0
        for place in range(size):
            row = rows[user, place]
            if row == UNKNOWN:
                continue
            if skip > 0:
                skip -= 1
                continue
            history[user, length] = row
            types[user, length] = record.types[place]
            ages[user, length] = max(now_s[user] - np.int64(record.times[place]), 0)
            length += 1
        lengths[user] = length
