"""Apache Kafka from any distribution's `libs/`: KRaft nodes on loopback, started straight from the jars.

One node is a player's broker; several make a cluster that outlives the loss of one.
"""

import base64
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from mmrec_stream.brokers.base import LOOPBACK, Broker, free_port
from mmrec_stream.errors import UserError

JAVA_MINIMUM = 17
"""What Apache Kafka 4 needs; 3.x runs on it too."""

HEAP = ("-Xms128m", "-Xmx1g")
"""A player's broker: 1 GiB carries the 2 M events of the benchmarks without a pause of note."""

NODE_HEAP = ("-Xms128m", "-Xmx512m")
"""One of several nodes on one machine: three of them take little more than a player's broker, and 12 partitions with
three replicas never filled half of it."""

_LOG4J1 = """\
log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=[%d] %p %m (%c)%n
"""
_LOG4J2 = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


@dataclass(frozen=True)
class Door:
    """A listener beside the usual one: clients that come in by it are told the address it advertises.

    What stands at that address (a proxy, say) sees all that these clients say to the broker.
    """

    listens: int
    """Port of the broker."""
    advertises: int
    """Port that clients are told."""


@dataclass(frozen=True)
class Seat:
    """A node's place in a cluster."""

    node: int
    controllers: Mapping[int, int]
    """Port of each node's controller, by node."""
    cluster_id: str


class ApacheKafka(Broker):
    """One Kafka node, broker and controller in one. Data survive a restart and a crash."""

    keeps_data = True

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        data: Path | None = None,
        properties: Mapping[str, str] | None = None,
        seat: Seat | None = None,
        doors: Mapping[str, Door] | None = None,
        heap: Sequence[str] = HEAP,
    ) -> None:
        """Choose where the broker will be.

        Args:
            home: folder with the distribution's `libs/`.
            port: client port; 0 takes a free one.
            data: folder for data and log; a temporary one where None.
            properties: further pairs of server.properties; they win over ours.
            seat: the place in a cluster; a cluster of its own where None.
            doors: further listeners by name (capitals and digits).
            heap: the JVM's options for its heap.
        """
        super().__init__(port=port, data=data)
        self.home = home.absolute()
        self.properties = dict(properties or {})
        self.seat = seat or Seat(1, {1: free_port()}, _cluster_id())
        self.doors = dict(doors or {})
        self._heap = heap

    @property
    def name(self) -> str:
        """The broker's name and version, for people."""
        return f"Apache Kafka {kafka_version(self.home)}"

    @property
    def _config(self) -> Path:
        return self.data / "server.properties"

    def _command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", str(self._config)]

    def _prepare(self) -> None:
        (self.data / "log4j.properties").write_text(_LOG4J1)
        (self.data / "log4j2.properties").write_text(_LOG4J2)
        self._config.write_text("".join(f"{name}={value}\n" for name, value in self._server_properties().items()))
        if (self.data / "log" / "meta.properties").exists():
            return
        command = [
            *self._java(),
            "kafka.tools.StorageTool",
            "format",
            "--ignore-formatted",
            f"--cluster-id={self.seat.cluster_id}",  # with `=`: an id may begin with a dash
            "-c",
            str(self._config),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"{self.name} could not format {self.data}:\n{done.stdout}{done.stderr}")

    def _server_properties(self) -> dict[str, str]:
        seat = self.seat
        controllers = {node: f"{LOOPBACK}:{port}" for node, port in seat.controllers.items()}
        listeners = {"PLAINTEXT": self.bootstrap} | {n: f"{LOOPBACK}:{d.listens}" for n, d in self.doors.items()}
        advertised = listeners | {n: f"{LOOPBACK}:{d.advertises}" for n, d in self.doors.items()}
        ours = {
            "process.roles": "broker,controller",
            "node.id": str(seat.node),
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in controllers.items()),
            "listeners": _addresses(listeners | {"CONTROLLER": controllers[seat.node]}),
            "advertised.listeners": _addresses(advertised),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in (*listeners, "CONTROLLER")),
            "log.dirs": str(self.data / "log"),
            # One node can hold one replica of its internal topics, and few partitions of them start faster.
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            # The default of 3 s makes the first member of every group wait for others that never come.
            "group.initial.rebalance.delay.ms": "0",
            # A worker that was killed is missed as soon as under the classic protocol, and a rebalance heard of within
            # a second: production's 45 and 5 s are made for groups of hundreds.
            "group.consumer.session.timeout.ms": "6000",
            "group.consumer.min.session.timeout.ms": "6000",
            "group.consumer.heartbeat.interval.ms": "1000",
            "group.consumer.min.heartbeat.interval.ms": "500",
            # After a crash the controller refuses the broker until its old session ends: the default of 9 s is a
            # long wait for a player, and much below 6 s the pauses of an overloaded machine would count as a crash
            # and leave partitions without a leader.
            "broker.session.timeout.ms": "6000",
            "broker.heartbeat.interval.ms": "1000",
            # A misspelt topic is an error here as it is in production.
            "auto.create.topics.enable": "false",
        }
        return ours | self.properties

    def _java(self) -> list[str]:
        log4j1, log4j2 = (self.data / name for name in ("log4j.properties", "log4j2.properties"))
        return [
            _java_binary(),
            *self._heap,
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            f"-Dlog4j.configuration=file:{log4j1}",  # Kafka 3
            f"-Dlog4j2.configurationFile={log4j2}",  # Kafka 4
            "-cp",
            str(self.home / "libs" / "*"),
        ]


