"""Reading changelogs into the rows of ownerships, several at a time; each is told when its own is complete.

Only committed rows are read, to the end as it is after the ownership's writer was opened: nobody else can add to it.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mmrec_stream.kafka.reader import BATCH, PASSING, open_reader
from mmrec_stream.profiles.rows import Restored
from mmrec_stream.settings import Settings
from streams.metrics import Metrics
from streams.ownership import Ownership

AT_ONCE = 4
"""Partitions that are read at a time. One after the other, the broker's answers would be waited for; all at once, the
first would be complete when the last is."""

POLL_S = 0.1
"""How long a poll waits, which is how long it takes to notice a new job or the end. A record ends the wait."""

PROGRESS_S = 2.0
"""How often a long restore says how far it is."""

MISSING_S = 30.0
"""How long brokers may say that there is no such changelog before they are believed: its partitions' leaders move, and
news of that spreads, within seconds."""

RESERVED_ROWS = 1 << 20
"""Most rows that a restore makes room for at once: 1.1 GiB of address space a partition, which becomes memory only
where rows are written. A changelog may have many times more records than users."""

log = logging.getLogger(__name__)


@dataclass
class _Job:
    owner: Ownership
    done: "asyncio.Future[Restored]"
    restored: Restored
    total: int


class Restorer:
    """A thread that reads what it is asked to."""

    def __init__(self, settings: Settings, changelog: str, metrics: Metrics) -> None:
        self._settings = settings
        self._changelog = changelog
        self._metrics = metrics
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._loop = asyncio.get_running_loop()
        self._active: dict[int, _Job] = {}
        self._missing_since = 0.0
        """When (monotonic) the brokers began to say that there is no such topic; 0 while they do not."""
        self._thread = threading.Thread(target=self._run, name="restore", daemon=True)
        self._thread.start()

    async def restore(self, owner: Ownership) -> Restored:
        """Fill the ownership's table up to the end of its changelog; says what became of the records.

        Raises:
            asyncio.CancelledError: the ownership was closed meanwhile.
            KafkaException: the broker refuses to give the changelog out.
            ValueError: the changelog goes back: it was made anew while it was read.
        """
        done: asyncio.Future[Restored] = self._loop.create_future()
        self._jobs.put(_Job(owner, done, Restored(), 0))
        return await done

    def close(self) -> None:
        """End the thread; what is under way is cancelled."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        waiting: list[_Job] = []
        said, began, count = time.monotonic(), 0.0, 0
        with closing(open_reader(self._settings)) as consumer:
            while True:
                try:
                    asked = self._jobs.get(block=not (self._active or waiting))
                    while asked is not None:
                        waiting.append(asked)
                        asked = self._jobs.get_nowait()
                    break
                except queue.Empty:
                    pass
                if not self._active:
                    began, count = time.monotonic(), 0
                self._drop_closed(consumer)
                while waiting and len(self._active) < AT_ONCE:
                    self._begin(consumer, waiting.pop(0))
                count += self._read(consumer)
                if self._active and time.monotonic() - said > PROGRESS_S:
                    said = time.monotonic()
                    names = ", ".join(map(str, sorted(self._active)))
                    log.info(
                        "restoring profiles of partitions %s, %d more to come: %d rows so far (%.0f rows/s)",
                        names,
                        len(waiting),
                        count,
                        count / max(said - began, 1e-9),
                    )
        for job in [*self._active.values(), *waiting]:
            self._tell(job, None)

    def _begin(self, consumer: Consumer, job: _Job) -> None:
        owner = job.owner
        if owner.closed:
            self._tell(job, None)
            return
        place = TopicPartition(self._changelog, owner.partition)
        try:
            low, high = consumer.get_watermark_offsets(place, timeout=5)
        except KafkaException:  # only the size is unknown then
            low = high = 0
        job.total = max(high - max(low, owner.table.position), 0)
        owner.table.rows.reserve(min(job.total, RESERVED_ROWS))
        self._active[owner.partition] = job
        consumer.incremental_assign([TopicPartition(self._changelog, owner.partition, owner.table.position)])

    def _drop_closed(self, consumer: Consumer) -> None:
        for partition, job in list(self._active.items()):
            if job.owner.closed:
                self._end(consumer, partition)
                self._tell(job, None)

    def _read(self, consumer: Consumer) -> int:
        """Take what has arrived; says how many records."""
        first = consumer.poll(POLL_S)
        if first is None:
            return 0
        by_partition: dict[int, list[Message]] = defaultdict(list)
        ended: dict[int, int] = {}
        for message in [first, *consumer.consume(BATCH - 1, 0)]:
            error, partition = message.error(), message.partition()
            if error is None:
                by_partition[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended[partition] = message.offset()
            elif error.code() not in PASSING or self._missing(error):
                for refused in self._active.values():
                    self._tell(refused, KafkaException(error))
                for active in list(self._active):
                    self._end(consumer, active)
                return 0
        if by_partition or ended:
            self._missing_since = 0.0
        count = 0
        for partition, messages in by_partition.items():
            if (job := self._active.get(partition)) is not None:
                keys = [*map(Message.key, messages)]
                values = [*map(Message.value, messages)]
                try:
                    restored = job.owner.table.take([*map(Message.offset, messages)], keys, values)
                except ValueError as error:
                    self._fail(consumer, job, error)
                    ended.pop(partition, None)
                    continue
                for place, reason in restored.examples:
                    log.error("%s[%d]@%d is passed over: %s", self._changelog, partition, place, reason)
                job.restored += restored
                count += len(messages)
        for partition, end in ended.items():
            if (job := self._active.get(partition)) is not None:
                try:
                    job.owner.table.advance(end)
                except ValueError as error:
                    self._fail(consumer, job, error)
                else:
                    self._end(consumer, partition)
                    self._tell(job, job.restored)
        self._metrics.restored.inc(count)
        return count

    def _fail(self, consumer: Consumer, job: _Job, error: ValueError) -> None:
        """The changelog is not the one that the rows came from: warm ones are forgotten, others cannot be restored."""
        partition = job.owner.partition
        self._end(consumer, partition)
        if not job.owner.warm:
            self._tell(job, error)
            return
        log.warning("%s[%d] is read from its beginning: %s", self._changelog, partition, error)
        job.owner.begin_anew()
        job.restored = Restored()
        self._begin(consumer, job)

    def _missing(self, error: KafkaError) -> bool:
        """Whether the changelog is gone: a topic that has just been made is known everywhere within seconds."""
        if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            return False
        self._missing_since = self._missing_since or time.monotonic()
        return time.monotonic() - self._missing_since > MISSING_S

    def _end(self, consumer: Consumer, partition: int) -> None:
        del self._active[partition]
        consumer.incremental_unassign([TopicPartition(self._changelog, partition)])

    def _tell(self, job: _Job, outcome: Restored | KafkaException | ValueError | None) -> None:
        def tell() -> None:
            if job.done.done():
                return
            if outcome is None:
                job.done.cancel()
            elif isinstance(outcome, KafkaException | ValueError):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

        self._loop.call_soon_threadsafe(tell)
