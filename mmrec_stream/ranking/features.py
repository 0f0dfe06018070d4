"""Profiles to ranker inputs: a gather, with nothing to decode."""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.catalogue.index import UNKNOWN
from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.identity import short_key
from mmrec_stream.profiles.fold import decay_to
from mmrec_stream.profiles.record import Records
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.types import Features

_PURCHASE = int(EventType.PURCHASE)


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
    now_ms: int,
    repurchase_s: float,
    max_history: int,
    tastes: Tastes = SHOP_TASTES,
) -> tuple[Features, NDArray[np.bool_]]:
    """Ranker inputs for profiles.

    Args:
        records: shape (batch,); a copy, as what decays is brought forward to now.
        table: the release's items.
        categories: the release's categories.
        brands: the release's brands.
        now_ms: the moment of recommending.
        repurchase_s: how long a bought item stays excluded.
        max_history: the newest interactions that are used; older ones are cut.
        tastes: the rule that affinities fade by.

    Returns:
        The inputs, and for which profiles the table knows at least one interaction, shape (batch,). Of the others the
        history is one item at row 0 with type 0, which no caller should take for an answer.
    """
    decay_to(records, now_ms, tastes)
    now_s = now_ms // 1000
    rows = table.rows(records["items"])
    batch = len(records)
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
        excluded=table.rows(held_keys(records, now_s, repurchase_s)),
    )
    return features.cropped(), lengths > 0


def held_keys(records: Records, now_s: int, repurchase_s: float) -> NDArray[np.uint64]:
    """Keys of the items that a profile's lists must not have, 0 elsewhere; shape (batch, HELD).

    These are what is in the cart and what was bought less than `repurchase_s` ago.
    """
    bought = records["held_types"] == _PURCHASE
    bought_long_ago = bought & (records["held_times"].astype(np.int64) < now_s - repurchase_s)
    return np.where(bought_long_ago, np.uint64(0), records["held_items"])


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
            ages[user, length] = max(now_s - np.int64(record.times[place]), 0)
            length += 1
        lengths[user] = length
