"""The pipeline's promises, with confirmations in the test's hands: what is acknowledged when, who gets which list."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import BehaviourEvent, Impression, View, encode_event
from mmrec_stream.contracts.dead_letters import Fault, decode_dead_letter
from mmrec_stream.contracts.recommendations import RecommendationList, decode_list
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.recommend import Recommender
from mmrec_stream.settings import Settings
from streams import pipeline as module
from streams.metrics import Metrics
from streams.outbox import Ticket
from streams.pipeline import Pipeline
from streams.store import ProfileStore
from tests.streams.chunks import chunk_of

SETTINGS = Settings(_env_file=None, partitions=1, score_batch=8)  # type: ignore[call-arg]
TOPIC = "mmrec.clicks"


@dataclass
class HeldOutbox:
    """Keeps what is sent until the test confirms it."""

    profiles_sent: list[str] = field(default_factory=list)
    lists: list[RecommendationList] = field(default_factory=list)
    letters: list[Any] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    unconfirmed: dict[str, list[Callable[[], None]]] = field(default_factory=lambda: {"profiles": [], "lists": []})

    async def room(self) -> None: ...

    @property
    def profiles_under_way(self) -> int:
        return len(self.unconfirmed["profiles"])

    def profiles(
        self, topic: str, partition: int, keys: Sequence[str], values: Sequence[bytes], ticket: Ticket, on_offset: Any
    ) -> None:
        self.profiles_sent += keys
        self.rows += values
        ticket.add(len(keys))
        self.unconfirmed["profiles"] += [ticket.settle] * len(keys)

    def send(self, topic: str, records: Sequence[tuple[bytes | str, bytes, Sequence[Ticket]]]) -> None:
        for _, value, tickets in records:
            if topic.endswith("recommendations"):
                self.lists.append(decode_list(value))
            else:
                self.letters.append(decode_dead_letter(value))
            for ticket in tickets:
                ticket.add()
                self.unconfirmed["lists"].append(ticket.settle)

    def confirm(self, kind: str) -> None:
        waiting, self.unconfirmed[kind] = self.unconfirmed[kind], []
        for settle in waiting:
            settle()


class Store(ProfileStore):
    def __init__(self) -> None:
        self.partitions: dict[int, ProfileRows] = {}
        self._known: dict[int, int] = {}


@dataclass
class Bench:
    pipeline: Pipeline
    outbox: HeldOutbox
    metrics: Metrics
    acknowledged: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    next_offset: int = 0

    async def chunk(self, *events: BehaviourEvent | bytes, more: bool = False) -> int:
        """Hand over a chunk; its last offset. `more` says that others of its fetch follow."""
        values = [event if isinstance(event, bytes) else encode_event(event) for event in events]
        offsets = range(self.next_offset, self.next_offset + len(values))
        self.next_offset += len(values)
        last = self.next_offset - 1
        event = SimpleNamespace(
            value=chunk_of(TP(TOPIC, 0), values, offsets, fetched=time.time()),
            message=SimpleNamespace(tp=TP(TOPIC, 0), offset=last),
            ack=lambda: self.acknowledged.append(last),
        )

        def begin() -> bool:
            self.begun.append(last)
            return more

        await self.pipeline.accept(cast("Any", event), begin)
        return last

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    catalogue, popularity, metrics, outbox = Catalogue(), Popularity(), Metrics(), HeldOutbox()
    recommender = Recommender(catalogue, popularity, list_size=5, repurchase_s=1e6)
    pipeline = Pipeline(SETTINGS, Store(), catalogue, popularity, recommender, cast("Any", outbox), metrics)
    yield Bench(pipeline, outbox, metrics)
    pipeline.close()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many users each scoring run had."""
    sizes: list[int] = []
    recommend = Recommender.recommend

    def counted(recommender: Recommender, records: Any, now_ms: int) -> Any:
        sizes.append(len(records))
        return recommend(recommender, records, now_ms)

    monkeypatch.setattr(Recommender, "recommend", counted)
    return sizes


@pytest.fixture
async def scoring(bench: Bench) -> AsyncIterator[None]:
    task = asyncio.create_task(bench.pipeline.recommend_forever())
    yield
    task.cancel()


