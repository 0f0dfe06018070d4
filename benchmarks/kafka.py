"""The broker of a benchmark run and what is read from it: topics, loading, committed offsets, append times."""

import contextlib
import time
from collections.abc import Iterable, Iterator

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.events import Message
from benchmarks.processes import System
from benchmarks.results import console
from mmrec_stream.brokers import choose_broker
from mmrec_stream.brokers.apache import apache_kafka, kafka_home, why_no_kafka
from mmrec_stream.brokers.base import Broker
from mmrec_stream.brokers.embedded import EmbeddedBroker, embedded, why_no_embedded
from mmrec_stream.errors import UserError

SESSION_S = 6.0
"""After how long without a heartbeat the group gives a worker up, on the brokers that are started here: Kafka's lower
bound for the classic protocol."""

EMBEDDED = "mmrec, embedded broker"
"""What figures of ours on the embedded broker are shown as, beside the rest: it is for trying things out."""


@contextlib.contextmanager
def running_broker() -> Iterator[Broker]:
    """A broker for one benchmark: Apache Kafka where KAFKA_HOME names it, else the embedded one.

    Every topic of Apache Kafka takes the broker's time of appending as record timestamp, so that systems are timed by
    one clock that none of them holds; on the embedded broker it is the producer's, on the same machine.
    """
    # Without the cleaner, quoted figures do not depend on when it happens to run.
    properties = {"log.message.timestamp.type": "LogAppendTime", "log.cleaner.enable": "false"}
    if kafka_home() is None:
        console.print(f"embedded broker, as {why_no_kafka()}: these figures are not for quoting", style="yellow")
    with choose_broker() if kafka_home() is None else apache_kafka(properties=properties) as broker:
        yield broker


@contextlib.contextmanager
def embedded_beside(broker: Broker) -> Iterator[Broker | None]:
    """The embedded broker, to show beside figures taken on Kafka; None where they are its own, or it is missing."""
    if isinstance(broker, EmbeddedBroker) or why_no_embedded():
        yield None
    else:
        with embedded() as other:
            yield other


class Cluster:
    """What benchmarks ask a broker."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._readers: dict[str, Consumer] = {}

    def create(self, topic: str, partitions: int, config: dict[str, str] | None = None) -> None:
        """Create a topic.

        Raises:
            KafkaException: it exists, or the broker refuses.
        """
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30)

    def delete(self, *topics: str) -> None:
        """Delete topics; their records stop taking memory and disk."""
        for future in self.admin.delete_topics(list(topics)).values():
            future.result(30)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 where there is none."""
        metadata = self.admin.list_topics(topic, timeout=30).topics.get(topic)
        return len(metadata.partitions) if metadata and not metadata.error else 0

    def load(self, topic: str, messages: Iterable[Message], *, compression: str = "none") -> int:
        """Produce `messages` to the partitions they name; returns how many, once all are delivered."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                # Large batches: loading is not what is measured, and consumers get the broker's usual fetch sizes.
                "linger.ms": 50,
                "batch.size": 500_000,
                "compression.type": compression,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        count = 0
        for message in messages:
            while True:
                try:
                    producer.produce(topic, message.value, message.key, message.partition)
                    break
                except BufferError:
                    producer.poll(0.1)
            count += 1
            if count % 10_000 == 0:
                producer.poll(0)
        if left := producer.flush(120):
            raise UserError(f"the broker took only {count - left} of {count} events within 120 s")
        return count

    def committed(self, group: str, topic: str) -> int:
        """The sum of a group's committed offsets over a topic's partitions; 0 while the group is unknown."""
        reader = self._reader(group)
        asked = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        try:
            return sum(max(0, place.offset) for place in reader.committed(asked, timeout=5))
        except KafkaException:
            return 0

    def first_appended(self, topic: str) -> int | None:
        """When the broker appended the earliest record of a topic, ms; None while there is none."""
        return min(self._times(topic, newest=False), default=None)

    def last_appended(self, topic: str) -> int | None:
        """When the broker appended the newest record of a topic, ms; None while there is none."""
        return max(self._times(topic, newest=True), default=None)

    def size(self, topic: str) -> int:
        """The sum of the end offsets of a topic's partitions, transactions' markers among them."""
        reader = self._reader()
        places = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        return sum(end[1] for end in (reader.get_watermark_offsets(place, timeout=10) for place in places) if end)

    def _times(self, topic: str, *, newest: bool) -> list[int]:
        """Append times of the newest or earliest record of each partition that has one."""
        times: list[int] = []
        reader = self._reader()
        for partition in range(self.partitions(topic)):
            low, high = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10) or (0, 0)
            back, found = 1, None
            # The last offsets of a transactional writer are its commit markers: look ever further back for a record.
            while found is None and high > low:
                start = max(low, high - back) if newest else low
                found = self._time_from(TopicPartition(topic, partition, start), last=newest)
                if start == low:
                    break
                back *= 4
            if found is not None:
                times.append(found)
        reader.unassign()
        return times

    def _time_from(self, place: TopicPartition, *, last: bool) -> int | None:
        """Append time of the first or last record from a place on; None without one."""
        reader, found = self._reader(), None
        reader.assign([place])
        while (record := reader.poll(10)) is not None:
            if record.error() is not None:  # the partition's end
                break
            found = record.timestamp()[1]
            if not last:
                break
        return found

    def _reader(self, group: str = "mmrec-bench-reader") -> Consumer:
        """A consumer that is kept, and that never joins its group."""
        if group not in self._readers:
            self._readers[group] = Consumer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "group.id": group,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "enable.partition.eof": True,
                    "log_level": 0,
                }
            )
        return self._readers[group]


def wait_committed(cluster: Cluster, group: str, topic: str, count: int, system: System, *, timeout: float) -> None:
    """Wait until a group has committed `count` offsets of a topic.

    Raises:
        RuntimeError: the system ended, or `timeout` seconds passed.
    """
    deadline = time.monotonic() + timeout
    while (done := cluster.committed(group, topic)) < count:
        if not system.alive() or time.monotonic() > deadline:
            raise system.failure(f"{done} of {count} events committed within {timeout:.0f} s")
        time.sleep(0.2)
