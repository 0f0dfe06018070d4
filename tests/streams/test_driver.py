"""From fetches to streams: in which order chunks are handed over, and which are not. The client is the test's."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP, Message

from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams import driver as module
from streams.chunks import Chunk
from streams.driver import ChunkConsumer
from streams.group import GroupError
from streams.ownership import Ownership
from tests.streams.chunks import chunk
from tests.streams.owners import KeptChangelog, own

SETTINGS = Settings(_env_file=None, partitions=2)  # type: ignore[call-arg]
TOPICS = Topics.of(SETTINGS)
CLICKS, OTHER, FEEDBACK = TP(TOPICS.clicks, 0), TP(TOPICS.clicks, 1), TP(TOPICS.feedback, 0)


class GivenClient:
    """Fetches what the test lays out, a list of chunks a fetch."""

    def __init__(self) -> None:
        self.coming: asyncio.Queue[list[Chunk] | GroupError] = asyncio.Queue()
        self.paused: set[TP] = set()

    async def fetch(self, timeout_s: float) -> list[Chunk]:
        try:
            async with asyncio.timeout(timeout_s):
                come = await self.coming.get()
        except TimeoutError:
            return []
        if isinstance(come, GroupError):
            raise come
        return come

    def pause(self, partitions: Iterable[TP]) -> None:
        self.paused |= set(partitions)

    def resume(self, partitions: Iterable[TP]) -> None:
        self.paused -= set(partitions)


class GivenWorker:
    """What the consumer needs of the app, and the chunks that its streams were handed."""

    settings = SETTINGS
    topic_names = TOPICS

    def __init__(self) -> None:
        self.client = GivenClient()
        self.handed: list[Chunk] = []
        self.failure: str | None = None
        self.paced = 0
        self.topics = SimpleNamespace(on_partitions_assigned=self._assigned)
        self.flow_control = SimpleNamespace(resume=lambda: None)
        self.assignment = SimpleNamespace(owners=SimpleNamespace(serving=[0, 1]))

    async def _assigned(self, partitions: set[TP]) -> None:
        self.streams = partitions

    async def join(self, topics: list[str]) -> GivenClient:
        return self.client

    async def pace(self) -> None:
        self.paced += 1

    def fail(self, reason: str) -> None:
        self.failure = reason

    async def take(self, message: Message) -> None:
        value = cast("Chunk", message.value)
        assert (message.tp, message.offset) == (TP(value.topic, value.partition), value.offsets[-1])
        self.handed.append(value)


class Driven:
    """A consumer at work."""

    def __init__(self) -> None:
        self.worker = GivenWorker()
        self.consumer = ChunkConsumer(SimpleNamespace(app=self.worker), self.worker.take, beacon=None)

    def come(self, *chunks: Chunk) -> None:
        self.worker.client.coming.put_nowait(list(chunks))

    async def until_handed(self, count: int) -> list[tuple[str, int, list[int]]]:
        """Wait for this many chunks, and see that no more come: topic, partition and offsets of each."""
        async with asyncio.timeout(10):
            while len(self.worker.handed) < count:
                await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        return [(one.topic, one.partition, one.offsets) for one in self.worker.handed]


@pytest.fixture
async def driven() -> AsyncIterator[Driven]:
    driven = Driven()
    await driven.consumer.start()
    await driven.consumer.subscribe(TOPICS.behaviour)
    yield driven
    driven.consumer._all_taken.set()
    await driven.consumer.stop()


@pytest.fixture
def owner() -> Ownership:
    return own(KeptChangelog(), {})


async def test_streams_are_there_for_every_partition_before_anything_is_fetched(driven: Driven) -> None:
    assert driven.worker.streams == {TP(topic, number) for topic in TOPICS.behaviour for number in range(2)}


async def test_chunks_are_handed_over_in_their_order_and_no_more_fetched_until_all_are_taken(
    driven: Driven, owner: Ownership
) -> None:
    driven.come(chunk(CLICKS, 3, 4, 9, owner=owner), chunk(OTHER, 0, owner=owner))
    driven.come(chunk(CLICKS, 10, owner=owner))
    assert await driven.until_handed(2) == [(*CLICKS, [3, 4, 9]), (*OTHER, [0])]
    assert driven.consumer.begin()  # the other is still to come
    assert len(await driven.until_handed(2)) == 2
    assert not driven.consumer.begin()
    assert (await driven.until_handed(3))[2:] == [(*CLICKS, [10])]
    assert driven.worker.paced == 1


async def test_impressions_come_after_everything_else_of_their_fetch_and_in_pieces(
    driven: Driven, owner: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 2)
    driven.come(chunk(FEEDBACK, 0, 1, 2, 3, 4, owner=owner), chunk(CLICKS, 7, owner=owner))
    assert await driven.until_handed(2) == [(*CLICKS, [7]), (*FEEDBACK, [0, 1])]
    driven.come(chunk(FEEDBACK, 5, owner=owner), chunk(CLICKS, 8, owner=owner))  # a click that comes meanwhile
    for _ in range(2):
        driven.consumer.begin()
    assert (await driven.until_handed(4))[2:] == [(*CLICKS, [8]), (*FEEDBACK, [2, 3])]
    for _ in range(2):
        driven.consumer.begin()
    assert (await driven.until_handed(5))[4:] == [(*FEEDBACK, [4])]
    driven.consumer.begin()
    assert (await driven.until_handed(6))[5:] == [(*FEEDBACK, [5])]


async def test_impressions_that_pile_up_are_not_fetched_until_they_have_become_fewer(
    driven: Driven, owner: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    monkeypatch.setattr(module, "PIECES_AHEAD", 4)
    driven.come(chunk(FEEDBACK, *range(6), owner=owner))
    await driven.until_handed(1)
    assert driven.worker.client.paused == {FEEDBACK}
    for taken in range(1, 4):
        assert driven.worker.client.paused == {FEEDBACK}
        driven.consumer.begin()
        await driven.until_handed(1 + taken)
    assert driven.worker.client.paused == set()


async def test_impressions_of_a_partition_that_is_restored_are_not_fetched_when_others_have_become_few(
    driven: Driven, owner: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    monkeypatch.setattr(module, "PIECES_AHEAD", 2)
    driven.come(chunk(FEEDBACK, *range(4), owner=owner), chunk(TP(TOPICS.feedback, 1), 0, owner=owner))
    await driven.until_handed(1)
    driven.worker.assignment.owners.serving = [1]
    for taken in range(1, 5):
        driven.consumer.begin()
        await driven.until_handed(1 + taken)
    assert driven.worker.client.paused == {FEEDBACK}


async def test_chunks_of_an_ownership_that_is_over_are_dropped_and_nobody_waits_for_them(
    driven: Driven, owner: Ownership, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    gone = own(KeptChangelog(), {})
    driven.come(chunk(FEEDBACK, 0, 1, 2, owner=gone), chunk(CLICKS, 0, owner=gone))
    await driven.until_handed(2)
    gone.close()
    driven.come(chunk(CLICKS, 0, owner=gone), chunk(OTHER, 0, owner=owner))
    for _ in range(2):
        driven.consumer.begin()
    assert (await driven.until_handed(3))[2:] == [(*OTHER, [0])]
    driven.come(chunk(CLICKS, 0, owner=owner))
    driven.consumer.begin()
    assert (await driven.until_handed(4))[3:] == [(*CLICKS, [0])]


async def test_a_group_that_will_not_have_the_worker_ends_it_with_the_reason(driven: Driven) -> None:
    driven.worker.client.coming.put_nowait(GroupError("not authorized to access group"))
    async with asyncio.timeout(10):
        while driven.worker.failure is None:
            await asyncio.sleep(0)
    assert driven.worker.failure == "not authorized to access group"


async def test_a_worker_that_has_failed_before_joins_no_group() -> None:
    driven = Driven()
    driven.worker.failure = "no topics"
    await driven.consumer.subscribe(TOPICS.behaviour)
    assert not hasattr(driven.worker, "streams")


async def test_impressions_wait_for_nothing_when_there_is_nothing_else(driven: Driven, owner: Ownership) -> None:
    driven.come(chunk(FEEDBACK, 0, owner=owner))
    assert await driven.until_handed(1) == [(*FEEDBACK, [0])]


def test_faust_is_told_of_nothing_that_it_would_have_to_give_up() -> None:
    consumer: Any = Driven().consumer
    assert consumer.assignment() == set()
