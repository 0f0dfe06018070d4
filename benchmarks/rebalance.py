"""Rebalance under load: how long each partition stands still while workers join, leave, are killed and come back."""

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import events
from benchmarks.kafka import SESSION_S, Cluster
from benchmarks.processes import await_true
from benchmarks.results import Report, Target, console
from benchmarks.storm.workers import Worker
from benchmarks.workload import create_topics, worker_env
from mmrec_stream.brokers import apache_kafka
from mmrec_stream.brokers.base import Broker
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic

PREFIX = "reb."

PARTITIONS = 12

RATE = 3_000
"""Events a second while workers come and go: one every 4 ms on each partition."""

AFTER_S = 2.0
"""How long the output is watched after every partition is served again."""

PATIENCE_S = 90.0

STAY, MOVE = "partitions that stay", "partitions that move"

Gaps = dict[tuple[str, str], list[float]]
"""By what happened and which partitions, the longest time without output of each, s."""


def command(
    quick: Annotated[bool, typer.Option(help="One change of each kind.")] = False,
    rounds: Annotated[int, typer.Option(help="Times that each change happens.")] = 3,
    standbys: Annotated[int, typer.Option(help="MMREC_STANDBYS of the workers.")] = 0,
    protocol: Annotated[str, typer.Option(help="MMREC_GROUP_PROTOCOL of the workers.")] = "auto",
) -> None:
    """The longest time without output of partitions that stay with a worker and of those that move."""
    rounds = 1 if quick else rounds
    # The embedded broker keeps no partitions for a worker that is away.
    with apache_kafka() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        report = Report(
            "rebalance_standbys" if standbys else "rebalance",
            quick=quick,
            broker=broker.name,
            rate=RATE,
            partitions=PARTITIONS,
            standbys=standbys,
            protocol=protocol,
        )
        group = _Group(broker, Path(folder), MMREC_STANDBYS=str(standbys), MMREC_GROUP_PROTOCOL=protocol)
        gaps: Gaps = {}
        _dynamic(group, gaps, rounds)
        _static(group, gaps, rounds)
        planned = 0.5 if standbys else 2.0
        limits = {
            "a worker joins": planned,
            "a worker leaves": planned,
            "a worker is killed": SESSION_S + 2.0,
            "a named worker is killed and comes back": 3.0,
            "rolling restart of three named workers": 3.0,
        }
        for (change, which), samples in gaps.items():
            limit = 0.25 if which == STAY else limits[change]
            target = Target(limit, at_least=False)
            report.add(f"{change}, {which}", "mmrec", samples, "s without output", target=target, longest=max(samples))
        report.plot("gaps", lambda axes: _draw(axes, gaps))
        report.close()


class _Group:
    """Workers of a group, and the broker that they are on."""

    def __init__(self, broker: Broker, folder: Path, **settings: str) -> None:
        self.broker = broker
        self._folder = folder
        self._settings = settings

    def worker(self, app: str, name: str, **settings: str) -> Worker:
        """A worker of the group `app`, not started."""
        env = worker_env(
            self.broker, prefix=PREFIX, app_id=app, data_dir=self._folder, lists="false", partitions=str(PARTITIONS)
        )
        return Worker(f"{app}-{name}", env | self._settings | settings, self._folder)


def _dynamic(group: _Group, gaps: Gaps, rounds: int) -> None:
    """A third worker joins two others, and leaves or is killed."""
    app = "dynamic"
    workers = [group.worker(app, f"w{number}") for number in range(2)]
    with _stage(group, app, workers) as watch:
        for number, end in itertools.product(range(rounds), ("a worker leaves", "a worker is killed")):
            third = group.worker(app, "third")
            try:
                with console.status(f"round {number + 1}: a worker joins"):
                    _observe(watch, gaps, "a worker joins", workers, third.start, [*workers, third])
                with console.status(f"round {number + 1}: {end}"):
                    act = third.kill if end == "a worker is killed" else third.stop
                    _observe(watch, gaps, end, [*workers, third], act, workers)
            finally:
                third.kill()


