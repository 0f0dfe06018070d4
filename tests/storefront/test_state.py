"""What the gateway remembers: bounded, newest first, and what a page is told of it."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.recommendations import Recommended
from mmrec_stream.storefront.api import ApiError, Card
from mmrec_stream.storefront.events import events_of
from mmrec_stream.storefront.hub import PER_USER, Hub, Stream
from mmrec_stream.storefront.newest import OVERHEAD, NewestLists
from mmrec_stream.storefront.shaping import made_list, personal_list, reason
from mmrec_stream.storefront.shelf import Addresses, Shelf, card_of
from mmrec_stream.storefront.tokens import Visitor
from mmrec_stream.storefront.trails import STEPS, Sessions, Trails
from mmrec_stream.storefront.window import Delivery, Window
from tests.storefront.shop import NOW, product, recommended

ADDRESSES = Addresses("/p/{item_id}", "EUR")
IDS = st.sampled_from([f"i{n}" for n in range(8)])


def shelf_of(**stock: int) -> Shelf:
    shelf = Shelf(ADDRESSES)
    shelf.update({item: card_of(product(item, stock=left), None, ADDRESSES, 0) for item, left in stock.items()})
    return shelf


class TestNewestLists:
    @given(st.lists(st.tuples(IDS, st.none() | st.binary(max_size=900)), max_size=80))
    def test_the_newest_of_each_is_kept_and_memory_is_bounded(self, puts: list[tuple[str, bytes | None]]) -> None:
        bound = 4 * (OVERHEAD + 900)
        lists, last = NewestLists(bound), dict[str, bytes | None]()
        for user, value in puts:
            lists.put(user, value)
            last[user] = value
            assert lists.bytes <= bound
            assert lists.get(user) == value
        held = {user: found for user in last if (found := lists.get(user)) is not None}
        assert all(last[user] == value for user, value in held.items())
        assert lists.bytes == sum(len(value) + OVERHEAD for value in held.values())

    def test_the_least_recent_make_room(self) -> None:
        lists = NewestLists(3 * (OVERHEAD + 10))
        for user in ("a", "b", "c", "a", "d"):
            lists.put(user, bytes(10))
        assert [user for user in "abcd" if lists.get(user)] == ["a", "c", "d"]


class TestTheWindow:
    async def test_an_event_that_was_given_up_may_come_again(self) -> None:
        window, loop = Window(), asyncio.get_running_loop()
        delivery: Delivery = loop.create_future()
        window.begin(("u", "e"), delivery)
        assert window.delivery(("u", "e")) is delivery
        delivery.set_result("the broker is away")
        await asyncio.sleep(0)
        assert ("u", "e") not in window

    async def test_one_that_is_confirmed_may_not(self) -> None:
        window, loop = Window(2), asyncio.get_running_loop()
        delivery: Delivery = loop.create_future()
        window.begin(("u", "e"), delivery)
        delivery.set_result(None)
        await asyncio.sleep(0)
        assert ("u", "e") in window
        assert window.delivery(("u", "e")) is None
        # The oldest are forgotten.
        window.confirm(("u", "f"))
        window.confirm(("u", "g"))
        assert (("u", "e") in window, len(window)) == (False, 2)

    async def test_one_that_the_log_has_is_confirmed_whatever_its_delivery_says(self) -> None:
        window, loop = Window(), asyncio.get_running_loop()
        delivery: Delivery = loop.create_future()
        window.begin(("u", "e"), delivery)
        window.confirm(("u", "e"))
        delivery.set_result("no answer")
        await asyncio.sleep(0)
        assert ("u", "e") in window


class TestTheHub:
    def test_a_slow_reader_is_owed_the_newest_list_alone(self) -> None:
        hub, stream = Hub(10, 10), Stream("alice", "1.1.1.1")
        assert hub.open(stream) is None
        assert hub.lists([("bob", b"x"), ("alice", b"1")]) == 0
        assert hub.lists([("alice", b"2"), ("alice", b"3")]) == 2
        assert stream.take() == (b"3", [])
        assert stream.take() == (None, [])

    def test_only_products_that_are_shown_are_news(self) -> None:
        hub, stream = Hub(10, 10), Stream("alice", "1.1.1.1")
        hub.open(stream)
        stream.shown = frozenset(["a"])
        cards = {item: Card(item_id=item, title=item, currency="EUR") for item in ("a", "b")}
        hub.news(cards)
        assert stream.take() == (None, [cards["a"]])

    def test_bounds_hold_and_places_are_given_back(self) -> None:
        hub = Hub(20, 15)
        streams = [Stream("alice", "1.1.1.1") for _ in range(PER_USER)]
        assert [hub.open(stream) for stream in streams] == [None] * PER_USER
        assert hub.open(Stream("alice", "2.2.2.2")) == "user"
        others = [Stream(None, "1.1.1.1") for _ in range(15 - PER_USER)]
        assert [hub.open(stream) for stream in others] == [None] * len(others)
        assert hub.open(Stream(None, "1.1.1.1")) == "address"
        assert [hub.open(Stream(None, "2.2.2.2")) for _ in range(6)] == [None] * 5 + ["streams"]
        hub.close(streams[0])
        assert hub.open(Stream("alice", "1.1.1.1")) is None
        assert len(hub) == 20


class TestTrails:
    def test_the_latest_steps_of_the_latest_users(self) -> None:
        trails = Trails(capacity=2)
        for number in range(STEPS + 3):
            trails.step("alice", f"i{number}")
        trails.step("bob", "x")
        assert trails.of("alice") == tuple(f"i{number}" for number in range(3, STEPS + 3))
        trails.step("carol", "y")
        assert (trails.of("alice"), trails.of("bob")) == ((), ("x",))

    def test_where_a_session_begins(self) -> None:
        sessions = Sessions(capacity=2)
        for user, topic, offset in [("s", "clicks", 5), ("s", "clicks", 9), ("s", "feedback", 2), ("t", "clicks", 6)]:
            sessions.saw(user, topic, offset)
        assert sessions.first("s") == {"clicks": 5, "feedback": 2}
        sessions.saw("u", "clicks", 7)
        assert sessions.first("s") is None


class TestShaping:
    @given(st.lists(IDS, unique=True), st.dictionaries(IDS, st.integers(0, 1)), st.integers(1, 10))
    def test_only_what_can_be_sold_in_order_without_gaps(
        self, items: list[str], stock: dict[str, int], count: int
    ) -> None:
        shown = personal_list(recommended("alice", items), shelf_of(**stock), "home", count)
        expected = [item for item in items if stock.get(item, 1)][:count]
        assert [place.item_id for place in shown.items] == expected
        assert [place.position for place in shown.items] == list(range(len(expected)))

    def test_a_made_list_has_an_id_of_its_items_alone(self) -> None:
        def of(items: str, generated: int, surface: str = "home") -> str:
            cards = [card_of(product(item), None, ADDRESSES, 0) for item in items]
            return made_list("popular", cards, surface, 5, release="r", generated=generated).list_id

        assert of("abc", 1) == of("abc", 2)
        assert len({of("abc", 1), of("acb", 1), of("abc", 1, "cart")}) == 3

    @pytest.mark.parametrize(
        ("p_user", "p_item", "alpha", "strategy", "source", "kind"),
        [
            (0.9, 0.1, 0.5, "hybrid", "own", "taste"),
            (0.1, 0.9, 0.5, "hybrid", "own", "followed"),
            (0.1, 0.9, 0.5, "hybrid", None, "followed"),
            (0.5, 0.5, 0.5, "hybrid", None, "both"),
            (0.5, 0.5, 0.5, "hybrid", "own", "followed"),
            (0.5, 0.5, 1.0, "hybrid", "own", "taste"),
            (0.0, 0.0, 0.5, "hybrid", None, "both"),
            (0.9, 0.1, 0.5, "popular", "own", "popular"),
        ],
    )
    def test_the_reason_is_the_half_that_decided(
        self, p_user: float, p_item: float, alpha: float, strategy: str, source: str | None, kind: str
    ) -> None:
        item = Recommended(item_id="a", score=1.0, p_user=p_user, p_item=p_item)
        why = reason(item, alpha, strategy, source, shelf_of(own=1))
        assert why.kind == kind
        assert (why.source_item_id == "own") == (kind == "followed" and source is not None)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_a_body_is_it_is_events_or_a_complaint(body: bytes) -> None:
    try:
        found = events_of(body, Visitor(user_id="alice"), NOW)
    except ApiError as error:
        status, message = error.status, error.complaint.message
    else:
        status, message = 202, "taken"
        assert all(one.event.user_id == "alice" for one in found)
    assert status in (202, 400, 403)
    assert message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from(["item_id", "ts", "id", "list_id", "position", "user_id", "price", "surface", "session_id"]),
        JSON,
    ),
    st.sampled_from(["view", "click", "impression", "purchase", "follow", "rating", "", "else"]),
)
def test_whatever_an_event_has_in_it_it_is_the_visitors_or_refused(fields: dict[str, object], kind: str) -> None:
    body = msgspec.json.encode({"events": [fields | {"type": kind}]})
    try:
        (one,) = events_of(body, Visitor(user_id="alice"), NOW)
    except ApiError as error:
        field = error.complaint.field
    else:
        field = "events[0]"
        assert one.event.user_id == "alice"
        assert one.event.ts <= NOW
    assert field is not None
    assert field.startswith("events[0]")
