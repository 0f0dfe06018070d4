"""Partitions kept warm: rows read from changelogs that others write, so that taking one over reads its tail only.

A replica is nobody's but this module's until it is taken. Taking it moves its rows out: whatever the follower still has
in hand for it finds nothing to change.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from mmrec_stream.kafka.reader import FOLLOW_WAIT_MS, PASSING, open_reader
from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.settings import Settings
from streams.placement import kept_by

LOOK_S = 1.0
"""How often what to keep is chosen anew: a change of the group finds the replicas that were chosen before it."""

KEEP_S = 60.0
"""How long a partition stays warm that is not to be kept any more: one that was just handed over often comes back, and
in a rebalance the choice changes more than once."""

STALE_S = 3600.0
"""A replica that has not been at the end of its changelog for this long is not taken over. Kafka keeps tombstones for
a day (`delete.retention.ms`): whoever has not read on for longer may know users who were forgotten."""

WARM_UP_S = 120.0
"""How long a worker that starts may read before it joins all the same: 24 million rows."""

BATCH = 500
"""Most records taken at a time: 1 ms, for which the event loop may wait."""

PAUSE_S = 0.005
"""Between two batches, while partitions are served: at most 80,000 rows a second, which leaves the processor to
folding."""

POLL_S = 0.1
"""How long a poll waits, which is how long stopping takes."""

ROW_BYTES = 1_331
"""Memory of a profile: record, id and index, as measured."""

log = logging.getLogger(__name__)


class Replica:
    """Rows of one partition that somebody else owns, up to where its changelog has been read."""

    def __init__(self, table: PartitionRows, *, complete: bool = False) -> None:
        """Rows to go on with; `complete` if they have been at the end of the changelog just now."""
        self._table: PartitionRows | None = table
        self._lock = threading.Lock()
        self._fresh = time.monotonic()
        self.position = table.position
        """The next offset to read."""
        self.rows = len(table.rows)
        self.behind = 0
        """Records that are known to wait."""
        self.complete = complete
        """Whether the end was ever reached."""

    def take(
        self, offsets: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None], end: int
    ) -> None:
        """Take records, as `PartitionRows.take`; nothing happens once the rows are surrendered.

        Args:
            offsets: ascending.
            keys: of the same length.
            values: of the same length.
            end: where the changelog ends, as far as it is known.

        Raises:
            ValueError: the changelog is another than the one that was read.
        """
        with self._lock:
            if self._table is not None:
                self._table.take(offsets, keys, values)
                self._look(self._table, end)

    def reach(self, end: int) -> None:
        """The changelog has been read up to its present end.

        Raises:
            ValueError: it ends before what was read of it.
        """
        with self._lock:
            if self._table is not None:
                self._table.advance(end)
                self._look(self._table, end)
                self.complete = True
                self._fresh = time.monotonic()

    def surrender(self) -> PartitionRows | None:
        """Give the rows away, once; None if they are gone, or too old to go on from."""
        with self._lock:
            table, self._table = self._table, None
            return table if time.monotonic() - self._fresh < STALE_S else None

    def _look(self, table: PartitionRows, end: int) -> None:
        self.position, self.rows = table.position, len(table.rows)
        self.behind = max(end - table.position, 0)


class Standbys:
    """The replicas of one worker, and the thread that reads them. All methods are called from the event loop."""

    def __init__(self, settings: Settings, changelog: str) -> None:
        self._settings = settings
        self._changelog = changelog
        self._lock = threading.Lock()
        self._replicas: dict[int, Replica] = {}
        self._wanted: list[int] = []
        self._unwanted_since: dict[int, float] = {}
        self._owned: set[int] = set()
        self._too_large: dict[int, int] = {}
        """Rows of partitions that there was no memory for."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._told: list[int] | None = None
        if settings.standbys:
            self._thread = threading.Thread(target=self._run, name="standby", daemon=True)
            self._thread.start()

    @property
    def partitions(self) -> list[int]:
        """What is kept warm or becomes so."""
        return sorted(self._replicas)

    @property
    def rows(self) -> int:
        """Profiles in all replicas."""
        return sum(replica.rows for replica in list(self._replicas.values()))

    @property
    def behind(self) -> int:
        """Changelog records that are not read yet, of all replicas."""
        return sum(replica.behind for replica in list(self._replicas.values()))

    def take(self, partition: int) -> PartitionRows:
        """The rows to begin an ownership with: a replica's, which is none from here on, or none at all."""
        with self._lock:
            self._owned.add(partition)
            replica = self._replicas.pop(partition, None)
        return (replica.surrender() if replica is not None else None) or PartitionRows()

    def give(self, partition: int, table: PartitionRows | None) -> None:
        """An ownership has ended; its rows, if they are what the changelog says, are kept for a while."""
        with self._lock:
            self._owned.discard(partition)
            if table is not None and self._thread is not None:
                self._replicas[partition] = Replica(table, complete=True)
                self._unwanted_since[partition] = time.monotonic()
                self._make_room()

    def want(self, partitions: Sequence[int]) -> None:
        """Keep these warm, the most wanted first; others for `KEEP_S` more."""
        now = time.monotonic()
        with self._lock:
            self._wanted = [partition for partition in partitions if partition not in self._owned]
            wanted = set(self._wanted)
            for partition in list(self._replicas):
                if partition in wanted:
                    self._unwanted_since.pop(partition, None)
                elif now - self._unwanted_since.setdefault(partition, now) > KEEP_S:
                    self._drop(partition)
            for partition in self._wanted:
                if partition not in self._replicas and self._fits(partition):
                    self._replicas[partition] = Replica(PartitionRows())

    async def warm_up(self, ended: Callable[[], bool]) -> None:
        """Before joining: read what may become ours, while others serve it.

        That is everything, as far as there is memory: which share it will be depends on an id that the group chooses. A
        worker with a name joins at once, as the group keeps its partitions for it and nobody serves them meanwhile.

        Args:
            ended: whether the worker is to stop.
        """
        if self._thread is None or self._settings.worker_name:
            return
        began = time.monotonic()
        self.want(range(self._settings.partitions))
        while not (ended() or self._complete()) and time.monotonic() - began < WARM_UP_S:
            await asyncio.sleep(POLL_S / 2)
        took = time.monotonic() - began
        log.info("%d partitions warm after %.1f s, %d profiles: joining", len(self.partitions), took, self.rows)

    async def run(self) -> None:
        """Keep warm what follows from the present share, until cancelled."""
        while self._thread is not None:
            await asyncio.sleep(LOOK_S)
            kept = kept_by(self._owned, self._settings.partitions, self._settings.standbys)
            if kept is None:  # a rebalance, or nothing is held: what is warm stays so
                continue
            self.want(kept)
            if self.partitions != self._told:
                self._told = self.partitions
                log.info("keeping partitions %s warm", ", ".join(map(str, self._told)) or "none")

    async def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _complete(self) -> bool:
        with self._lock:
            return all(replica.complete for replica in self._replicas.values())

    def _fits(self, partition: int) -> bool:
        rows = self.rows + self._too_large.get(partition, 0)
        return rows * ROW_BYTES <= self._settings.standbys_mb * 1e6

    def _make_room(self) -> None:
        """Drop the least wanted replicas for as long as all are too large."""
        while self._replicas and self.rows * ROW_BYTES > self._settings.standbys_mb * 1e6:
            order = [*self._wanted, *(one for one in self._replicas if one not in self._wanted)]
            last = next(one for one in reversed(order) if one in self._replicas)
            self._too_large[last] = self._replicas[last].rows
            log.warning("partition %d is not kept warm: MMREC_STANDBYS_MB=%g", last, self._settings.standbys_mb)
            self._drop(last)

    def _drop(self, partition: int) -> None:
        self._replicas.pop(partition).surrender()
        self._unwanted_since.pop(partition, None)

    def _run(self) -> None:
        followed: dict[int, Replica] = {}
        with closing(open_reader(self._settings, fetch_wait_max_ms=FOLLOW_WAIT_MS)) as consumer:
            while not self._stop.is_set():
                self._assign(consumer, followed)
                first = consumer.poll(POLL_S)
                if first is None:
                    continue
                self._sort(consumer, [first, *consumer.consume(BATCH - 1, 0)], followed)
                if self._owned:
                    self._stop.wait(PAUSE_S)

    def _assign(self, consumer: Consumer, followed: dict[int, Replica]) -> None:
        """Follow what is kept now."""
        with self._lock:
            self._make_room()
            kept = dict(self._replicas)
        for partition in [one for one, replica in followed.items() if kept.get(one) is not replica]:
            del followed[partition]
            consumer.incremental_unassign([TopicPartition(self._changelog, partition)])
        for partition in kept.keys() - followed.keys():
            followed[partition] = kept[partition]
            consumer.incremental_assign([TopicPartition(self._changelog, partition, kept[partition].position)])

    def _sort(self, consumer: Consumer, messages: Sequence[Message], followed: dict[int, Replica]) -> None:
        by_partition: dict[int, list[Message]] = defaultdict(list)
        ended: dict[int, int] = {}
        for message in messages:
            error, partition = message.error(), message.partition()
            if error is None:
                by_partition[partition].append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended[partition] = message.offset()
            elif error.code() not in PASSING:
                log.warning("%s: %s", self._changelog, error.str())
        for partition in by_partition.keys() | ended.keys():
            replica, records = followed.get(partition), by_partition.get(partition, [])
            if replica is None:
                continue
            end = consumer.get_watermark_offsets(TopicPartition(self._changelog, partition), cached=True)[1]
            try:
                replica.take(
                    [*map(Message.offset, records)], [*map(Message.key, records)], [*map(Message.value, records)], end
                )
                if ended.get(partition, -1) >= replica.position:  # else more has come since
                    replica.reach(ended[partition])
            except ValueError as error:
                log.warning("%s[%d] is read from its beginning: %s", self._changelog, partition, error)
                self._begin_anew(partition, replica)

    def _begin_anew(self, partition: int, gone: Replica) -> None:
        with self._lock:
            gone.surrender()
            if self._replicas.get(partition) is gone:
                self._replicas[partition] = Replica(PartitionRows())
