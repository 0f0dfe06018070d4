"""The chunk consumer against Faust's invariants, without a broker: what is fetched is given by the test."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP, Message
from streams.transport import ChunkConsumer

from mmrec_stream.settings import Settings
from streams.app import StreamApp
from streams.chunks import Chunk
from tests.streams.chunks import chunk

CLICKS, OTHER = TP("mmrec.clicks", 0), TP("mmrec.clicks", 1)


class GivenFetching:
    """Fetches what the test has laid out, once; notes what it is told."""

    def __init__(self) -> None:
        self.waiting: list[Chunk] = []
        self.sought: list[Mapping[TP, int | None]] = []
        self.resumed: set[TP] = set()
        self.during: Callable[[], None] = lambda: None
        """What happens while the fetch waits."""

    async def fetch(self, timeout_s: float) -> list[Chunk]:
        await asyncio.sleep(0)
        self.during()
        found, self.waiting = self.waiting, []
        return found

    def seek(self, positions: Mapping[TP, int | None]) -> None:
        self.sought.append(positions)

    def resume(self, partitions: Iterable[TP]) -> None:
        self.resumed |= set(partitions)

    def pause(self, partitions: Iterable[TP]) -> None:
        self.resumed -= set(partitions)


class OfflineConsumer(ChunkConsumer):
    """The consumer with fetching, seeking and committing in the test's hands."""

    def prepare(self) -> None:
        self.given = GivenFetching()
        self.fetching = cast("Any", self.given)
        self.committed: dict[TP, int | None] = {}
        self.sent: dict[TP, int] = {}

    async def seek_to_committed(self) -> dict[TP, Any]:
        return self.committed

    def assignment(self) -> set[TP]:
        return {CLICKS, OTHER}

    async def _commit(self, offsets: Any) -> bool:
        self.sent.update(offsets)
        return True


@pytest.fixture
async def consumer() -> OfflineConsumer:
    app = StreamApp(Settings(_env_file=None))  # type: ignore[call-arg]
    app.finalize()
    app.consumer_generation_id = 7

    async def ignore(message: Message) -> None: ...

    consumer = OfflineConsumer(app.transport, ignore, lambda *_: None, lambda *_: None)
    consumer.prepare()
    consumer._thread = cast("Any", SimpleNamespace(note_fetch=lambda: None))
    app.consumer = consumer
    app.producer.flush = _nothing  # type: ignore[method-assign]
    app.topics.acking_topics.add(CLICKS.topic)
    consumer._set_active_tps({CLICKS, OTHER})
    consumer.resume_flow()
    return consumer


async def _nothing() -> None: ...


async def taken(consumer: OfflineConsumer) -> list[Message]:
    return [message async for _, message in consumer.getmany(1.0)]


async def test_what_arrived_of_a_partition_is_one_message(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 3, 4, 9), chunk(OTHER, 0)]
    one, other = await taken(consumer)
    assert cast("Chunk", one.value).offsets == [3, 4, 9]
    assert (one.tp, one.offset, one.generation_id) == (CLICKS, 9, 7)
    assert (other.tp, other.offset) == (OTHER, 0)


async def test_what_was_fetched_while_the_flow_stopped_is_dropped(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0)]
    consumer.given.during = consumer.stop_flow
    assert await taken(consumer) == []


async def test_a_seek_goes_to_what_is_committed_and_to_the_beginning_where_nothing_is(
    consumer: OfflineConsumer,
) -> None:
    changelog = TP(cast("StreamApp", consumer.app).changelog, 0)
    consumer.committed = {CLICKS: None, OTHER: 12, changelog: None}
    await consumer.perform_seek()
    assert consumer.given.sought == [{CLICKS: None, OTHER: 12}]


async def test_partitions_are_fetched_between_being_resumed_and_being_paused(consumer: OfflineConsumer) -> None:
    consumer.resume_partitions({CLICKS, OTHER})
    consumer.pause_partitions({OTHER})
    assert consumer.given.resumed == {CLICKS}


