"""Faust's Kafka transport, with one difference: what a fetch brought of a partition arrives as one message.

A stock worker handles one record at a time and spends 100 µs on each. Here a stream's message carries a `Chunk`, all
records that had arrived. Membership, assignment and committing stay Faust's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, cast

from aiokafka.consumer import consumer as client
from aiokafka.consumer import fetcher
from faust.topics import Topic
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage, EventT, Message
from mode.types import ServiceT

from streams.chunks import Chunk
from streams.commits import CommitTracker
from streams.fetching import Fetching

WAIT_S = 0.25
"""How long a fetch waits before it looks whether the worker is to stop. Records end the wait at once."""

MODE_LOG = logging.getLogger("mode.stream")
"""Where services of ours let their start and stop be logged: beside Faust's own, not among what we have to say."""


class _Unfetching(fetcher.Fetcher):  # type: ignore[misc]
    """The group's client fetches nothing: `streams.fetching` does."""

    async def _fetch_requests_routine(self) -> None:
        await asyncio.Event().wait()  # until it is closed


# The client makes its fetcher by name when it starts; a worker has no other.
client.Fetcher = _Unfetching


class ChunkTopic(Topic):
    """A topic whose messages are chunks: there is nothing for Faust to decode."""

    def _compile_decode(self) -> None:
        """Keep `decode` below, which Faust would replace by one that calls serialisers."""

    async def decode(self, message: Message, *, propagate: bool = False) -> EventT[Any]:
        """The message as an event, its value as it is."""
        return self._create_event(None, message.value, headers=None, message=message)


class _Thread(driver.AIOKafkaConsumerThread):
    """The group's client on its thread: heartbeats, assignment, commits."""

    logger = MODE_LOG

    def note_fetch(self) -> None:
        """Tell the client that records are being asked for: it leaves the group when none are for long."""
        with self._ensure_consumer()._subscription.fetch_context():
            pass

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust looks here whether its client fetches. Ours tells of its troubles itself."""


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, a partition's records in one message, and commits that follow whole chunks."""

    logger = MODE_LOG

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commits: CommitTracker[TP] = CommitTracker()
        self._begun: dict[int, Message] = {}
        self._untaken = 0
        self._all_taken = asyncio.Event()
        self._all_taken.set()

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        """Open the client that fetches."""
        self.fetching = Fetching(cast("Any", self.app).settings)
        await super().on_start()

    async def on_stop(self) -> None:
        """Commit what is done, and leave."""
        await super().on_stop()
        await asyncio.to_thread(self.fetching.close)

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Hand chunks to the streams until stopped, and fetch again when all are taken.

        What comes meanwhile waits in librdkafka and makes the next chunks larger: that is what a worker under load
        lives by. Faust's own drain fetches ahead, and makes four tasks of every message.
        """
        stopped, fetcher_stopped = self._stopped.is_set, cast("Any", fetcher)._stopped.is_set
        while not (stopped() or fetcher_stopped()):
            async for _, message in self.getmany(WAIT_S):
                await self.callback(message)
            await self._all_taken.wait()
            await cast("Any", self.app).pace()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 # Faust's signature
        """Fetch what is there: one message a partition, its value a `Chunk`, its offset that of the last record.

        What a rebalance disturbs is dropped: it ends with a seek to what is committed.
        """
        if not self.flow_active:
            await self.wait(cast("Any", self.can_resume_flow))
        generation = self.app.consumer_generation_id
        cast("_Thread", self._thread).note_fetch()
        for chunk in await self.fetching.fetch(timeout):
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            self._untaken += 1
            self._all_taken.clear()
            message = _message(chunk, generation)
            yield message.tp, message

    def begin(self, message: Message) -> bool:
        """Note that work on the chunk begins; `ack` ends it. Says whether more chunks of its fetch are to come."""
        self._commits.begin(message.tp, message.offset)
        self._begun[id(message)] = message
        self._untaken -= 1
        if not self._untaken:
            self._all_taken.set()
        return self._untaken > 0

    def ack(self, message: Message) -> bool:
        """Note that the chunk is finished: all that it caused is delivered."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        # A chunk that was given up may have been read again since: its own, late acknowledgement says nothing.
        if self._begun.pop(id(message), None) is not None:
            self._commits.finish(message.tp, message.offset)
        return True

    async def wait_empty(self) -> None:
        """Before partitions are given up: finish what is in flight or abandon it whole, and commit what is done."""
        await cast("Any", self.app).settle()
        await self.commit_and_end_transactions()
        self._give_up()

    async def perform_seek(self) -> None:
        """Put every partition to what is committed, and to its beginning where nothing is; nothing is fetched yet.

        Whatever was begun beyond that will be read again.
        """
        self._give_up()
        committed = await self.seek_to_committed()
        changelog = cast("Any", self.app).changelog  # it is never fetched here, nor committed
        self.fetching.seek({tp: offset or None for tp, offset in committed.items() if tp.topic != changelog})

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch these partitions, from where the last seek has put them."""
        super().resume_partitions(tps)
        self.fetching.resume(tps)

    def pause_partitions(self, tps: Iterable[TP]) -> None:
        """Stop fetching these partitions until a seek."""
        super().pause_partitions(tps)
        self.fetching.pause(tps)

    def _give_up(self) -> None:
        self._unacked_messages.clear()
        self._begun.clear()
        self._commits.forget()
        self._untaken = 0
        self._all_taken.set()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in self._commits.partitions() if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._commits.committable(tp)


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = ChunkConsumer


def _message(chunk: Chunk, generation: int) -> ConsumerMessage:
    return ConsumerMessage(
        chunk.topic,
        chunk.partition,
        chunk.offsets[-1],
        chunk.times_ms[-1] / 1000.0,
        0,  # the time its producer gave it
        None,
        None,
        cast("bytes", chunk),  # Faust only hands it on
        None,
        tp=TP(chunk.topic, chunk.partition),
        generation_id=generation,
    )