class ApacheCluster:
    """Some Kafka nodes that form one cluster. Use it as a context manager, or call `start` and `close`.

    From three nodes on, topics are kept thrice and a record is confirmed when two have it, so that one may be lost.
    """

    def __init__(
        self,
        home: Path,
        count: int,
        *,
        properties: Mapping[str, str] | None = None,
        doors: Sequence[str] = (),
    ) -> None:
        """Choose where the nodes will be.

        Args:
            home: folder with the distribution's `libs/`.
            count: nodes.
            properties: further pairs of every node's server.properties.
            doors: names of further listeners, which every node gets, each at ports of its own.
        """
        self._temporary = tempfile.TemporaryDirectory(prefix="mmrec-cluster-")
        ports = iter(_free_ports(count * (2 + 2 * len(doors))))
        controllers = {node: next(ports) for node in range(1, count + 1)}
        cluster_id = _cluster_id()
        shared = dict(_KEPT_THRICE if count >= 3 else {}) | dict(properties or {})
        self.nodes = [
            ApacheKafka(
                home,
                port=next(ports),
                data=Path(self._temporary.name) / f"node-{node}",
                properties=shared,
                seat=Seat(node, controllers, cluster_id),
                doors={name: Door(next(ports), next(ports)) for name in doors},
                heap=HEAP if count == 1 else NODE_HEAP,
            )
            for node in controllers
        ]

    @property
    def name(self) -> str:
        """What it is, for people."""
        name = self.nodes[0].name
        return name if len(self.nodes) == 1 else f"{name}, {len(self.nodes)} nodes"

    @property
    def bootstrap(self) -> str:
        """The bootstrap addresses of all nodes."""
        return ",".join(node.bootstrap for node in self.nodes)

    @property
    def replication(self) -> int:
        """The replication factor that topics should have here."""
        return 3 if len(self.nodes) >= 3 else 1

    def start(self) -> Self:
        """Start all nodes and wait until each answers.

        Raises:
            UserError: as for `Broker.start`.
        """
        try:
            for node in self.nodes:  # one alone cannot become ready: a majority elects the controller
                node.launch()
            for node in self.nodes:
                node.await_ready()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all nodes and remove their data."""
        for node in self.nodes:  # a clean stop hands partitions over to nodes that end next
            node.kill()
        self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_KEPT_THRICE = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
}


def why_no_kafka(home: Path | None = None) -> str | None:
    """Why Apache Kafka cannot run here; None where it can.

    Args:
        home: folder with `libs/`; KAFKA_HOME where None.
    """
    home = home or kafka_home()
    if home is None:
        return "KAFKA_HOME is not set"
    if kafka_version(home) is None:
        return f"KAFKA_HOME={home} has no libs/ with Kafka's jars"
    java = java_version(_java_binary())
    if java is None:
        return f"no Java: install {JAVA_MINIMUM} or newer, or set JAVA_HOME"
    if java < JAVA_MINIMUM:
        return f"Java {java} is too old: Kafka needs {JAVA_MINIMUM} or newer"
    return None


def apache_kafka(port: int = 0, data: Path | None = None, properties: Mapping[str, str] | None = None) -> ApacheKafka:
    """Apache Kafka at KAFKA_HOME, not started.

    Raises:
        UserError: it cannot run here.
    """
    return ApacheKafka(_usable_home(), port=port, data=data, properties=properties)


def apache_cluster(count: int, properties: Mapping[str, str] | None = None, doors: Sequence[str] = ()) -> ApacheCluster:
    """A cluster of Apache Kafka at KAFKA_HOME, not started; arguments as for `ApacheCluster`.

    Raises:
        UserError: it cannot run here.
    """
    return ApacheCluster(_usable_home(), count, properties=properties, doors=doors)


def kafka_home() -> Path | None:
    """The folder that KAFKA_HOME names."""
    home = os.environ.get("KAFKA_HOME")
    return Path(home) if home else None


def kafka_version(home: Path) -> str | None:
    """The version of the Kafka in `home`, by its jars; None where there is none."""
    for jar in (home / "libs").glob("kafka-clients-*.jar"):
        if match := re.fullmatch(r"kafka-clients-(\d[\w.-]*)\.jar", jar.name):
            return match[1]
    return None


@cache
def java_version(java: str) -> int | None:
    """The major version of a `java` binary; None where it does not run."""
    try:
        out = subprocess.run([java, "-version"], capture_output=True, text=True, check=True, timeout=30).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', out)
    return int(match[1]) if match else None


def _usable_home() -> Path:
    home = kafka_home()
    if home is None or (reason := why_no_kafka(home)):
        raise UserError(f"no Apache Kafka: {reason if home else why_no_kafka()}")
    return home


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def _free_ports(count: int) -> list[int]:
    """Different ports of loopback that nothing listens on."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        ports[free_port()] = None
    return list(ports)


def _addresses(listeners: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in listeners.items())


def _java_binary() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else (shutil.which("java") or "java")
