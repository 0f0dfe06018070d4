"""What goes with what: known pairs are found in what shoppers do, chance is not, and nothing is its own company."""

from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import Dataset, Interactions, from_events
from mmrec_stream.data.item_item import description_terms
from mmrec_stream.simulator import Shoppers, make_shop
from mmrec_stream.simulator.shop import Shop
from model_export.related import complementary_table, sessions, similar_table, surprise

NOW = 1_764_460_800_000
MINUTE = 60_000

Table = NDArray[np.void]


@cache
def world() -> tuple[Shop, Dataset]:
    shop = make_shop(400, seed=5, pictures=False)
    return shop, from_events("shop", Shoppers(shop, 1_000, seed=5).past(10.0, NOW), shop)


@cache
def complements() -> Table:
    _, dataset = world()
    assert dataset.catalogue is not None
    categories = [item.category for item in dataset.catalogue]
    return complementary_table(dataset.interactions, categories, description_terms(dataset.catalogue))


def log_of(*rows: tuple[int, int, int, EventType]) -> Interactions:
    """Events as (user, item, minute, type)."""
    users, items, minutes, types = np.array(rows, dtype=np.int64).T
    return Interactions.of(users, items, NOW + MINUTE * minutes, types)


def row_of(table: Table, item: int) -> dict[int, int]:
    """The items of a row, best first, with their counts."""
    return {int(other): int(count) for other, _, count in table[item].tolist() if other >= 0}


class TestComplements:
    def test_nine_of_ten_that_shoppers_showed_are_pairs_that_the_shop_was_made_with(self) -> None:
        shop, _ = world()
        table = complements()
        rows, places = np.nonzero(table["count"] > 0)
        found = table["item"][rows, places]
        assert len(rows) > 200
        true = (shop.complements[rows] == found[:, None]).any(axis=1)
        assert true.mean() >= 0.9

    def test_every_product_has_some_of_the_categories_that_complete_its_own(self) -> None:
        shop, _ = world()
        table = complements()
        pairs = {(int(shop.category[i]), int(shop.category[j])) for i in range(len(shop)) for j in shop.complements[i]}
        places = [(i, j) for i in range(len(shop)) for j in row_of(table, i)]
        assert {i for i, _ in places} == set(range(len(shop)))
        assert np.mean([(int(shop.category[i]), int(shop.category[j])) in pairs for i, j in places]) >= 0.9
        assert all(shop.category[i] != shop.category[j] for i, j in places)

    def test_rows_share_out_one_and_fall(self) -> None:
        table = complements()
        np.testing.assert_allclose(table["weight"].sum(axis=1), 1.0, rtol=1e-5)
        assert (np.diff(table["weight"], axis=1) <= 0).all()

    def test_what_is_taken_later_leads_nowhere_back_and_an_order_goes_both_ways(self) -> None:
        cart, buy = EventType.ADD_TO_CART, EventType.PURCHASE
        events = []
        for user in range(20):
            events += [(user, 0, 0, cart), (user, 1, 2, cart)]
            events += [(100 + user, 2, 0, buy), (100 + user, 3, 0, buy)]
            events += [(200 + user, 4 + user % 6, 0, buy), (200 + user, 4 + (user * 5 + 1) % 6, 0, buy)]
        table = complementary_table(log_of(*events), [None] * 10, np.zeros((10, 2), dtype=np.float32))
        assert row_of(table, 0) == {1: 20}
        assert row_of(table, 1) == {}
        assert row_of(table, 2) == {3: 20}
        assert row_of(table, 3) == {2: 20}

    def test_one_visitors_whim_is_no_pair(self) -> None:
        cart = EventType.ADD_TO_CART
        events = [(0, 0, 0, cart), (0, 1, 1, cart)]
        events += [(user, 2 + user % 3, 0, cart) for user in range(1, 60)]
        events += [(user, 2 + (user + 1) % 3, 1, cart) for user in range(1, 60)]
        table = complementary_table(log_of(*events), [None] * 5, np.zeros((5, 2), dtype=np.float32))
        assert row_of(table, 0) == {}

    def test_a_product_without_sales_goes_with_what_resembles_it_there(self) -> None:
        cart, view = EventType.ADD_TO_CART, EventType.VIEW
        categories = ["lamp"] * 3 + ["bulb"] * 3 + ["rug"] * 2
        vectors = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [1, 0.1], [0, 1], [1, 1], [1, 1]], dtype=np.float32)
        events = []
        for user in range(30):
            events += [(user, user % 2, 0, cart), (user, 3 + user % 2, 1, view)]
            events += [(100 + user, 6, 0, cart), (100 + user, 7, 1, view)]
        table = complementary_table(log_of(*events), categories, vectors)
        unsold = row_of(table, 2)
        assert set(unsold) == {3, 4, 5}
        assert next(iter(unsold)) == 5
        assert set(unsold.values()) == {0}

    def test_a_log_without_sales_has_none(self) -> None:
        events = [(user, item, item, EventType.CLICK) for user in range(5) for item in range(4)]
        table = complementary_table(log_of(*events), ["a", "b", "c", "d"], np.ones((4, 2), dtype=np.float32))
        assert (table["item"] == -1).all()


