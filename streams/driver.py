"""Faust's transport on our own client: a stream's message carries a `Chunk`, all records that had arrived.

A stock worker handles one record at a time and spends 100 µs on each, gives up everything at each rebalance, and reads
changelogs record by record. Here Faust keeps the app, the agents and the table; what a partition's records mean, and
until when, is the assignment's business, which the messages carry with them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast
from weakref import WeakSet

from faust.tables.manager import TableManager
from faust.topics import Topic
from faust.transport import base
from faust.transport.producer import Producer
from faust.types import TP, ConsumerMessage, EventT, Message
from mode import Service

from streams.chunks import Chunk
from streams.group import GroupClient, GroupError
from streams.worker import Worker

WAIT_S = 0.25
"""How long a fetch waits before it looks whether the worker is to stop. Records end the wait at once."""

PIECE = 2_000
"""Most impressions that are taken at a time: 5 ms, for which a click that comes meanwhile waits."""

PIECES_AHEAD = 64
"""Pieces of impressions that wait at which their fetching pauses, and goes on at half of it."""

MODE_LOG = logging.getLogger("mode.stream")
"""Where services of ours let their start and stop be logged: beside Faust's own, not among what we have to say."""


class ChunkTopic(Topic):
    """A topic whose messages are chunks: there is nothing for Faust to decode."""

    def _compile_decode(self) -> None:
        """Keep `decode` below, which Faust would replace by one that calls serialisers."""

    async def decode(self, message: Message, *, propagate: bool = False) -> EventT[Any]:
        """The message as an event, its value as it is."""
        return self._create_event(None, message.value, headers=None, message=message)


class ChunkConsumer(Service):
    """What Faust needs of a consumer: it fetches, and hands chunks to the streams until it is stopped."""

    logger = MODE_LOG

    def __init__(self, transport: Any, callback: Callable[[Message], Awaitable[None]], **kwargs: Any) -> None:
        super().__init__(loop=kwargs.get("loop"), beacon=kwargs["beacon"])
        self._app = cast("Worker", transport.app)
        self._callback = callback
        self._unacked_messages: WeakSet[Message] = WeakSet()
        """Where streams note what they have taken; the ownerships know better."""
        self._untaken = 0
        self._all_taken = asyncio.Event()
        self._all_taken.set()
        self._subscribed = asyncio.Event()
        self._client: GroupClient
        self._postponed: deque[Chunk] = deque()
        self._paused: set[TP] = set()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group. Faust calls it when agents and tables are there."""
        if self._app.failure is not None:
            return
        topics, app = list(topics), cast("Any", self._app)
        await app.topics.on_partitions_assigned(
            {TP(topic, number) for topic in topics for number in range(self._app.settings.partitions)}
        )
        app.flow_control.resume()
        self._client = await self._app.join(topics)
        self._subscribed.set()

    @Service.task
    async def _drain(self) -> None:
        """Hand chunks to the streams, and fetch again when all are taken.

        What comes meanwhile waits in librdkafka and makes the next chunks larger: that is what a worker under load
        lives by. Impressions wait until everything else is taken.
        """
        await self._subscribed.wait()
        while not self.should_stop:
            wait_s = 0.0 if self._postponed else WAIT_S
            try:
                chunks = await self._client.fetch(wait_s)
            except GroupError as error:
                self._app.fail(str(error))
                return
            for chunk in chunks:
                if chunk.topic == self._app.topic_names.feedback:
                    self._postponed += chunk.pieces(PIECE)
                else:
                    await self._hand_over(chunk)
            if self._postponed:
                await self._hand_over(self._postponed.popleft())
            self._pace_impressions()
            await self._all_taken.wait()
            await self._app.pace()

    async def _hand_over(self, chunk: Chunk) -> None:
        if chunk.owner.closed:
            return
        self._untaken += 1
        self._all_taken.clear()
        await self._callback(_message(chunk))

    def begin(self) -> bool:
        """Note that work on a chunk begins; says whether more chunks of its fetch are to come."""
        self._untaken -= 1
        if not self._untaken:
            self._all_taken.set()
        return self._untaken > 0

    def assignment(self) -> set[TP]:
        """For Faust's own looks: nothing that it would have to give up."""
        return set()

    def on_buffer_full(self, tp: TP) -> None:
        """Streams hold one fetch at most."""

    def on_buffer_drop(self, tp: TP) -> None:
        """As `on_buffer_full`."""

    async def on_task_error(self, error: BaseException) -> None:
        """Commits follow from what is confirmed, not from what was tried."""

    async def commit(self, topics: Any = None) -> bool:
        """As `on_task_error`."""
        return False

    def _pace_impressions(self) -> None:
        if len(self._postponed) > PIECES_AHEAD and not self._paused:
            self._paused = {TP(chunk.topic, chunk.partition) for chunk in self._postponed}
            self._client.pause(self._paused)
        elif self._paused and len(self._postponed) <= PIECES_AHEAD // 2:
            # Of those that are served: one that has come in meanwhile waits for its restore.
            self._client.resume({tp for tp in self._paused if tp.partition in self._app.assignment.owners.serving})
            self._paused = set()


class SilentProducer(Producer):
    """Faust wants a producer, and has nothing to send: what the worker sends, its outbox and its writers send."""

    logger = MODE_LOG


class ChunkTransport(base.Transport):
    """Faust's transport with the consumer above."""

    Consumer = cast("Any", ChunkConsumer)
    Producer = SilentProducer
    default_port = 9092
    driver_version = "librdkafka"


class ProfileTableManager(TableManager):
    """Faust's table manager without its recovery: the assignment restores partitions, each when it comes in."""

    logger = MODE_LOG

    async def on_start(self) -> None:
        """Open the tables; all are declared when the app is made."""
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    async def on_stop(self) -> None:
        """Close them."""
        for table in self.values():
            await table.stop()


def _message(chunk: Chunk) -> ConsumerMessage:
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
        generation_id=0,  # Faust's own, which never moves: whose a chunk is, it says itself
    )
