"""Rebalance under load: for how long each partition stands still while a worker joins, leaves, and is killed."""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import events
from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import System, mmrec, running
from benchmarks.results import Report, Target, console
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.brokers.base import Broker
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic

PREFIX, APP = "reb.", "rebalance"

RATE = 5_000
"""Events a second while workers come and go."""

WATCHED_S = 12.0
"""How long after a change the output is watched: the session timeout of 6 s, a restore, and some."""

SESSION_S = 6.0
"""`streams.app.SESSION_TIMEOUT_S`, which a killed worker's partitions have to wait for."""


def command(
    quick: Annotated[bool, typer.Option(help="One change of each kind.")] = False,
    rounds: Annotated[int, typer.Option(help="Times of joining, leaving and being killed.")] = 3,
) -> None:
    """The longest time without output of partitions that stay with a worker and of those that move."""
    rounds = 1 if quick else rounds
    gaps: dict[tuple[str, str], list[float]] = {}
    restores: list[float] = []
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("rebalance", quick=quick, broker=broker.name, rate=RATE, partitions=PARTITIONS)
        create_topics(cluster, prefix=PREFIX, app_id=APP)
        command_line = mmrec("worker")

        def env() -> dict[str, str]:
            return worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder, lists="false")

        with running(command_line, env=env()) as first, _Load(broker), _Watch(broker) as watch:
            _await_ready(first, 1)
            time.sleep(3)
            for number in range(rounds):
                for end in ("leaves", "is killed"):
                    with console.status(f"round {number + 1}: a worker joins and {end}"):
                        second = System(command_line, env=env())
                        try:
                            moved = _observe(watch, gaps, "joins", first, lambda second=second: _await_ready(second, 1))  # type: ignore[misc]
                            restores.extend(_restores(second))
                            before = len(first.lines("restored"))
                            _observe(
                                watch, gaps, end, first,
                                lambda second=second, end=end: second.stop(kill=end == "is killed"),  # type: ignore[misc]
                                moved=moved,
                            )  # fmt: skip
                            restores.extend(_restores(first)[before:])
                        finally:
                            second.stop(kill=True)
        longest = max(restores, default=0.0)
        report.add("restore of the moved partitions", "mmrec", longest, "s")
        for (change, which), samples in gaps.items():
            limit = 1.0 if which == "stay" else 1.0 + longest + (SESSION_S if change == "is killed" else 0.0)
            target = Target(round(limit, 2), at_least=False)
            report.add(
                f"a worker {change}, partitions that {which}", "mmrec", samples, "s without output", target=target
            )
        report.plot("gaps", lambda axes: _draw(axes, gaps))
        report.close()


class _Load:
    """Events at a steady rate, until left."""

    def __init__(self, broker: Broker) -> None:
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 1, "log_level": 0})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> "_Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(10)

    def _send(self) -> None:
        began = time.monotonic()
        for number, message in enumerate(events.messages(100_000_000, partitions=PARTITIONS)):
            if self._stop.is_set():
                return
            while number > (time.monotonic() - began) * RATE:
                time.sleep(0.001)
            self._producer.produce(f"{PREFIX}clicks", message.value, message.key, message.partition)
            if number % 100 == 0:
                self._producer.poll(0)


class _Watch:
    """When rows of each partition arrive in the changelog."""

    def __init__(self, broker: Broker) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": broker.bootstrap, "group.id": "watch", "auto.offset.reset": "latest", "log_level": 0}
        )
        topic = changelog_topic(load_settings(app_id=APP))
        self._consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.arrivals: list[list[float]] = [[] for _ in range(PARTITIONS)]

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def longest_gap(self, partition: int, since: float) -> float:
        """The longest time without a row since `since`, s; what is still open counts."""
        times = [since, *(at for at in self.arrivals[partition] if at > since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times))

    def _listen(self) -> None:
        while not self._stop.is_set():
            record = self._consumer.poll(0.1)
            if record is not None and record.error() is None:
                now = time.monotonic()
                for one in (record, *self._consumer.consume(5_000, 0)):
                    if one.error() is None:
                        self.arrivals[one.partition()].append(now)


def _observe(
    watch: _Watch,
    gaps: dict[tuple[str, str], list[float]],
    change: str,
    first: System,
    act: Callable[[], object],
    moved: set[int] | None = None,
) -> set[int]:
    """Note the gaps of all partitions around `act`; returns the partitions that left the first worker."""
    before = _held(first)
    began = time.monotonic()
    act()
    time.sleep(max(0.0, WATCHED_S - (time.monotonic() - began)))
    moved = before - _held(first) if moved is None else moved
    for partition in range(PARTITIONS):
        which = "move" if partition in moved else "stay"
        gaps.setdefault((change, which), []).append(watch.longest_gap(partition, began))
    return moved


def _held(worker: System) -> set[int]:
    line = worker.lines("ready: partitions")[-1]
    return {int(number) for number in line.partition("partitions ")[2].rpartition(", ")[0].split(", ")}


def _restores(worker: System) -> list[float]:
    """Seconds of each restore that the worker has logged."""
    return [float(line.partition(" rows in ")[2].split()[0]) for line in worker.lines("profile rows in")]


def _await_ready(worker: System, times: int) -> None:
    deadline = time.monotonic() + 60
    while len(worker.lines("ready: partitions")) < times:
        if not worker.alive() or time.monotonic() > deadline:
            raise worker.failure("not ready")
        time.sleep(0.02)


def _draw(axes: Any, gaps: dict[tuple[str, str], list[float]]) -> None:
    for place, ((_change, which), samples) in enumerate(gaps.items()):
        axes.scatter([place] * len(samples), samples, color="#c2410c" if which == "stay" else "#64748b")
    axes.set_xticks(range(len(gaps)), [f"{change}:\n{which}" for change, which in gaps], fontsize=8)
    axes.set_ylabel("longest time without output, s")
    axes.set_ylim(bottom=0)