class TestSimilar:
    def test_most_are_of_the_same_category_and_none_is_the_item_itself(self) -> None:
        shop, dataset = world()
        assert dataset.catalogue is not None
        table = similar_table(dataset.interactions, [description_terms(dataset.catalogue)])
        assert (table["item"] != np.arange(len(shop))[:, None]).all()
        first = table["item"][:, :8]
        assert (shop.category[first] == shop.category[:, None]).mean() > 0.7
        np.testing.assert_allclose(table["weight"].sum(axis=1), 1.0, rtol=1e-5)

    def test_what_is_looked_at_after_something_was_taken_is_not_like_it(self) -> None:
        view, cart = EventType.VIEW, EventType.ADD_TO_CART
        events = []
        for user in range(20):
            events += [
                (user, 0, 0, view),
                (user, 1, 1, view),
                (user, 1, 2, cart),
                (user, 2, 3, view),
                (user, 3, 4, view),
            ]
        table = similar_table(log_of(*events), [np.zeros((4, 2), dtype=np.float32)])
        assert set(row_of(table, 0)) == {1}
        assert set(row_of(table, 2)) == {3}

    def test_items_that_nobody_has_seen_have_what_resembles_them(self) -> None:
        vectors = np.array([[1, 0], [1, 0.1], [0, 1]], dtype=np.float32)
        table = similar_table(log_of((0, 0, 0, EventType.VIEW)), [vectors])
        assert next(iter(row_of(table, 0))) == 1


class TestSurprise:
    def test_it_is_the_likelihood_ratio_of_the_table(self) -> None:
        counts = np.array([[0, 110], [2442, 29114]], dtype=np.float64)
        counts[0, 0] = 20
        found = surprise(sp.csr_matrix(counts)).toarray()
        total, rows, columns = counts.sum(), counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)
        expected = 2 * (counts * np.log(counts / (rows * columns / total))).sum()
        assert found[0, 0] == pytest.approx(expected)
        assert found[0, 1] == 0  # seldomer than by chance

    @given(st.lists(st.integers(0, 50), min_size=9, max_size=9))
    def test_it_is_never_negative_and_only_of_what_was_drawn(self, counts: list[int]) -> None:
        draws = sp.csr_matrix(np.array(counts, dtype=np.float64).reshape(3, 3))
        found = surprise(draws).toarray()
        assert (found >= 0).all()
        assert np.isfinite(found).all()
        assert not found[draws.toarray() == 0].any()


def test_half_an_hour_of_rest_begins_another_session() -> None:
    view = EventType.VIEW
    log = log_of((0, 0, 0, view), (0, 1, 29, view), (0, 2, 60, view), (1, 0, 61, view))
    assert sessions(log).tolist() == [0, 0, 1, 2]
