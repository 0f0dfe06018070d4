"""Shoppers: ordered, repeatable, valid events, whose course content and tastes really predict."""

import re
from collections import Counter, defaultdict
from io import BytesIO
from itertools import islice, pairwise, takewhile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    Click,
    Follow,
    Impression,
    Purchase,
    RemoveFromCart,
    Return,
    View,
    decode_event,
    encode_event,
)
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.simulator import Shop, Shoppers, make_shop
from mmrec_stream.simulator.shoppers import DAY_MS

END = 1_790_000_000_000


@pytest.fixture(scope="module")
def shop() -> Shop:
    return make_shop(1200, seed=5, pictures=False)


@pytest.fixture(scope="module")
def shoppers(shop: Shop) -> Shoppers:
    return Shoppers(shop, 1500, seed=5)


@pytest.fixture(scope="module")
def log(shoppers: Shoppers) -> list[BehaviourEvent]:
    return list(shoppers.past(10, END))


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(12, 40), st.floats(0.1, 3))
@settings(max_examples=15, deadline=None)
def test_any_shop_gives_a_repeatable_ordered_valid_log(seed: int, users: int, items: int, days: float) -> None:
    shop = make_shop(items, seed, pictures=False)
    one, other = (list(Shoppers(shop, users, seed, sessions_per_day=2).past(days, END)) for _ in range(2))
    assert one == other
    assert all(a.ts <= b.ts for a, b in pairwise(one))
    assert all(END - days * DAY_MS - 1 <= event.ts < END for event in one)
    assert all(decode_event(encode_event(event)) == event for event in one)


def test_another_seed_gives_other_events(shop: Shop, log: list[BehaviourEvent]) -> None:
    assert list(islice(Shoppers(shop, 1500, seed=6).past(10, END), 50)) != log[:50]


def test_nothing_is_removed_bought_or_returned_before_it_was_put_in(log: list[BehaviourEvent]) -> None:
    carts: Counter[tuple[str, str, str]] = Counter()
    orders: dict[tuple[str, str], int] = {}
    seen = Counter[str]()
    for event in log:
        match event:
            case AddToCart():
                carts[event.user_id, event.item_id, str(event.session_id)] += 1
            case RemoveFromCart() | Purchase():
                assert carts[event.user_id, event.item_id, str(event.session_id)] > 0
                if isinstance(event, Purchase):
                    orders[str(event.order_id), event.item_id] = event.quantity
            case Return():
                assert orders[str(event.order_id), event.item_id] == event.quantity
        seen[type(event).__name__] += 1
    assert seen["View"] > seen["Click"] > seen["AddToCart"] > seen["Purchase"] > seen["Return"] > 0
    assert {"RemoveFromCart", "Cancel", "Rating", "Follow"} <= set(seen)


def test_a_look_follows_what_it_is_like_and_what_usually_follows(shop: Shop, log: list[BehaviourEvent]) -> None:
    rows = {item.item_id: row for row, item in enumerate(shop)}
    sessions: dict[str, list[int]] = defaultdict(list)
    for event in log:
        if isinstance(event, View):
            sessions[str(event.session_id)].append(rows[event.item_id])
    steps = np.array([pair for session in sessions.values() for pair in pairwise(session)])
    before, after = steps.T
    shuffled = np.random.default_rng(0).permutation(after)

    def lift(trait: np.ndarray) -> float:
        return float((trait[before] == trait[after]).mean() / (trait[before] == trait[shuffled]).mean())

    assert lift(shop.category) > 4
    assert lift(shop.style) > 2
    assert lift(shop.colour) > 1.5
    follows = (shop.successors[before] == after[:, None]).any(axis=1).mean()
    chance = (shop.successors[before] == shuffled[:, None]).any(axis=1).mean()
    assert follows > 10 * chance


