"""The chunk consumer against Faust's invariants, without a broker: what is fetched is given by the test."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from faust.types import TP, Message

from mmrec_stream.settings import Settings
from streams.app import StreamApp
from streams.transport import Chunk, ChunkConsumer

CLICKS, OTHER = TP("mmrec.clicks", 0), TP("mmrec.clicks", 1)


@dataclass
class Fetched:
    topic: str
    partition: int
    offset: int
    timestamp: int = 1_700_000_000_000
    key: bytes | None = b"ann"
    value: bytes | None = b"{}"


def records(tp: TP, *offsets: int) -> list[Fetched]:
    return [Fetched(tp.topic, tp.partition, offset) for offset in offsets]


class OfflineConsumer(ChunkConsumer):
    """The consumer with fetching, seeking and committing in the test's hands."""

    fetched: dict[TP, list[Fetched]]

    def prepare(self) -> None:
        self.fetched, self.seeks = {}, 0
        self.sent: dict[TP, int] = {}

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109
        return self.fetched, self._get_active_partitions()

    def highwater(self, tp: TP) -> int:
        return 10**6

    async def seek_to_committed(self) -> dict[TP, int]:
        self.seeks += 1
        return {}

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
    consumer.fetched = {CLICKS: records(CLICKS, 3, 4, 9), OTHER: records(OTHER, 0)}
    one, other = await taken(consumer)
    chunk = cast("Chunk", one.value)
    assert [record.offset for record in chunk.records] == [3, 4, 9]
    assert (one.tp, one.offset, one.generation_id) == (CLICKS, 9, 7)
    assert (other.tp, other.offset) == (OTHER, 0)


async def test_paused_partitions_are_left_out_and_come_back_when_resumed(consumer: OfflineConsumer) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0), OTHER: records(OTHER, 0)}
    consumer.pause_partitions({OTHER})
    assert [message.tp for message in await taken(consumer)] == [CLICKS]
    consumer.resume_partitions({OTHER})
    assert [message.tp for message in await taken(consumer)] == [CLICKS, OTHER]


async def test_what_was_fetched_when_the_flow_stops_is_sought_again(consumer: OfflineConsumer) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0)}
    consumer.stop_flow()
    assert await taken(consumer) == []
    assert consumer.seeks == 1


@pytest.mark.parametrize("event", ["generation", "flow"])
async def test_a_rebalance_between_two_partitions_ends_the_fetch(consumer: OfflineConsumer, event: str) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0), OTHER: records(OTHER, 0)}
    seen = []
    async for tp, _ in consumer.getmany(1.0):
        seen.append(tp)
        if event == "generation":
            consumer.app.consumer_generation_id = 8
        else:
            consumer.stop_flow()
    assert seen == [CLICKS]


async def test_a_commit_stops_before_the_first_unfinished_chunk(consumer: OfflineConsumer) -> None:
    chunks = []
    for offsets in ((0, 1, 2), (3, 4), (5,)):
        consumer.fetched = {CLICKS: records(CLICKS, *offsets)}
        chunks += await taken(consumer)
    for chunk in chunks:
        consumer.begin(chunk)
    consumer.ack(chunks[2])
    consumer.ack(chunks[1])
    await consumer.commit()
    assert consumer.sent == {}
    consumer.ack(chunks[0])
    await consumer.commit()
    assert consumer.sent == {CLICKS: 6}


async def test_offsets_missing_from_the_log_do_not_hold_a_commit_up(consumer: OfflineConsumer) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 100, 250)}  # a compacted log, or one whose beginning is gone
    (chunk,) = await taken(consumer)
    await consumer._add_gap(CLICKS, 0, 99)
    consumer.begin(chunk)
    consumer.ack(chunk)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 251}


async def test_a_late_acknowledgement_of_before_a_seek_says_nothing_of_the_chunk_read_again(
    consumer: OfflineConsumer,
) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0, 1)}
    (before,) = await taken(consumer)
    consumer.begin(before)
    await consumer.perform_seek()
    (again,) = await taken(consumer)
    consumer.begin(again)
    consumer.ack(before)
    await consumer.commit()
    assert consumer.sent == {}
    consumer.ack(again)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 2}


async def test_giving_partitions_up_commits_what_is_finished_and_forgets_the_rest(consumer: OfflineConsumer) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0, 1), OTHER: records(OTHER, 0)}
    finished, unfinished = await taken(consumer)
    for chunk in (finished, unfinished):
        consumer.begin(chunk)
    consumer.ack(finished)
    await consumer.wait_empty()
    assert consumer.sent == {CLICKS: 2}
    consumer.ack(unfinished)
    await consumer.commit()
    assert consumer.sent == {CLICKS: 2}


async def test_a_chunk_is_acknowledged_once(consumer: OfflineConsumer) -> None:
    consumer.fetched = {CLICKS: records(CLICKS, 0)}
    (chunk,) = await taken(consumer)
    consumer.begin(chunk)
    assert consumer.ack(chunk)
    assert not consumer.ack(chunk)


class Committed:
    """The client's consumer as far as seeking goes: it leaves a partition without a commit where it stands."""

    def __init__(self, committed: dict[TP, int | None]) -> None:
        self.committed, self.rewound = committed, set[TP]()

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return self.committed

    async def seek_to_beginning(self, *partitions: TP) -> None:
        self.rewound.update(partitions)


async def test_what_was_given_up_before_the_first_commit_is_read_again(consumer: OfflineConsumer) -> None:
    changelog = TP(cast("StreamApp", consumer.app).changelog, 0)
    client = Committed({CLICKS: None, OTHER: 12, changelog: None})
    thread = cast("Any", consumer)._thread
    thread._consumer = client
    assert await thread._seek_to_committed() == client.committed
    assert client.rewound == {CLICKS}
