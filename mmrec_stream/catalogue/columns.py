"""What rules read of every product, as columns of plain values."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.index import KeyIndex
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys

T = TypeVar("T")

NOBODY_KNOWS = 0
"""The row of products that were never published: everything about it is empty."""

UNKNOWN_STOCK = -1


class ProductColumns:
    """The newest values of every product. Row 0 stands for all that the catalogue does not have.

    One thread updates; arrays may be others afterwards, so that whoever reads fetches them anew.
    """

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._interned: dict[Any, Any] = {}
        self._codes: dict[str, int] = {"": 0}
        self.arrays: dict[str, NDArray[Any]] = {
            "id": _full(1024, ""),
            "category": _full(1024, ""),
            "brand": _full(1024, ""),
            "tags": _full(1024, ()),
            "numbers": _full(1024, {}),
            "price": np.full(1024, np.nan),
            "stock": np.full(1024, UNKNOWN_STOCK, dtype=np.int64),
            "category_code": np.zeros(1024, dtype=np.int32),
            "brand_code": np.zeros(1024, dtype=np.int32),
        }
        """By name, (rows,) and some reserve: id, category, brand, tags (tuples), numbers (dicts), price (NaN where
        unknown), stock (−1 where unknown); and codes of category and brand, 0 where there is none."""

    def __len__(self) -> int:
        """Rows, the one for unknown products included."""
        return len(self._index) + 1

    def rows(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of each item key, 0 where it was never published; the shape of `keys`."""
        rows: NDArray[np.int64] = self._index.rows(keys) + 1
        return rows

    def update(self, items: Sequence[CatalogueItem]) -> NDArray[np.int64]:
        """Take the newest values of items; their rows, (items,)."""
        keys = id_keys([item.item_id for item in items])
        if (needed := len(self) + len(items)) > len(self.arrays["id"]):
            self.arrays = {name: _grown(array, 2 * needed, array[0]) for name, array in self.arrays.items()}
        rows = self._index.add(keys) + 1
        arrays, same = self.arrays, self._same
        for row, item in zip(rows.tolist(), items, strict=True):
            category, brand = item.category or "", item.brand or ""
            arrays["id"][row] = item.item_id
            arrays["category"][row] = same(category)
            arrays["brand"][row] = same(brand)
            arrays["tags"][row] = same(tuple(item.tags))
            arrays["numbers"][row] = item.numbers
            arrays["price"][row] = np.nan if item.price is None else item.price
            arrays["stock"][row] = UNKNOWN_STOCK if item.stock is None else item.stock
            arrays["category_code"][row] = self._codes.setdefault(category, len(self._codes))
            arrays["brand_code"][row] = self._codes.setdefault(brand, len(self._codes))
        return rows

    def _same(self, value: T) -> T:
        """One object for all equal values: a shop has thousands of brands and millions of products."""
        known: T = self._interned.setdefault(value, value)
        return known


def _full(count: int, value: object) -> NDArray[Any]:
    array = np.empty(count, dtype=object)
    for place in range(count):
        array[place] = value
    return array


def _grown(array: NDArray[Any], capacity: int, missing: object) -> NDArray[Any]:
    grown = _full(capacity, missing) if array.dtype == object else np.full(capacity, missing, dtype=array.dtype)
    grown[: len(array)] = array
    return grown