def test_what_items_look_and_sound_like_predicts_the_next_look_and_all_of_it_best() -> None:
    shop = make_shop(600, seed=5)
    rows = {item.item_id: row for row, item in enumerate(shop)}
    sessions: dict[str, list[int]] = defaultdict(list)
    for event in Shoppers(shop, 600, seed=5).past(10, END):
        if isinstance(event, View):
            sessions[str(event.session_id)].append(rows[event.item_id])
    before, after = np.array(
        [pair for session in sessions.values() for pair in pairwise(session) if pair[0] != pair[1]]
    ).T

    def alike(features: np.ndarray) -> np.ndarray:
        centred = features - features.mean(axis=0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(unit @ unit.T)

    def recall(similarity: np.ndarray) -> float:
        best = np.argsort(-similarity + 99 * np.eye(len(shop)), axis=1)[:, :20]
        return float((best[before] == after[:, None]).any(axis=1).mean())

    words = [set(re.findall("[a-z]+", f"{item.title} {item.description}".lower())) for item in shop]
    vocabulary = sorted(set.union(*words))
    bags = np.array([[word in text for word in vocabulary] for text in words], dtype=float)
    pictures = np.stack(
        [np.asarray(Image.open(BytesIO(item.thumbnail or b"")).resize((16, 16)), float) for item in shop]
    )
    labels = [sorted({item.category for item in shop}, key=str), sorted({item.brand for item in shop}, key=str)]
    attributes = np.array(
        [[*(item.category == c for c in labels[0]), *(item.brand == b for b in labels[1])] for item in shop]
    )
    single = [
        alike(bags * np.log(len(shop) / bags.sum(axis=0))),
        alike(pictures.reshape(len(shop), -1)),
        alike(attributes.astype(float)),
    ]
    chance = 20 / len(shop)
    assert min(map(recall, single)) > 3 * chance
    assert recall(sum(single, np.zeros_like(single[0]))) > 1.1 * max(map(recall, single))


def test_what_is_bought_leads_to_what_goes_with_it(shop: Shop, log: list[BehaviourEvent]) -> None:
    rows = {item.item_id: row for row, item in enumerate(shop)}
    carted: dict[str, int] = {}
    hits = trials = 0
    for event in log:
        if isinstance(event, View) and str(event.session_id) in carted:
            hits += rows[event.item_id] in shop.complements[carted.pop(str(event.session_id))]
            trials += 1
        elif isinstance(event, AddToCart):
            carted[str(event.session_id)] = rows[event.item_id]
    assert hits / trials > 0.5


def test_few_items_get_many_of_the_views_and_most_get_some(shop: Shop, log: list[BehaviourEvent]) -> None:
    views = Counter(event.item_id for event in log if isinstance(event, View))
    counts = sorted(views.values(), reverse=True)
    assert sum(counts[: len(shop) // 10]) > 0.3 * sum(counts)
    assert len(views) > 0.7 * len(shop)


def test_users_come_in_as_the_log_goes_on(log: list[BehaviourEvent]) -> None:
    early = {event.user_id for event in log if event.ts < END - 5 * DAY_MS}
    assert {event.user_id for event in log} - early


def test_items_come_in_as_the_log_goes_on_and_before_anyone_sees_them(shop: Shop) -> None:
    shoppers = Shoppers(shop, 1500, seed=5)
    known = {item.item_id for item in shoppers.first_items}
    at_first = len(known)
    for each in shoppers.with_catalogue(shoppers.past(10, END)):
        if isinstance(each, CatalogueItem):
            known.add(each.item_id)
        elif not isinstance(each, Follow):
            assert each.item_id in known
    assert at_first < len(known) < len(shop)


@pytest.mark.parametrize("live", [False, True])
def test_the_catalogue_tells_what_sells_out_and_nobody_buys_it_until_it_is_back(shop: Shop, live: bool) -> None:
    shoppers = Shoppers(shop, 1500, seed=5)
    told = {item.item_id: True for item in shoppers.first_items}
    log = shoppers.with_catalogue(shoppers.past(10, END))
    if live:
        for each in log:
            if isinstance(each, CatalogueItem):
                told[each.item_id] = each.offered
        log = shoppers.with_catalogue(takewhile(lambda e: e.ts < END + 900_000, shoppers.live(80, END)))
    went = back = looks = wrong = 0
    now = END
    for each in log:
        if isinstance(each, CatalogueItem):
            if each.item_id in told:
                assert told[each.item_id] != each.offered
                went, back = went + (not each.offered), back + each.offered
            told[each.item_id] = each.offered
            continue
        now = each.ts
        if isinstance(each, Purchase):
            assert told[each.item_id]
        elif isinstance(each, View):
            looks, wrong = looks + 1, wrong + (not told[each.item_id])
    assert went > 10 < back
    assert wrong < looks / 200
    on_sale = {item.item_id for item, there in zip(shop, shoppers.on_sale(now), strict=True) if there}
    assert {item_id for item_id, sellable in told.items() if sellable} == on_sale


def test_what_a_user_clicks_is_what_the_user_likes(shop: Shop, shoppers: Shoppers, log: list[BehaviourEvent]) -> None:
    rows = {item.item_id: row for row, item in enumerate(shop)}
    better = [
        (shoppers.affinity(event.user_id) < shoppers.affinity(event.user_id)[rows[event.item_id]]).mean()
        for event in log[-3000:]
        if isinstance(event, Click)
    ]
    assert np.mean(better) > 0.75


def test_friends_share_taste(shoppers: Shoppers) -> None:
    likings = {user: shoppers.affinity(user) for user in shoppers.user_ids[:200]}
    with_friend = [
        np.corrcoef(likings[user], shoppers.affinity(friend))[0, 1]
        for user in likings
        for friend in shoppers.friends(user)
    ]
    strangers = [np.corrcoef(likings[a], likings[b])[0, 1] for a, b in pairwise(likings)]
    assert np.mean(with_friend) > np.mean(strangers) + 0.2


def test_follows_name_friends_and_favourite_brands(shoppers: Shoppers, log: list[BehaviourEvent]) -> None:
    follows = [event for event in log if isinstance(event, Follow)]
    people = [event for event in follows if event.followed_user_id is not None]
    assert 0 < len(people) < len(follows)
    assert all(event.followed_user_id in shoppers.friends(event.user_id) for event in people)


def test_live_goes_on_where_the_past_stopped_at_the_rate_asked_for(shop: Shop) -> None:
    shoppers = Shoppers(shop, 1500, seed=8)
    past = list(shoppers.past(2, END))
    live = list(takewhile(lambda event: event.ts < END + 120_000, shoppers.live(80, END)))
    assert all(a.ts <= b.ts for a, b in pairwise([*past, *live]))
    assert len(live) == pytest.approx(80 * 120, rel=0.1)
    first_ten_seconds = sum(event.ts < END + 10_000 for event in live)
    assert first_ten_seconds == pytest.approx(800, rel=0.3)


def test_live_sees_launches_which_shoppers_find(shop: Shop) -> None:
    shoppers = Shoppers(shop, 1500, seed=8)
    for _ in shoppers.with_catalogue(shoppers.past(1, END)):
        pass
    until = takewhile(lambda event: event.ts < END + 120_000, shoppers.live(80, END))
    both = list(shoppers.with_catalogue(until))
    live_only = {item.item_id for item, tranche in zip(shop, shop.tranche, strict=True) if tranche == 2}
    new = live_only & {each.item_id for each in both if isinstance(each, CatalogueItem)}
    assert len(new) == pytest.approx(7, abs=2)
    assert new & {each.item_id for each in both if isinstance(each, View)}


def test_a_live_rate_of_nothing_is_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Shoppers(shop, 10).live(0, END)


def test_a_later_history_of_the_same_shoppers_uses_no_session_or_order_again(shop: Shop) -> None:
    def ids(end: int) -> set[str]:
        log = list(Shoppers(shop, 100, seed=1).past(3, end))
        return {str(event.session_id) for event in log} | {str(e.order_id) for e in log if isinstance(e, Purchase)}

    assert not ids(END) & ids(END + 3 * DAY_MS)


def test_tastes_drift_slowly(shop: Shop) -> None:
    shoppers = Shoppers(shop, 300, seed=1)
    before = [shoppers.affinity(user) for user in shoppers.user_ids[:50]]
    for _ in shoppers.past(40, END):
        pass
    kept = np.mean(
        [np.corrcoef(old, shoppers.affinity(user))[0, 1] for old, user in zip(before, shoppers.user_ids, strict=False)]
    )
    assert 0.7 < kept < 0.97


def test_a_liked_list_is_clicked_more_and_from_the_top(shop: Shop, shoppers: Shoppers) -> None:
    rng = np.random.default_rng(0)
    liked, any_of_them, at = 0, 0, []
    for user in shoppers.user_ids[:400]:
        best = [shop[int(row)].item_id for row in np.argsort(-shoppers.affinity(user))[:20]]
        chance = [shop[int(row)].item_id for row in rng.integers(len(shop), size=20)]
        clicks = [e for e in shoppers.react(user, best, rng, ts=END, list_id="a") if isinstance(e, Click)]
        at += [event.position for event in clicks if event.position is not None]
        liked += len(clicks)
        any_of_them += sum(isinstance(e, Click) for e in shoppers.react(user, chance, rng, ts=END, list_id="b"))
    assert liked > 2 * any_of_them
    assert np.mean(at) < 7


def test_a_reaction_is_valid_ordered_repeatable_and_leaves_no_trace(shop: Shop, shoppers: Shoppers) -> None:
    there, gone = (np.flatnonzero(rows)[:12] for rows in (shoppers.on_sale(END), shoppers.sold_out(END)))
    names = [shop[int(row)].item_id for row in [*there, gone[0]]] + ["of-another-shop"]
    before = shoppers.affinity("user-0003").copy()
    one, other = (shoppers.react("user-0003", names, np.random.default_rng(4), ts=END, list_id="l1") for _ in range(2))
    assert one == other
    assert all(a.ts <= b.ts for a, b in pairwise(one))
    assert all(decode_event(encode_event(event)) == event for event in one)
    shown = [event.position for event in one if isinstance(event, Impression)]
    assert shown == list(range(len(shown)))
    assert 0 < len(shown) <= len(there)
    assert shoppers.react("user-0003", names[12:], np.random.default_rng(4), ts=END, list_id="l2") == []
    assert (before == shoppers.affinity("user-0003")).all()


def test_an_unknown_shopper_is_named(shoppers: Shoppers) -> None:
    with pytest.raises(KeyError, match="nobody"):
        shoppers.affinity("nobody")
