import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.catalogue.index import UNKNOWN, KeyIndex
from mmrec_stream.contracts.behaviour import View
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys, short_key
from mmrec_stream.profiles.columns import columns_of


@given(st.lists(st.lists(st.integers(1, 2**64 - 1), max_size=400), max_size=8))
def test_keys_get_rows_in_order_of_arrival_and_keep_them(batches: list[list[int]]) -> None:
    index, expected = KeyIndex(), dict[int, int]()
    for batch in batches:
        for key in batch:
            expected.setdefault(key, len(expected))
        rows = index.add(np.array(batch, dtype=np.uint64))
        assert rows.tolist() == [expected[key] for key in batch]
    keys = np.array(list(expected), dtype=np.uint64)
    assert index.rows(keys).tolist() == list(expected.values())
    assert len(index) == len(expected)
    absent = np.array([key for key in range(1, 50) if key not in expected], dtype=np.uint64)
    assert (index.rows(absent) == UNKNOWN).all()


def test_an_index_survives_growth() -> None:
    index = KeyIndex()
    keys = id_keys([f"item-{number}" for number in range(20_000)])
    for start in range(0, len(keys), 700):
        index.add(keys[start : start + 700])
    assert index.rows(keys).tolist() == list(range(20_000))


def test_the_catalogue_fills_in_what_an_event_does_not_say() -> None:
    catalogue = Catalogue()
    catalogue.update([CatalogueItem(item_id="lamp", category="light", brand="lux", price=30.0)])
    silent = View(user_id="ann", item_id="lamp", ts=1_700_000_000_000)
    outspoken = View(user_id="ann", item_id="lamp", ts=1_700_000_000_000, category="sale", price=3.0)
    stranger = View(user_id="ann", item_id="sofa", ts=1_700_000_000_000)
    columns = columns_of([silent, outspoken, stranger], [0, 1, 2])
    catalogue.complete(columns)
    assert columns.categories.tolist() == [short_key("light"), short_key("sale"), 0]
    assert columns.brands.tolist() == [short_key("lux"), short_key("lux"), 0]
    assert columns.price_bands.tolist() == [3, 0, -1]


def test_what_can_be_sold_follows_stock_removal_and_return() -> None:
    catalogue = Catalogue()
    keys = id_keys(["lamp", "sofa", "rug", "never published"])
    catalogue.update(
        [
            CatalogueItem(item_id="lamp", stock=3),
            CatalogueItem(item_id="sofa", stock=0),
            CatalogueItem(item_id="rug", available=False),
        ]
    )
    assert catalogue.sellable(keys).tolist() == [True, False, False, True]
    catalogue.remove(["lamp"])
    catalogue.update([CatalogueItem(item_id="rug")])
    assert catalogue.sellable(keys).tolist() == [False, False, True, True]


def test_a_large_catalogue_keeps_each_items_own_attributes() -> None:
    catalogue = Catalogue()
    items = [CatalogueItem(item_id=f"item-{n}", category=f"category-{n % 7}", stock=n % 3) for n in range(5_000)]
    for start in range(0, len(items), 900):
        catalogue.update(items[start : start + 900])
    keys = id_keys([item.item_id for item in items])
    assert catalogue.sellable(keys).tolist() == [item.stock != 0 for item in items]
    assert list(catalogue.ids) == [item.item_id for item in items]
