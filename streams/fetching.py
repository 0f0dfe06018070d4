"""Fetching the partitions that a worker holds: librdkafka does it on threads that need no interpreter.

Faust's own client parses every response on a Python thread, which a busy worker's folding and scoring hold up. Group,
assignment and commits stay Faust's; this knows only partitions and where to go on in them.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition
from faust.types import TP

from mmrec_stream.kafka.reader import FOLLOW_WAIT_MS, PASSING, open_reader
from mmrec_stream.settings import Settings
from streams.chunks import Chunk

CHUNK_BYTES = 4 * 1024 * 1024
"""Most bytes of a partition in one answer: a chunk of some 30,000 events. Only a worker that catches up meets it. The
larger its chunks, the fewer profiles it writes twice (a third of those with 1 MiB, at 20,000 users), and beyond this a
chunk would hold the event loop for more than a tenth of a second."""

MAX_RECORDS = 120_000
"""Most records of one fetch: such a chunk of each of four partitions, 50 ms of making columns."""

TAKEN_AT_ONCE = 500
"""Records taken from the client in one call and made columns: so many lie in the processor's nearer cache."""

AHEAD_RECORDS = 16
"""With this many waiting to be taken, no more are asked for. What then comes is asked for at once when they are taken:
under load that is one request a turn, where a request for every few records would cost the broker as much as the
worker. At low load it is never reached, and must not be: a partition that is left out of one request waits until that
is answered."""

AHEAD_KBYTES = 16 * 1024
"""The same bound in memory, for large records."""

log = logging.getLogger(__name__)


class Fetching:
    """Records of the partitions that were resumed, from where `seek` has put them.

    All methods are called from the event loop; only `fetch` waits.
    """

    def __init__(self, settings: Settings) -> None:
        self._consumer = open_reader(
            settings,
            enable_partition_eof=False,
            fetch_wait_max_ms=FOLLOW_WAIT_MS,
            queued_max_messages_kbytes=AHEAD_KBYTES,
            queued_min_messages=AHEAD_RECORDS,
            max_partition_fetch_bytes=CHUNK_BYTES,
        )
        self._thread = ThreadPoolExecutor(1, "fetch")
        self._positions: dict[TP, int] = {}
        """Where each partition goes on that is known, until the next seek."""
        self._fetched: set[TP] = set()
        self._waiting: asyncio.Future[Message | None] | None = None
        self._outdated = False
        """Whether the wait under way began before the last seek: what it brings may lie before or after it."""

    def seek(self, positions: Mapping[TP, int | None]) -> None:
        """Drop what was fetched, and fetch nothing until partitions are resumed.

        Args:
            positions: the next offset to read of every partition that is held; None is its beginning.
        """
        self._positions = {tp: OFFSET_BEGINNING if at is None else at for tp, at in positions.items()}
        self._fetched = set()
        self._consumer.unassign()
        self._outdated = self._waiting is not None

    def resume(self, partitions: Iterable[TP]) -> None:
        """Fetch these too, from where the last seek has put them; those it has not named are left out."""
        fresh = (self._positions.keys() & set(partitions)) - self._fetched
        self._fetched |= fresh
        self._assign(fresh)

    def pause(self, partitions: Iterable[TP]) -> None:
        """Stop fetching these; they go on after the next seek."""
        paused = self._fetched & set(partitions)
        self._fetched -= paused
        for tp in paused:
            del self._positions[tp]
        if paused:
            self._consumer.incremental_unassign([TopicPartition(*tp) for tp in paused])

    async def fetch(self, timeout_s: float) -> list[Chunk]:
        """What has arrived, a chunk a partition; waits up to `timeout_s` for the first record."""
        chunks: dict[tuple[str, int], Chunk] = {}
        if self._waiting is None and not self._take(chunks, MAX_RECORDS):
            loop = asyncio.get_running_loop()
            self._waiting = loop.run_in_executor(self._thread, self._consumer.poll, timeout_s)
        if self._waiting is not None:
            # Whoever is cancelled here leaves the wait to the next call: what it brings must not be lost.
            await asyncio.wait({self._waiting})
            first, self._waiting = self._waiting.result(), None
            if self._outdated:
                self._outdated = False
                self._consumer.unassign()
                self._assign(self._fetched)
            elif first is not None:
                self._sort([first], chunks)
                self._take(chunks, MAX_RECORDS - 1)
        now = time.time()
        for chunk in chunks.values():
            chunk.fetched = now
        return [chunk for place, chunk in chunks.items() if place in self._fetched]

    def close(self) -> None:
        """Leave. Blocks while a wait is under way."""
        self._thread.shutdown()
        self._consumer.close()

    def _assign(self, partitions: set[TP]) -> None:
        if partitions:
            self._consumer.incremental_assign([TopicPartition(*tp, self._positions[tp]) for tp in sorted(partitions)])

    def _take(self, chunks: dict[tuple[str, int], Chunk], count: int) -> int:
        """Add up to `count` records that are there to the chunks; says how many were."""
        taken = 0
        while taken < count:
            messages = self._consumer.consume(min(count - taken, TAKEN_AT_ONCE), 0)
            self._sort(messages, chunks)
            taken += len(messages)
            if len(messages) < TAKEN_AT_ONCE:
                break
        return taken

    def _sort(self, messages: list[Message], chunks: dict[tuple[str, int], Chunk]) -> None:
        """Add records to the chunks, in runs and by functions that loop in C: this sees every one."""
        if any(map(Message.error, messages)):
            messages = [message for message in messages if not self._faulty(message)]
        start = 0
        for place, run in groupby(zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)):
            records = messages[start : (start := start + sum(1 for _ in run))]
            chunk = chunks.get(place) or chunks.setdefault(place, Chunk(*place))
            chunk.offsets += map(Message.offset, records)
            chunk.times_ms += [time_ms for _, time_ms in map(Message.timestamp, records)]
            chunk.keys += map(Message.key, records)
            chunk.values += map(Message.value, records)

    def _faulty(self, message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() not in PASSING:
            log.error("%s[%s] cannot be fetched: %s", message.topic(), message.partition(), error.str())
        return error is not None
