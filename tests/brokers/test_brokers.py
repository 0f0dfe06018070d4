"""Brokers start, keep or lose their data, crash and come back as each one promises."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from mmrec_stream.brokers import (
    ApacheKafka,
    Broker,
    apache_cluster,
    apache_kafka,
    choose_broker,
    embedded,
    free_port,
    why_no_embedded,
    why_no_kafka,
)
from mmrec_stream.brokers.apache import kafka_version
from mmrec_stream.brokers.base import answers
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec

needs_embedded = pytest.mark.skipif(why_no_embedded() is not None, reason=str(why_no_embedded()))
needs_kafka = pytest.mark.skipif(why_no_kafka() is not None, reason=str(why_no_kafka()))

EVERY_BROKER = [
    pytest.param(embedded, id="embedded", marks=[pytest.mark.broker, needs_embedded]),
    pytest.param(apache_kafka, id="kafka", marks=[pytest.mark.kafka, needs_kafka]),
]


@pytest.mark.parametrize("make", EVERY_BROKER)
def test_it_starts_on_loopback_alone_and_leaves_nothing(make: Callable[[], Broker]) -> None:
    with make() as broker:
        assert broker.bootstrap == f"127.0.0.1:{broker.port}"
        assert list(Cluster(at(broker)).brokers().values()) == [broker.bootstrap]
        assert listeners(broker) <= {"127.0.0.1"}
    assert not answers(broker.bootstrap, 0.2)
    assert not broker.data.exists()


@pytest.mark.parametrize("make", EVERY_BROKER)
def test_a_crash_and_a_restart_keep_what_the_broker_promises(make: Callable[[], Broker]) -> None:
    with make() as broker:
        Cluster(at(broker)).create([TopicSpec("kept", "user id", 2, 1)])
        broker.kill()
        assert not broker.running
        broker.start()
        assert ("kept" in Cluster(at(broker)).partitions()) == broker.keeps_data
        broker.restart()
        assert ("kept" in Cluster(at(broker)).partitions()) == broker.keeps_data


@needs_kafka
@pytest.mark.kafka
def test_extra_properties_win_and_a_given_folder_keeps_the_data(tmp_path: Path) -> None:
    with apache_kafka(data=tmp_path / "data", properties={"auto.create.topics.enable": "true"}) as first:
        producer = Producer({"bootstrap.servers": first.bootstrap})
        producer.produce("made-on-the-fly", b"x")
        assert producer.flush(30) == 0
    with apache_kafka(data=tmp_path / "data") as second:
        assert second.port != first.port
        assert "made-on-the-fly" in Cluster(at(second)).partitions()


@needs_kafka
@pytest.mark.kafka
def test_a_failed_start_shows_the_end_of_the_log() -> None:
    broker = apache_kafka(properties={"node.id": "not-a-number"})
    with pytest.raises(UserError, match=r"not-a-number"):
        broker.start()
    broker.close()


@needs_kafka
@pytest.mark.kafka
@pytest.mark.slow
def test_a_cluster_of_three_takes_records_while_one_is_gone() -> None:
    with apache_cluster(3) as cluster:
        first, *others = cluster.nodes
        known = Cluster(Settings(_env_file=None, bootstrap=cluster.bootstrap))  # type: ignore[call-arg]
        assert set(known.brokers().values()) == {node.bootstrap for node in cluster.nodes}
        known.create([TopicSpec("kept", "user id", 6, cluster.replication)])
        first.kill()
        producer = Producer({"bootstrap.servers": ",".join(node.bootstrap for node in others), "acks": "all"})
        for partition in range(6):
            producer.produce("kept", b"x", partition=partition)
        assert producer.flush(60) == 0
        first.start()
        assert read_all(first.bootstrap, "kept") == 6
    assert not any(node.data.exists() for node in cluster.nodes)


@needs_kafka
@pytest.mark.kafka
def test_a_door_tells_its_clients_another_address() -> None:
    with apache_cluster(1, doors=["SIDE"]) as cluster:
        door = cluster.nodes[0].doors["SIDE"]
        inside = Settings(_env_file=None, bootstrap=f"127.0.0.1:{door.listens}")  # type: ignore[call-arg]
        assert list(Cluster(inside).brokers().values()) == [f"127.0.0.1:{door.advertises}"]
        assert list(Cluster(at(cluster.nodes[0])).brokers().values()) == [cluster.bootstrap]


@pytest.mark.parametrize("make", EVERY_BROKER)
def test_a_taken_port_is_reported(make: Callable[..., Broker]) -> None:
    with embedded() as first, pytest.raises(UserError, match=f"port {first.port} on 127.0.0.1 is in use"):
        make(port=first.port).start()


@needs_embedded
@pytest.mark.broker
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_it_dies_with_its_parent() -> None:
    code = """
import sys
from mmrec_stream.brokers import embedded
print(embedded().start().bootstrap, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    bootstrap = parent.stdout.readline().strip()
    assert answers(bootstrap)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    host, port = bootstrap.split(":")
    while socket.socket().connect_ex((host, int(port))) == 0:  # the test's time limit ends a broker that stays
        pass


def test_homes_without_kafka_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_kafka(tmp_path) == f"KAFKA_HOME={tmp_path} has no libs/ with Kafka's jars"
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    with pytest.raises(UserError, match="KAFKA_HOME is not set"):
        choose_broker("kafka")


def test_a_home_without_java_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka-clients-3.9.1.jar").touch()
    assert kafka_version(tmp_path) == "3.9.1"
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no-java"))
    assert "no Java" in (why_no_kafka(tmp_path) or "")
    java = tmp_path / "java8" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java8"))
    assert "Java 8 is too old" in (why_no_kafka(tmp_path) or "")


@needs_embedded
def test_auto_takes_the_embedded_one_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    assert not isinstance(choose_broker("auto"), ApacheKafka)


@needs_kafka
def test_auto_takes_kafka_where_it_is() -> None:
    assert isinstance(choose_broker("auto"), ApacheKafka)


def test_free_ports_are_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def read_all(bootstrap: str, topic: str) -> int:
    """Records of a topic that a client of this broker can read."""
    return len(list(read(Settings(_env_file=None, bootstrap=bootstrap), topic)))  # type: ignore[call-arg]


def at(broker: Broker) -> Settings:
    return Settings(_env_file=None, bootstrap=broker.bootstrap)  # type: ignore[call-arg]


def listeners(broker: Broker) -> set[str]:
    """The addresses that the broker's process listens on, IPv4-mapped ones as IPv4 (Linux; empty elsewhere)."""
    assert broker.pid is not None
    inodes = set()
    try:
        for link in Path(f"/proc/{broker.pid}/fd").iterdir():
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    except OSError:
        return set()
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{broker.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                last = bytes.fromhex(fields[1].split(":")[0])[-4:]
                found.add(".".join(str(byte) for byte in reversed(last)))
    return found