def view(user: str, item: str = "lamp") -> View:
    return View(user_id=user, item_id=item, ts=int(time.time() * 1000))


@pytest.mark.usefixtures("scoring")
@pytest.mark.parametrize("order", [("profiles", "lists"), ("lists", "profiles")])
async def test_a_chunk_is_acknowledged_when_profiles_and_lists_are_confirmed(
    bench: Bench, order: tuple[str, str]
) -> None:
    last = await bench.chunk(view("ann"), view("bob"), view("ann", "rug"))
    await bench.until(lambda: len(bench.outbox.lists) == 2)
    assert sorted(bench.outbox.profiles_sent) == ["ann", "bob"]
    bench.outbox.confirm(order[0])
    assert bench.acknowledged == []
    bench.outbox.confirm(order[1])
    assert bench.acknowledged == [last]
    assert bench.pipeline.open_chunks == 0


async def test_users_in_line_get_one_list_of_their_newest_state(bench: Bench) -> None:
    first = await bench.chunk(view("ann"), view("bob"))
    second = await bench.chunk(view("ann", "rug"))
    assert bench.pipeline.lists_due == 2
    task = asyncio.create_task(bench.pipeline.recommend_forever())
    await bench.until(lambda: len(bench.outbox.lists) == 2)
    task.cancel()
    causes = {one.user_id: one.cause.offset for one in bench.outbox.lists}
    assert causes == {"ann": second, "bob": 1}
    assert bench.metrics.coalesced._value.get() == 1
    bench.outbox.confirm("profiles")
    assert bench.acknowledged == []  # both chunks wait for ann's one list
    bench.outbox.confirm("lists")
    assert sorted(bench.acknowledged) == [first, second]


@pytest.mark.usefixtures("scoring")
async def test_what_came_together_is_scored_together(bench: Bench, batches: list[int]) -> None:
    await bench.chunk(view("ann"), more=True)
    await bench.chunk(view("bob"))
    await bench.until(lambda: len(bench.outbox.lists) == 2)
    assert batches == [2]


@pytest.mark.usefixtures("scoring")
async def test_many_users_at_once_get_their_lists_in_the_order_in_which_they_came(bench: Bench) -> None:
    users = [f"u{number}" for number in range(3 * module.HERE)]
    await bench.chunk(*map(view, users))
    await bench.until(lambda: len(bench.outbox.lists) == len(users))
    assert [one.user_id for one in bench.outbox.lists] == users


@pytest.mark.usefixtures("scoring")
async def test_few_users_are_scored_on_the_loop_unless_that_takes_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    recommend, clock = Recommender.recommend, [0.0]

    def slow_at_first(recommender: Recommender, records: Any, now_ms: int) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        if len(threads) < 3:
            clock[0] += 2 * module.HERE_S
        return recommend(recommender, records, now_ms)

    monkeypatch.setattr(Recommender, "recommend", slow_at_first)
    # Scoring takes what the test says, however busy the machine is.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    for number in range(5):
        await bench.chunk(view("ann"))
        await bench.until(lambda made=number + 1: len(bench.outbox.lists) == made)  # type: ignore[misc]
    assert threads == [True, False, False, True, True]


async def test_the_next_fetch_waits_for_lists_that_are_due_and_not_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"u{number}" for number in range(module.HERE + 1)]
    await bench.chunk(*map(view, users))
    await bench.pipeline.pace()  # nobody makes the lists, and yet it ends
    monkeypatch.setattr(module, "PACE_S", 60.0)
    pacing = asyncio.create_task(bench.pipeline.pace())
    await asyncio.sleep(0)
    assert not pacing.done()
    task = asyncio.create_task(bench.pipeline.recommend_forever())
    async with asyncio.timeout(10):
        await pacing
    task.cancel()
    assert bench.pipeline.lists_due <= module.HERE


@pytest.mark.usefixtures("scoring")
async def test_a_replayed_event_changes_no_profile_and_still_brings_its_list(bench: Bench) -> None:
    await bench.chunk(view("ann"))
    bench.next_offset = 0
    await bench.chunk(view("ann"))
    await bench.until(lambda: bool(bench.outbox.lists))
    first, again = bench.outbox.rows
    assert first == again
    assert bench.metrics.repeats._value.get() == 1
    assert len({one.list_id for one in bench.outbox.lists}) == 1


