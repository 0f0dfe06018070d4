"""Faust's Kafka transport, with one difference: what a fetch brought of a partition arrives as one message.

A stock worker handles one record at a time and spends 100 µs on each. Here a stream's message carries a `Chunk`, all
records that had arrived. Membership, assignment and committing stay Faust's.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import aiokafka
import msgspec
from aiokafka.consumer import fetcher
from faust.topics import Topic
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, EventT, Message

from streams.commits import CommitTracker
from streams.intake import Record

FETCH_MAX_WAIT_MS = 250
"""How long a broker may hold a fetch when nothing arrives. Kafka answers at once when something does, so the value
costs nothing there; the embedded broker adds half of it to the latency and stalls far below it."""


MODE_LOG = logging.getLogger("mode.stream")
"""Where services of ours let their start and stop be logged: beside Faust's own, not among what we have to say."""


class Chunk(NamedTuple):
    """Consecutive records of one partition."""

    records: Sequence[Record]
    fetched: float
    """When they came in: s since 1970."""


class LeanRecord(msgspec.Struct, gc=False):
    """What we read of a record.

    aiokafka's own has eleven fields, and making it took a fifth of a busy worker's interpreter time.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class _LeanPartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    def _consumer_record(self, tp: TP, record: Any) -> LeanRecord:
        return LeanRecord(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value)


# The fetcher makes these by name, deep inside its response handling; a worker has no other aiokafka consumer.
fetcher.PartitionRecords = _LeanPartitionRecords


class ChunkTopic(Topic):
    """A topic whose messages are chunks: there is nothing for Faust to decode."""

    def _compile_decode(self) -> None:
        """Keep `decode` below, which Faust would replace by one that calls serialisers."""

    async def decode(self, message: Message, *, propagate: bool = False) -> EventT[Any]:
        """The message as an event, its value as it is."""
        return self._create_event(None, message.value, headers=None, message=message)


class _Thread(driver.AIOKafkaConsumerThread):
    logger = MODE_LOG

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS  # read when the consumer starts; Faust has it fixed at 1500
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek every partition to what is committed, and to its beginning where nothing is.

        aiokafka leaves a partition without a commit where it stands. Records that had been fetched and were given up
        in a rebalance would be passed over, and the next commit would lose them for good.
        """
        return cast("Mapping[TP, int]", await self.call_thread(self._seek_to_committed))

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        consumer = self._ensure_consumer()
        committed: Mapping[TP, int] = await consumer.seek_to_committed()
        changelog = cast("Any", self.app).changelog  # it is never fetched here, nor committed
        if fresh := [tp for tp, offset in committed.items() if not offset and tp.topic != changelog]:
            await consumer.seek_to_beginning(*fresh)
        return committed


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, a partition's records in one message, and commits that follow whole chunks."""

    logger = MODE_LOG

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commits: CommitTracker[TP] = CommitTracker()
        self._begun: dict[int, Message] = {}

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 # Faust's signature
        """Fetch what is there: one message a partition, its value a `Chunk`, its offset that of the last record."""
        fetched, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if self.should_stop or not fetched:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        now = time.time()
        for tp, records in fetched.items():
            if self._disturbed(generation):
                return
            if records and (active is None or tp in active or tp in self._buffered_partitions):
                self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
                yield tp, _message(tp, Chunk(records, now), generation)

    def _disturbed(self, generation: int) -> bool:
        """Whether a rebalance has begun since. It ends with a seek to what is committed, so fetched records may go."""
        return not self.flow_active or self.app.consumer_generation_id != generation

    def begin(self, message: Message) -> None:
        """Note that work on the chunk begins; `ack` ends it."""
        self._commits.begin(message.tp, message.offset)
        self._begun[id(message)] = message

    def ack(self, message: Message) -> bool:
        """Note that the chunk is finished: all that it caused is delivered."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        # A chunk that was given up may have been read again since: its own, late acknowledgement says nothing.
        if self._begun.pop(id(message), None) is not None:
            self._commits.finish(message.tp, message.offset)
            self._n_acked += 1
        return True

    async def wait_empty(self) -> None:
        """Before partitions are given up: finish what is in flight or abandon it whole, and commit what is done."""
        await cast("Any", self.app).settle()
        await self.commit_and_end_transactions()
        self._give_up()

    async def perform_seek(self) -> None:
        """Seek every partition to what is committed; whatever was begun beyond it will be read again."""
        self._give_up()
        await super().perform_seek()

    def _give_up(self) -> None:
        self._unacked_messages.clear()
        self._begun.clear()
        self._commits.forget()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._commits.partitions() if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._commits.committable(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets inside a chunk are no gaps: commits follow whole chunks."""


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = ChunkConsumer


def _message(tp: TP, chunk: Chunk, generation: int) -> ConsumerMessage:
    last = chunk.records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000.0,
        0,  # the time its producer gave it
        None,
        None,
        cast("bytes", chunk),  # Faust only hands it on
        None,
        tp=tp,
        generation_id=generation,
    )
