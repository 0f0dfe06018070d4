import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    BehaviourRecord,
    Cancel,
    Click,
    EventType,
    Follow,
    Forget,
    Impression,
    Purchase,
    Rating,
    RemoveFromCart,
    Return,
    View,
)
from mmrec_stream.contracts.identity import id_key, short_key, source_key
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import decay_to, fold, taste_weights
from mmrec_stream.profiles.record import HELD, RING, SOURCES, WINDOWS_MS
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.profiles.tastes import SHOP_TASTES
from mmrec_stream.ranking.popularity import Popularity
from tests.profiles.events import START_MS, events

CLICKS = source_key("clicks", 0)
PURCHASES = source_key("purchases", 0)


def folded(
    batch: Sequence[BehaviourEvent], rows: ProfileRows | None = None, first_offset: int = 0, source: int = CLICKS
) -> ProfileRows:
    rows = ProfileRows() if rows is None else rows
    columns = columns_of(batch, range(first_offset, first_offset + len(batch)))
    places = rows.rows_of(columns.users)
    fold(rows.records, places, columns, source)
    return rows


def record_of(rows: ProfileRows, user: str = "ann") -> np.void:
    row = rows.row(user)
    assert row is not None
    record: np.void = rows.records[row]
    return record


def ring(record: np.void) -> list[tuple[int, int]]:
    size = int(record["size"])
    return list(zip(record["items"][:size].tolist(), record["types"][:size].tolist(), strict=True))


def held(record: np.void) -> set[int]:
    return {int(item) for item in record["held_items"] if item}


def view(item: str, second: int = 0, **more: object) -> View:
    return View(user_id="ann", item_id=item, ts=START_MS + second * 1000, **more)  # type: ignore[arg-type]


@given(st.lists(events(), max_size=80), st.lists(st.integers(0, 80), max_size=6))
def test_how_events_are_cut_into_batches_changes_nothing(batch: list[BehaviourEvent], cuts: list[int]) -> None:
    whole = folded(batch)
    rows = ProfileRows()
    edges = [0, *sorted(min(cut, len(batch)) for cut in cuts), len(batch)]
    for start, end in itertools.pairwise(edges):
        folded(batch[start:end], rows, first_offset=start)
    assert list(rows) == list(whole)
    assert rows.records[: len(rows)].tobytes() == whole.records[: len(whole)].tobytes()


@given(st.lists(events(), min_size=1, max_size=60), st.data())
def test_a_replay_from_any_earlier_offset_is_a_no_op(batch: list[BehaviourEvent], data: st.DataObject) -> None:
    rows = folded(batch)
    before = rows.records[: len(rows)].tobytes()
    start = data.draw(st.integers(0, len(batch) - 1))
    columns = columns_of(batch[start:], range(start, len(batch)))
    fresh = fold(rows.records, rows.rows_of(columns.users), columns, CLICKS)
    assert not fresh.any()
    assert rows.records[: len(rows)].tobytes() == before


@given(st.lists(events(), max_size=60), st.lists(events(), max_size=60))
def test_the_ring_does_not_depend_on_how_two_topics_interleave(
    clicks: list[BehaviourEvent], purchases: list[BehaviourEvent]
) -> None:
    # Different seconds, as within one second the order of arrival counts.
    seconds = iter(range(len(clicks) + len(purchases)))
    clicks = sorted(clicks, key=lambda event: event.ts)
    purchases = sorted(purchases, key=lambda event: event.ts)
    clicks = [_at(event, 2 * next(seconds)) for event in clicks]
    purchases = [_at(event, 2 * number + 1) for number, event in enumerate(purchases)]
    one = folded(purchases, folded(clicks), source=PURCHASES)
    other = folded(clicks, folded(purchases, source=PURCHASES))
    for user in one:
        assert ring(record_of(one, user)) == ring(record_of(other, user))


@given(st.lists(st.sampled_from([f"item-{number}" for number in range(90)]), max_size=90))
def test_the_ring_keeps_the_newest_interactions_in_the_order_of_their_partition(viewed: list[str]) -> None:
    rows = folded([view(item) for item in viewed])  # one and the same second: only the order tells them apart
    if viewed:
        assert [item for item, _ in ring(record_of(rows))] == [id_key(item) for item in viewed[-RING:]]


def test_a_late_event_takes_its_place_in_time() -> None:
    rows = folded([view("first", 1), view("third", 3), view("second", 2)])
    assert [item for item, _ in ring(record_of(rows))] == [id_key(name) for name in ("first", "second", "third")]


def test_an_event_older_than_a_full_ring_is_counted_and_not_remembered() -> None:
    rows = folded([view(f"item-{number}", 100 + number) for number in range(RING)] + [view("ancient", 1)])
    record = record_of(rows)
    assert id_key("ancient") not in [item for item, _ in ring(record)]
    assert record["events"] == RING + 1


@given(st.lists(events(), max_size=120))
def test_a_profile_counts_every_event_once(batch: list[BehaviourEvent]) -> None:
    rows = folded(batch)
    assert len(rows) == len({event.user_id for event in batch})
    assert int(rows.records["events"].sum()) == len(batch)
    records = rows.records[: len(rows)]
    for name in ("category_weights", "brand_weights", "price_weights", "counts"):
        assert np.isfinite(records[name]).all()
        assert (records[name] >= 0).all()


@pytest.mark.parametrize(
    ("then", "is_held"),
    [
        ([], True),
        ([RemoveFromCart], False),
        ([Purchase], True),
        ([Purchase, RemoveFromCart], True),
        ([Purchase, Cancel], False),
        ([Purchase, Return], False),
        ([Cancel], True),
    ],
)
def test_what_is_in_the_cart_or_bought_is_held(then: list[type], is_held: bool) -> None:
    kinds = [AddToCart, *then]
    batch = [kind(user_id="ann", item_id="lamp", ts=START_MS + n * 1000) for n, kind in enumerate(kinds)]
    assert held(record_of(folded(batch))) == ({id_key("lamp")} if is_held else set())


