"""The truth behind the shoppers: click probabilities, best lists, regret, changes of taste, and repeatability."""

import hashlib
import os
import subprocess
import sys
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import Click, encode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.simulator import Shoppers, make_shop
from mmrec_stream.simulator.shoppers import DAY_MS, HOUR_MS
from mmrec_stream.simulator.truth import best_list, expected_clicks, regret

END = 1_790_000_000_000

attractions = st.lists(st.floats(0.001, 0.5), min_size=5, max_size=30).map(np.array)


@given(attractions, st.integers(1, 10), st.randoms(use_true_random=False))
def test_no_list_earns_more_clicks_than_the_best_one(attraction: np.ndarray, places: int, random) -> None:  # type: ignore[no-untyped-def]
    allowed = np.array([random.random() < 0.8 for _ in attraction])
    allowed[0] = True
    best = best_list(attraction, allowed, places)
    assert allowed[best].all()
    other = list(np.flatnonzero(allowed))
    random.shuffle(other)
    rows = np.array(other[:places])
    assert expected_clicks(attraction, rows) <= expected_clicks(attraction, best) + 1e-12
    assert -1e-12 <= regret(attraction, allowed, rows, places) < 1
    assert regret(attraction, allowed, best, places) == pytest.approx(0)


def test_an_empty_list_forgoes_everything_and_an_empty_shop_has_no_best_list() -> None:
    attraction, nothing = np.array([0.2, 0.4]), np.empty(0, dtype=np.int64)
    assert regret(attraction, np.array([True, True]), nothing, 2) == 1
    with pytest.raises(ValueError, match="no item is allowed"):
        regret(attraction, np.array([False, False]), nothing, 2)


def test_shoppers_click_as_often_as_the_truth_says() -> None:
    shop = make_shop(60, seed=3, pictures=False)
    shoppers = Shoppers(shop, 20, seed=3)
    user, draws = "user-04", 4_000
    for _ in shoppers.past(0, END):
        pass
    rows = best_list(shoppers.attraction(user), shoppers.on_sale(END), 10)
    names = [shop[int(row)].item_id for row in rows]
    rng = np.random.default_rng(0)
    clicks = np.zeros(10)
    for _ in range(draws):
        for event in shoppers.react(user, names, rng, ts=END, list_id="l"):
            if isinstance(event, Click) and event.position is not None:
                clicks[event.position] += 1
    expected = [expected_clicks(shoppers.attraction(user), rows[: place + 1]) for place in range(10)]
    # Five standard errors of a count.
    assert np.abs(clicks / draws - np.diff([0.0, *expected])).max() < 5 * 0.5 / np.sqrt(draws)


def test_a_change_of_taste_is_of_those_who_change_alone() -> None:
    shop = make_shop(60, seed=3, pictures=False)
    shoppers = Shoppers(shop, 20, seed=3)
    before = {user: shoppers.affinity(user) for user in shoppers.user_ids}
    shoppers.change_tastes(["user-04", "user-07"], seed=1)
    changed = [user for user in shoppers.user_ids if not np.array_equal(before[user], shoppers.affinity(user))]
    assert changed == ["user-04", "user-07"]
    assert abs(np.corrcoef(before["user-04"], shoppers.affinity("user-04"))[0, 1]) < 0.9


def test_items_that_came_in_stay_in_when_the_log_goes_on() -> None:
    shoppers = Shoppers(make_shop(100, seed=3, pictures=False), 20, seed=3)
    for _ in shoppers.past(2, END):
        pass
    there = shoppers.on_sale(END) | shoppers.sold_out(END)
    assert shoppers.shop.tranche[there].tolist().count(1) == (shoppers.shop.tranche == 1).sum() > 0
    for _ in shoppers.past(1, END + 86_400_000):
        pass
    assert (shoppers.on_sale(END) | shoppers.sold_out(END) == there).all()


def test_the_best_list_leaves_out_what_is_sold_out_and_has_it_again_later() -> None:
    shoppers = Shoppers(make_shop(60, seed=3, pictures=False), 20, seed=3)
    for _ in shoppers.past(20, END):
        pass
    attraction, hours = shoppers.attraction("user-04"), range(END - 20 * DAY_MS, END, 6 * HOUR_MS)
    lists = [set(best_list(attraction, shoppers.on_sale(now), 10).tolist()) for now in hours]
    outs = [set(np.flatnonzero(shoppers.sold_out(now)).tolist()) for now in hours]
    assert not any(best & out for best, out in zip(lists, outs, strict=True))
    favourites = set(best_list(attraction, shoppers.on_sale(END) | shoppers.sold_out(END), 5).tolist())
    gone = [favourites & out for out in outs]
    assert any(gone)
    assert any(before and not before <= after for before, after in pairwise(gone))


def events_digest() -> str:
    """What tells one history from another: its first events, past and live."""
    shoppers = Shoppers(make_shop(60, seed=3, pictures=False), 40, seed=3)
    digest = hashlib.sha256()
    for each in [
        *islice(shoppers.with_catalogue(shoppers.past(1, END)), 300),
        *islice(shoppers.with_catalogue(shoppers.live(20, END)), 300),
    ]:
        digest.update(encode_item(each) if isinstance(each, CatalogueItem) else encode_event(each))
    return digest.hexdigest()


def test_another_process_draws_the_same_events() -> None:
    line = "from tests.simulator.test_truth import events_digest; print(events_digest())"
    other = subprocess.run(
        [sys.executable, "-c", line],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        timeout=60,
    )
    assert other.stdout.strip() == events_digest()
