"""What the stream needs of every product, as columns: attributes for the profile, and whether it can be sold."""

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.index import UNKNOWN, KeyIndex
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import NO_KEY, id_keys, short_key
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.record import UNKNOWN_BAND, price_bands

T = TypeVar("T", bound=np.generic)


class Catalogue:
    """The newest state of every product that was ever published; a removed one stays, as not sellable."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._ids: list[str] = []
        self._categories = np.zeros(1024, dtype=np.uint32)
        self._brands = np.zeros(1024, dtype=np.uint32)
        self._bands = np.full(1024, UNKNOWN_BAND, dtype=np.int8)
        self._sellable = np.zeros(1024, dtype=np.bool_)
        self.version = 0
        """Grows with every change, after it: whoever has read it before he looked knows when to look again."""

    def __len__(self) -> int:
        return len(self._index)

    @property
    def ids(self) -> Sequence[str]:
        """The item id of each row. Only for reading."""
        return self._ids

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each item key, `UNKNOWN` where it was never published; the shape of `keys`."""
        return self._index.rows(keys)

    def update(self, items: Sequence[CatalogueItem], now_ms: int | None = None) -> None:
        """Take the newest state of items.

        Args:
            items: of different ids.
            now_ms: the moment at which their availability windows are looked at; the present one where None.
        """
        now_ms = int(time.time() * 1000) if now_ms is None else now_ms
        rows = self._rows([item.item_id for item in items])
        self._categories[rows] = [short_key(item.category) if item.category else NO_KEY for item in items]
        self._brands[rows] = [short_key(item.brand) if item.brand else NO_KEY for item in items]
        self._bands[rows] = price_bands(np.array([item.price for item in items], dtype=np.float64))
        self._sellable[rows] = [item.sellable_at(now_ms) for item in items]
        self.version += 1

    def remove(self, item_ids: Sequence[str]) -> None:
        """Take items out of sale for good, those too that were never published."""
        rows = self._rows(item_ids)
        self._sellable[rows] = False
        self.version += 1

    def offer(self, sellable: Mapping[str, bool]) -> None:
        """Say whether items can be sold, of which everything else stays as it was: their moment has come."""
        rows = self._rows(list(sellable))
        self._sellable[rows] = list(sellable.values())
        self.version += 1

    def sellable(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each item may be recommended, the shape of `keys`.

        Nothing speaks against items that were never published: a shop may run on behaviour alone.
        """
        rows = self._index.rows(keys)
        return np.where(rows == UNKNOWN, True, self._sellable[rows])

    def complete(self, columns: EventColumns) -> None:
        """Fill in, in place, the category, brand and price band that events do not tell themselves."""
        if not len(self):
            return
        rows = self._index.rows(columns.items)
        known = rows != UNKNOWN
        _fill(columns.categories, NO_KEY, self._categories[rows], known)
        _fill(columns.brands, NO_KEY, self._brands[rows], known)
        _fill(columns.price_bands, UNKNOWN_BAND, self._bands[rows], known)

    def _rows(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """The rows of items, new ones for those that have none. Arrays may be others afterwards: fetch them anew."""
        keys = id_keys(item_ids)
        unknown = np.flatnonzero(self._index.rows(keys) == UNKNOWN)
        if len(unknown):
            # Before the index knows them: whoever finds a row on another thread finds its place in the arrays too.
            # New rows are numbered in order of first appearance.
            first = np.sort(unknown[np.unique(keys[unknown], return_index=True)[1]])
            self._ids.extend(item_ids[place] for place in first.tolist())
            if len(self._ids) > len(self._categories):
                self._grow(2 * len(self._ids))
        return self._index.add(keys)

    def _grow(self, capacity: int) -> None:
        self._categories = _grown(self._categories, capacity, NO_KEY)
        self._brands = _grown(self._brands, capacity, NO_KEY)
        self._bands = _grown(self._bands, capacity, UNKNOWN_BAND)
        self._sellable = _grown(self._sellable, capacity, 0)


def _fill(target: NDArray[T], missing: int, source: NDArray[T], known: NDArray[np.bool_]) -> None:
    gaps = known & (target == missing)
    target[gaps] = source[gaps]


def _grown(array: NDArray[T], capacity: int, missing: int) -> NDArray[T]:
    grown = np.full(capacity, missing, dtype=array.dtype)
    grown[: len(array)] = array
    return grown