def test_a_full_hand_gives_up_the_oldest_purchase_before_any_cart_line() -> None:
    cart: list[BehaviourEvent] = [
        AddToCart(user_id="ann", item_id=f"cart-{n}", ts=START_MS + n * 1000) for n in range(HELD - 2)
    ]
    bought: list[BehaviourEvent] = [
        Purchase(user_id="ann", item_id=name, ts=START_MS + second * 1000)
        for name, second in (("old", 50), ("new", 60))
    ]
    more: list[BehaviourEvent] = [AddToCart(user_id="ann", item_id="one-more", ts=START_MS + 70_000)]
    names = {*(f"cart-{n}" for n in range(HELD - 2)), "new", "one-more"}
    assert held(record_of(folded(cart + bought + more))) == {id_key(name) for name in names}


def test_impressions_are_counted_and_not_remembered() -> None:
    shown = Impression(user_id="ann", item_id="lamp", list_id="l", position=0, ts=START_MS, category="light")
    record = record_of(folded([shown]))
    assert (record["size"], record["events"]) == (0, 1)
    assert record["counts"][:, EventType.IMPRESSION].tolist() == [1, 1, 1]
    assert not record["category_weights"].any()


def test_counts_halve_with_their_window() -> None:
    record = record_of(folded([view("lamp")])).copy()
    for number, window in enumerate(WINDOWS_MS):
        later = np.array([record])
        decay_to(later, START_MS + window)
        assert later["counts"][0, number, EventType.VIEW] == pytest.approx(0.5)


@given(st.permutations([0, 3, 40, 41, 700]))
def test_affinities_are_the_same_in_whatever_order_events_arrive(hours: list[int]) -> None:
    batch = [view(f"item-{hour}", hour * 3600, category="light", brand="b", price=30.0) for hour in hours]
    record = record_of(folded(batch))
    expected = sum(2.0 ** (-(700 - hour) * 3_600_000 / SHOP_TASTES.half_life_ms) for hour in hours)
    assert record["category_keys"][0] == short_key("light")
    for weight in (record["category_weights"][0], record["brand_weights"][0], record["price_weights"].max()):
        assert weight == pytest.approx(expected, rel=1e-4)


def test_a_taste_that_comes_often_is_never_kept_out() -> None:
    strangers = [view(f"item-{n}", n, category=f"once-{n}") for n in range(40)]
    loved = [view("lamp", 50 + n, category="light") for n in range(10)]
    record = record_of(
        folded([event for pair in zip(strangers[:10], loved, strict=True) for event in pair] + strangers[10:])
    )
    assert short_key("light") in record["category_keys"]


@pytest.mark.parametrize(("rating", "says_something"), [(5.0, True), (2.0, False)])
def test_only_a_good_rating_is_a_taste(rating: float, says_something: bool) -> None:
    rated = Rating(user_id="ann", item_id="lamp", rating=rating, ts=START_MS, category="light")
    assert bool(record_of(folded([rated]))["category_weights"].any()) is says_something


@given(st.sampled_from(EventType), st.floats(0, 5, width=32))
def test_what_counts_as_a_liking_is_what_strengthens_a_taste(code: EventType, rating: float) -> None:
    common = {"user_id": "ann", "ts": START_MS, "type": code.name.lower(), "brand": "lux"}
    own = {"item_id": "lamp", "rating": rating, "list_id": "l", "position": 0} if code != EventType.FOLLOW else {}
    record = record_of(folded([msgspec.convert(common | own, BehaviourEvent)]))
    weight = taste_weights(np.array([code]), np.array([rating], dtype=np.float32))[0]
    assert record["brand_weights"][0] == weight


def test_following_a_brand_is_a_taste() -> None:
    record = record_of(folded([Follow(user_id="ann", brand="lux", ts=START_MS)]))
    assert (record["brand_keys"][0], record["brand_weights"][0], record["size"]) == (short_key("lux"), 5.0, 0)


@given(st.lists(events(), max_size=20), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_a_request_to_forget_is_no_event_of_the_fold(batch: list[BehaviourEvent], places: list[int]) -> None:
    mixed: list[BehaviourRecord] = [*batch]
    for place in places:
        mixed.insert(place, Forget(user_id="ann", ts=START_MS))
    columns = columns_of(mixed, range(len(mixed)))
    rows = ProfileRows()
    fresh = fold(rows.records, rows.rows_of(columns.users), columns, CLICKS)
    assert fresh.tolist() == [not isinstance(one, Forget) for one in mixed]
    assert int(rows.records["events"].sum()) == len(batch)
    popularity = Popularity()
    popularity.count([one.item_id for one in mixed], columns.items, columns.types, columns.times_ms)
    assert len(popularity) <= len(batch)


def test_offsets_are_kept_apart_by_source() -> None:
    rows = ProfileRows()
    for number in range(SOURCES):
        folded([Click(user_id="ann", item_id="lamp", ts=START_MS)], rows, 7, source_key(f"topic-{number}", 0))
    for number in range(SOURCES):
        folded([Click(user_id="ann", item_id="lamp", ts=START_MS)], rows, 7, source_key(f"topic-{number}", 0))
    assert record_of(rows)["events"] == SOURCES


def _at(event: BehaviourEvent, second: int) -> BehaviourEvent:
    return msgspec.structs.replace(event, ts=START_MS + second * 1000)