@pytest.mark.parametrize("event", ["generation", "flow"])
async def test_a_rebalance_between_two_partitions_ends_the_fetch(consumer: OfflineConsumer, event: str) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0), chunk(OTHER, 0)]
    seen = []
    async for tp, _ in consumer.getmany(1.0):
        seen.append(tp)
        if event == "generation":
            consumer.app.consumer_generation_id = 8
        else:
            consumer.stop_flow()
    assert seen == [CLICKS]


async def test_a_commit_stops_before_the_first_unfinished_chunk(consumer: OfflineConsumer) -> None:
    messages = []
    for offsets in ((0, 1, 2), (3, 4), (5,)):
        consumer.given.waiting = [chunk(CLICKS, *offsets)]
        messages += await taken(consumer)
    for message in messages:
        consumer.begin(message)
    consumer.ack(messages[2])
    consumer.ack(messages[1])
    await consumer.commit()
    assert consumer.sent == {}
    consumer.ack(messages[0])
    await consumer.commit()
    assert consumer.sent == {CLICKS: 6}


async def test_offsets_missing_from_the_log_do_not_hold_a_commit_up(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 100, 250)]  # a compacted log, or one whose beginning is gone
    (message,) = await taken(consumer)
    consumer.begin(message)
    consumer.ack(message)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 251}


async def test_a_late_acknowledgement_of_before_a_seek_says_nothing_of_the_chunk_read_again(
    consumer: OfflineConsumer,
) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0, 1)]
    (before,) = await taken(consumer)
    consumer.begin(before)
    await consumer.perform_seek()
    consumer.given.waiting = [chunk(CLICKS, 0, 1)]
    (again,) = await taken(consumer)
    consumer.begin(again)
    consumer.ack(before)
    await consumer.commit()
    assert consumer.sent == {}
    consumer.ack(again)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 2}


async def test_giving_partitions_up_commits_what_is_finished_and_forgets_the_rest(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0, 1), chunk(OTHER, 0)]
    finished, unfinished = await taken(consumer)
    for message in (finished, unfinished):
        consumer.begin(message)
    consumer.ack(finished)
    await consumer.wait_empty()
    assert consumer.sent == {CLICKS: 2}
    consumer.ack(unfinished)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 2}


async def test_a_chunk_is_acknowledged_once(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0)]
    (message,) = await taken(consumer)
    consumer.begin(message)
    assert consumer.ack(message)
    assert not consumer.ack(message)


class Drain:
    """The drain as it runs beside a test; keeps what it hands over."""

    def __init__(self, consumer: OfflineConsumer) -> None:
        self.handed: list[Message] = []
        self._stop = asyncio.Event()
        consumer.callback = self._hand_over
        fetcher = SimpleNamespace(_stopped=self._stop)
        self._task = asyncio.ensure_future(consumer._drain_messages(cast("Any", fetcher)))

    async def until(self, count: int) -> None:
        """Wait until this many chunks were handed over."""
        async with asyncio.timeout(10):
            while len(self.handed) < count:
                await asyncio.sleep(0)

    async def end_with(self, consumer: OfflineConsumer, message: Message) -> None:
        """Stop it: it ends when the last chunk is taken."""
        self._stop.set()
        consumer.begin(message)
        async with asyncio.timeout(10):
            await self._task

    async def _hand_over(self, message: Message) -> None:
        self.handed.append(message)


async def test_no_more_is_fetched_until_every_chunk_is_taken(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0), chunk(OTHER, 0)]
    drain = Drain(consumer)
    await drain.until(2)
    consumer.given.waiting = [chunk(CLICKS, 1)]
    assert consumer.begin(drain.handed[0])  # the other is still to come
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(drain.handed) == 2
    assert not consumer.begin(drain.handed[1])
    await drain.until(3)
    await drain.end_with(consumer, drain.handed[2])


async def test_chunks_that_a_rebalance_took_away_are_not_waited_for(consumer: OfflineConsumer) -> None:
    consumer.given.waiting = [chunk(CLICKS, 0)]
    drain = Drain(consumer)
    await drain.until(1)
    await consumer.perform_seek()
    consumer.given.waiting = [chunk(CLICKS, 0)]
    await drain.until(2)
    await drain.end_with(consumer, drain.handed[1])
