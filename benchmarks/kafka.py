"""The broker of a benchmark run and what is read from it: topics, loading, committed offsets, append times."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.events import Message
from benchmarks.processes import System
from mmrec_stream.errors import UserError


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    bootstrap: str
    name: str
    kafka_home: Path | None = None
    """Apache Kafka's folder, where the broker is one of ours and its jars can serve a Java peer too."""


@contextlib.contextmanager
def running_broker() -> Iterator[Broker]:
    """A broker for one benchmark: Apache Kafka from KAFKA_HOME with its data in a temporary folder.

    Every topic takes the broker's time of appending as record timestamp, so that systems are timed by one clock that
    none of them holds.
    """
    home = os.environ.get("KAFKA_HOME")
    if not home:
        raise UserError("benchmarks are measured on Apache Kafka: set KAFKA_HOME to a folder with its libs/")
    with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        process, port = _start_kafka(Path(home), Path(folder))
        try:
            yield Broker(f"127.0.0.1:{port}", "Apache Kafka", Path(home))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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

    def load(self, topic: str, messages: Iterable[Message]) -> int:
        """Produce `messages` to the partitions they name; returns how many, once all are delivered."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "log_level": 0,
                # Large batches: loading is not what is measured, and consumers get the broker's usual fetch sizes.
                "linger.ms": 50,
                "batch.size": 500_000,
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

    def last_appended(self, topic: str) -> int | None:
        """When the broker appended the newest record of a topic, ms; None while there is none."""
        return max(self._times(topic), default=None)

    def size(self, topic: str) -> int:
        """The sum of the end offsets of a topic's partitions."""
        reader = self._reader()
        places = [TopicPartition(topic, partition) for partition in range(self.partitions(topic))]
        return sum(end[1] for end in (reader.get_watermark_offsets(place, timeout=10) for place in places) if end)

    def _times(self, topic: str) -> list[int]:
        """Append times of the newest record of each partition that has one."""
        times: list[int] = []
        reader = self._reader()
        for partition in range(self.partitions(topic)):
            low, high = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10) or (0, 0)
            if high > low:
                reader.assign([TopicPartition(topic, partition, high - 1)])
                record = reader.poll(10)
                if record is not None and record.error() is None:
                    times.append(record.timestamp()[1])
        reader.unassign()
        return times

    def _reader(self, group: str = "mmrec-bench-reader") -> Consumer:
        """A consumer that is kept, and that never joins its group."""
        if group not in self._readers:
            self._readers[group] = Consumer(
                {
                    "bootstrap.servers": self.bootstrap,
                    "group.id": group,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
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


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _start_kafka(home: Path, folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    java = shutil.which("java")
    if java is None or not (home / "libs").is_dir():
        raise UserError(f"KAFKA_HOME={home}: needs a libs/ folder with Apache Kafka's jars, and java on the PATH")
    port, controller = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(
        f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n"
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
        f"log.dirs={folder / 'log'}\noffsets.topic.num.partitions=4\noffsets.topic.replication.factor=1\n"
        "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        "group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n"
        "log.message.timestamp.type=LogAppendTime\n"
        # Quoted figures must not depend on when the cleaner happens to run.
        "log.cleaner.enable=false\n"
    )
    command = [java, "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{home / 'libs'}/*"]
    subprocess.run(
        [*command, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAA", "-c", str(properties)],
        check=True,
        capture_output=True,
    )
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen([*command, "kafka.Kafka", str(properties)], stdout=log, stderr=log, cwd=folder)
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if admin.list_topics(timeout=2).brokers:
                return process, port
        except KafkaException:
            time.sleep(0.1)
    process.kill()
    raise UserError(f"Apache Kafka did not start: {(folder / 'broker.log').read_text()[-400:]}")