def _static(group: _Group, gaps: Gaps, rounds: int) -> None:
    """Three workers with names that the group knows are killed and restarted, and restarted one after the other."""
    app = "static"
    workers = [group.worker(app, f"w{number}", MMREC_WORKER_NAME=f"{app}-w{number}") for number in range(3)]

    def come_back() -> None:
        workers[0].kill()
        workers[0].start()

    def roll() -> None:
        for worker in workers:
            worker.stop()
            _await(lambda worker=worker: worker.look() is not None or worker.down, worker.name)  # type: ignore[misc]
            worker.start()
            _await(lambda: _served(workers), worker.name)

    with _stage(group, app, workers) as watch:
        for number in range(rounds):
            with console.status(f"round {number + 1}: a named worker is killed and comes back"):
                change = "a named worker is killed and comes back"
                _observe(watch, gaps, change, workers, come_back, workers, moved=workers[:1])
            with console.status(f"round {number + 1}: rolling restart"):
                change = "rolling restart of three named workers"
                _observe(watch, gaps, change, workers, roll, workers, moved=workers)


class _stage:  # noqa: N801 - used as a function
    """A group of its own under load, its output watched."""

    def __init__(self, group: _Group, app: str, workers: Sequence[Worker]) -> None:
        create_topics(Cluster(group.broker.bootstrap), prefix=PREFIX, app_id=app, partitions=PARTITIONS)
        self._workers = workers
        self._load, self._watch = _Load(group.broker), _Watch(group.broker, app)

    def __enter__(self) -> "_Watch":
        for worker in self._workers:
            worker.start()
        try:
            _await(lambda: _served(self._workers), "the first workers")
        except BaseException:
            self._end_workers()
            raise
        self._load.__enter__()
        watch = self._watch.__enter__()
        _await(lambda: all(watch.arrivals), "the first rows of every partition")
        return watch

    def __exit__(self, *_: object) -> None:
        self._watch.__exit__()
        self._load.__exit__()
        self._end_workers()

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.kill()


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
    """When rows of each partition arrive in the changelog, those of open transactions once they are committed."""

    def __init__(self, broker: Broker, app: str) -> None:
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker.bootstrap,
                "group.id": "watch",
                "auto.offset.reset": "latest",
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
        topic = changelog_topic(load_settings(app_id=app))
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
            if record is not None:
                now = time.monotonic()
                for one in (record, *self._consumer.consume(5_000, 0)):
                    if one.error() is None:
                        self.arrivals[one.partition()].append(now)


def _observe(
    watch: _Watch,
    gaps: Gaps,
    change: str,
    before: Sequence[Worker],
    act: Callable[[], object],
    after: Sequence[Worker],
    moved: Sequence[Worker] | None = None,
) -> None:
    """Note the gaps of all partitions around `act`, until `after` serve all of them and some.

    Args:
        watch: of the output.
        gaps: where to note them.
        change: what happens.
        before: the workers that serve now.
        act: what happens.
        after: the workers that serve then.
        moved: whose partitions count as moved, where the same workers have them before and after.
    """
    held = _held(before)
    began = time.monotonic()
    act()
    for worker in {*before, *after} - {*after}:
        _await(lambda worker=worker: worker.look() is not None or worker.down, worker.name)  # type: ignore[misc]
    _await(lambda: _served(after), "all partitions served")
    since_served = time.monotonic()
    _await(lambda: all(arrivals[-1] > since_served for arrivals in watch.arrivals), "output of every partition")
    time.sleep(AFTER_S)
    names = None if moved is None else {worker.name for worker in moved}
    now = _held(after)
    for partition in range(PARTITIONS):
        stays = held.get(partition) == now.get(partition) if names is None else held.get(partition) not in names
        gaps.setdefault((change, STAY if stays else MOVE), []).append(watch.longest_gap(partition, began))


def _held(workers: Sequence[Worker]) -> dict[int, str]:
    """Which worker serves each partition, by their own pages."""
    held: dict[int, str] = {}
    for worker in workers:
        status, page = worker.page("ready")
        if status == 200:
            held |= dict.fromkeys(page["partitions"], worker.name)
    return held


def _await(condition: Callable[[], object], what: str) -> None:
    await_true(condition, what, patience_s=PATIENCE_S, look_s=0.02)


def _served(workers: Sequence[Worker]) -> bool:
    """Whether these workers serve, and all partitions between them."""
    return all(worker.ready for worker in workers) and len(_held(workers)) == PARTITIONS


def _draw(axes: Any, gaps: Gaps) -> None:
    for place, ((_change, which), samples) in enumerate(gaps.items()):
        axes.scatter([place] * len(samples), samples, color="#c2410c" if which == STAY else "#64748b")
    labels = [f"{change}:\n{which.removeprefix('partitions that ')}" for change, which in gaps]
    axes.set_xticks(range(len(gaps)), labels, fontsize=6, rotation=30, ha="right")
    axes.set_ylabel("longest time without output, s")
    axes.set_ylim(bottom=0)
