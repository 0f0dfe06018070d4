import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.catalogue.index import UNKNOWN, KeyIndex
from mmrec_stream.contracts.behaviour import View
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys, short_key
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.record import UNKNOWN_BAND


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


def test_items_nobody_published_are_taken_out_beyond_what_there_was_room_for() -> None:
    catalogue = Catalogue()
    ids = [f"item-{number}" for number in range(3_000)]
    catalogue.remove(ids)
    assert not catalogue.sellable(id_keys(ids)).any()
    removed = columns_of([View(user_id="ann", item_id=ids[-1], ts=1_700_000_000_000)], [0])
    catalogue.complete(removed)
    assert (removed.categories[0], removed.brands[0], removed.price_bands[0]) == (0, 0, UNKNOWN_BAND)


numbers = st.lists(st.integers(0, 5_000), max_size=6)
spans = st.builds(lambda start, count: list(range(start, start + count)), st.integers(0, 4_000), st.integers(0, 2_500))
products = st.tuples(st.none() | st.sampled_from("abc"), st.none() | st.sampled_from([3.0, 30.0]), st.booleans())
steps = st.tuples(numbers | spans, st.none() | products)


@given(st.lists(steps, max_size=6))
def test_whatever_is_published_and_removed_each_item_is_as_it_was_last_said_to_be(
    changes: list[tuple[list[int], tuple[str | None, float | None, bool] | None]],
) -> None:
    """A dict is the model; a step publishes its items alike, or removes them."""
    catalogue, category, price = Catalogue(), dict[str, str | None](), dict[str, float | None]()
    sellable: dict[str, bool] = {}
    for places, product in changes:
        ids = [f"item-{place}" for place in places]
        if product is None:
            catalogue.remove(ids)
            sellable.update(dict.fromkeys(ids, False))
            continue
        catalogue.update(
            [CatalogueItem(item_id=one, category=product[0], price=product[1], available=product[2]) for one in ids]
        )
        for model, said in zip((category, price, sellable), product, strict=True):
            model.update(dict.fromkeys(ids, said))  # type: ignore[attr-defined]
    assert list(catalogue.ids) == list(sellable)
    assert catalogue.rows(id_keys(catalogue.ids)).tolist() == list(range(len(sellable)))
    assert catalogue.sellable(id_keys(sellable)).tolist() == list(sellable.values())
    columns = columns_of(
        [View(user_id="ann", item_id=one, ts=1_700_000_000_000) for one in sellable], range(len(sellable))
    )
    catalogue.complete(columns)
    labels = [category.get(one) for one in sellable]
    assert columns.categories.tolist() == [short_key(label) if label else 0 for label in labels]
    bands = {None: UNKNOWN_BAND, 3.0: 0, 30.0: 3}
    assert columns.price_bands.tolist() == [bands[price.get(one)] for one in sellable]


def test_others_may_look_while_a_catalogue_grows(request: pytest.FixtureRequest) -> None:
    """The scoring thread asks what can be sold, and a restore what items are called, while changes are read."""
    catalogue = Catalogue()
    ids = [f"item-{number}" for number in range(60_000)]
    keys = id_keys(ids)

    def fill() -> None:
        for start in range(0, len(ids), 500):
            catalogue.update([CatalogueItem(item_id=one) for one in ids[start : start + 500]])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    with ThreadPoolExecutor(1) as pool:
        filling = pool.submit(fill)
        while not filling.done():
            catalogue.sellable(keys)
            rows = catalogue.rows(keys)
            for place in np.flatnonzero(rows != UNKNOWN)[-20:].tolist():
                assert catalogue.ids[rows[place]] == ids[place]
        filling.result()
    assert catalogue.sellable(keys).all()