async def test_bad_records_are_set_aside_and_their_chunk_waits_for_that(bench: Bench) -> None:
    last = await bench.chunk(
        b"no json", Impression(user_id="ann", item_id="x", list_id="l", position=0, ts=view("").ts)
    )
    assert [letter.fault for letter in bench.outbox.letters] == [Fault.NOT_JSON]
    bench.outbox.confirm("profiles")
    assert bench.acknowledged == []
    bench.outbox.confirm("lists")
    assert bench.acknowledged == [last]


async def test_a_mistake_of_ours_sets_the_chunk_aside_instead_of_losing_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr(module, "fold", broken)
    await bench.chunk(view("ann"), view("bob"))
    assert [(letter.fault, letter.origin.offset) for letter in bench.outbox.letters] == [
        (Fault.INTERNAL, 0),
        (Fault.INTERNAL, 1),
    ]
    assert "our mistake" in bench.outbox.letters[0].detail


@pytest.mark.usefixtures("scoring")
async def test_a_batch_that_cannot_be_scored_holds_nothing_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the runtime is out of order")

    monkeypatch.setattr(bench.pipeline._recommender, "recommend", broken)
    last = await bench.chunk(view("ann"))
    await bench.until(lambda: bench.pipeline.lists_due == 0 and bench.metrics.scoring_failures._value.get() == 1)
    bench.outbox.confirm("profiles")
    await bench.until(lambda: bench.acknowledged == [last])


async def test_settling_gives_up_what_is_not_confirmed_and_its_late_confirmation_acknowledges_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_PROFILES_S", 0.5)
    await bench.chunk(view("ann"))
    await bench.pipeline.settle()
    assert (bench.pipeline.open_chunks, bench.pipeline.lists_due) == (0, 0)
    bench.outbox.confirm("profiles")
    assert bench.acknowledged == []


async def test_what_was_given_up_before_its_profile_was_confirmed_waits_for_it_when_it_is_read_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_PROFILES_S", 0.0)
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    await bench.chunk(view("ann"))
    await bench.pipeline.settle()
    bench.outbox.unconfirmed["profiles"].clear()  # the first write is lost
    bench.next_offset = 0
    task = asyncio.create_task(bench.pipeline.recommend_forever())
    last = await bench.chunk(view("ann"))
    await bench.until(lambda: bool(bench.outbox.lists))
    task.cancel()
    bench.outbox.confirm("lists")
    assert bench.acknowledged == []
    bench.outbox.confirm("profiles")
    assert bench.acknowledged == [last]


@pytest.mark.usefixtures("scoring")
async def test_what_asks_for_no_list_starts_no_scoring(bench: Bench, batches: list[int]) -> None:
    await bench.chunk(Impression(user_id="ann", item_id="lamp", list_id="l", position=0, ts=view("").ts))
    for _ in range(5):
        await asyncio.sleep(0)
    await bench.chunk(view("bob"))
    await bench.until(lambda: len(bench.outbox.lists) == 1)
    assert batches == [1]


@pytest.mark.usefixtures("scoring")
async def test_settling_waits_for_what_is_confirmed_in_time(bench: Bench) -> None:
    last = await bench.chunk(view("ann"))
    settling = asyncio.create_task(bench.pipeline.settle())
    await bench.until(lambda: bool(bench.outbox.lists))
    bench.outbox.confirm("profiles")
    bench.outbox.confirm("lists")
    await settling
    assert bench.acknowledged == [last]


async def test_a_chunk_that_waited_through_a_rebalance_is_not_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 0)
    monkeypatch.setattr(module, "SETTLE_PROFILES_S", 0.0)
    await bench.chunk(view("ann"))
    waiting = asyncio.create_task(bench.chunk(view("bob")))
    await asyncio.sleep(0)
    await bench.pipeline.settle()
    await waiting
    assert bench.begun == [0]
    assert bench.outbox.profiles_sent == ["ann"]
