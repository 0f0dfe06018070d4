"""Events a second: keep each user's recent items with a changelog, ours beside its peers on the same topic."""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks import events
from benchmarks.kafka import EMBEDDED, Cluster, embedded_beside, running_broker, wait_committed
from benchmarks.peers import kafka_streams
from benchmarks.processes import mmrec, peer, running
from benchmarks.results import Report, Target, console
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.brokers.apache import kafka_home
from mmrec_stream.brokers.base import Broker, free_port
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic

EVENTS = 2_000_000
"""Long enough (15 s at the target rate) that starting, warming up and the last commit are a few percent."""

EVENTS_OF_SLOW = {"stock Faust": 30_000, "Quix Streams": 500_000}
"""Peers that would take a minute and more over all events get fewer. Faust gets a topic of its own with fewer users, as
what an event costs it depends on the length of the user's list; Quix reads the first quarter of everybody's topic,
as what it writes depends on how many users there are."""

EVENTS_PER_USER = 100
"""2,000,000 events of 20,000 users: lists of 50 are full after half of the run."""


EVENTS_EMBEDDED = 200_000
"""The embedded broker takes a tenth of Kafka's events a second."""

TOPIC = "bench.clicks"


class Outcome(NamedTuple):
    """What a run of a system came to."""

    rate: float
    """Events/s."""
    rows: int | None = None
    """Records in the changelog after it; None of a system without one."""


@dataclass(frozen=True)
class Run:
    """Where one run of a system takes place."""

    broker: Broker
    cluster: Cluster
    topic: str
    count: int
    number: int
    java: Path | None
    """Folder of the compiled Java peer, where there is a compiler."""


def command(
    quick: Annotated[bool, typer.Option(help="A tenth of the events, one round: for a look, not for quoting.")] = False,
    rounds: Annotated[int, typer.Option(help="Times that each system runs, in turn.")] = 3,
    events_count: Annotated[int, typer.Option("--events", help="Events in the topic.")] = EVENTS,
    only: Annotated[str, typer.Option(help="Comma-separated systems to run; all where empty.")] = "",
) -> None:
    """Throughput of the stream path beside stock Faust, Quix Streams, Kafka Streams and bare loops."""
    count, rounds = (events_count // 10, 1) if quick else (events_count, rounds)
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        home = kafka_home()
        java = Path(folder) if home and kafka_streams.compile_job(home, Path(folder)) else None
        systems = {
            name: run
            for name, run in _systems(java).items()
            if not only or name in [part.strip() for part in only.split(",")]
        }
        report = Report("stream", quick=quick, broker=broker.name, partitions=PARTITIONS)
        topics = _load(cluster, systems, count, quick=quick)
        rates: dict[str, list[float]] = defaultdict(list)
        rows: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds):
            # Turn about, and every other round backwards: what slows the machine down for a while hits all alike.
            for name, run in list(systems.items())[:: -1 if number % 2 else 1]:
                topic, share = topics[name]
                outcome = run(Run(broker, cluster, topic, share, number, java))
                rates[name].append(outcome.rate)
                if outcome.rows is not None:
                    rows[name].append(outcome.rows / share)
                console.print(f"round {number + 1}  {name}: {outcome.rate:,.0f} events/s", highlight=False)
        for name in systems:
            target = Target(100_000) if name == "mmrec" else None
            report.add("throughput", name, rates[name], "events/s", target=target, events=topics[name][1])
        for name, shares in rows.items():
            report.add("changelog", name, shares, "records/event")
        if "mmrec" in systems:
            _ratios(report, rates)
            with embedded_beside(broker) as other:
                if other is not None:
                    _on_embedded(report, other, count, rounds)
        report.plot("throughput", lambda axes: _draw(axes, report))
        report.close()


def _systems(java: Path | None) -> dict[str, Callable[[Run], Outcome]]:
    systems: dict[str, Callable[[Run], Outcome]] = {
        "mmrec": _mmrec,
        "stock Faust": _stock_faust,
        "Quix Streams": _quix,
        "bare aiokafka": lambda run: _bare("bare_aiokafka", run),
        "bare confluent": lambda run: _bare("bare_confluent", run),
    }
    if java:
        systems["Kafka Streams 1 thread"] = lambda run: _kafka_streams(run, threads=1, caching=False)
        systems["Kafka Streams 1 thread cached"] = lambda run: _kafka_streams(run, threads=1, caching=True)
        systems["Kafka Streams 2 threads"] = lambda run: _kafka_streams(run, threads=2, caching=False)
    return systems


def _load(
    cluster: Cluster, systems: dict[str, Callable[[Run], Outcome]], count: int, *, quick: bool
) -> dict[str, tuple[str, int]]:
    topics: dict[str, tuple[str, int]] = {}
    for name in systems:
        share = min(count, EVENTS_OF_SLOW[name] // (4 if quick else 1)) if name in EVENTS_OF_SLOW else count
        topic = f"bench.first-{share}" if name == "stock Faust" else TOPIC
        if not cluster.partitions(topic):
            size = share if name == "stock Faust" else count
            cluster.create(topic, PARTITIONS)
            with console.status(f"loading {size:,} events"):
                cluster.load(topic, events.messages(size, users=size // EVENTS_PER_USER, partitions=PARTITIONS))
        topics[name] = topic, share
    return topics


def _mmrec(run: Run) -> Outcome:
    """Ours folds whole profiles. Timed from the moment it says it is ready, before it fetches for the first time."""
    app_id = f"mmrec-{run.number}"
    create_topics(run.cluster, prefix="bench.", app_id=app_id)
    changelog = changelog_topic(load_settings(app_id=app_id))
    with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as data_dir:
        env = worker_env(run.broker, prefix="bench.", app_id=app_id, data_dir=data_dir, lists="false")
        with running(mmrec("worker"), env=env) as system:
            ready = system.logged("ready: partitions", timeout=60)
            wait_committed(run.cluster, app_id, run.topic, run.count, system, timeout=120)
    return _rate(run, changelog, ready)


def _on_embedded(report: Report, broker: Broker, count: int, rounds: int) -> None:
    """Ours on the embedded broker, which is for trying things out: the figure says what to expect of that."""
    count, cluster = min(count, EVENTS_EMBEDDED), Cluster(broker.bootstrap)
    cluster.create(TOPIC, PARTITIONS)
    cluster.load(TOPIC, events.messages(count, users=count // EVENTS_PER_USER, partitions=PARTITIONS))
    rates = [_mmrec(Run(broker, cluster, TOPIC, count, number, None)).rate for number in range(rounds)]
    report.add("throughput", EMBEDDED, rates, "events/s", events=count)


def _stock_faust(run: Run) -> Outcome:
    app_id = f"stock-faust-{run.number}"
    with running(peer("stock_faust", run.broker.bootstrap, run.topic, app_id, free_port())) as system:
        first = system.milestone("first", timeout=60)
        wait_committed(run.cluster, app_id, run.topic, run.count, system, timeout=120)
    return _rate(run, f"{app_id}-last-changelog", first)


def _quix(run: Run) -> Outcome:
    group = f"quix-{run.number}"
    with running(peer("quix", run.broker.bootstrap, run.topic, group, run.count)) as system:
        first = system.milestone("first", timeout=60)
        system.milestone("last", timeout=120)
    return _rate(run, f"changelog__{group}--{run.topic}--default", first)


def _kafka_streams(run: Run, *, threads: int, caching: bool) -> Outcome:
    assert run.java is not None
    home = kafka_home()
    assert home is not None
    app_id = f"kafka-streams-{threads}-{caching}-{run.number}".lower()
    job = kafka_streams.command(
        home, run.java, run.broker.bootstrap, run.topic, run.count,
        threads=threads, caching=caching, app_id=app_id,
    )  # fmt: skip
    with running(job) as system:
        first = system.milestone("first", timeout=60)
        system.milestone("last", timeout=120)
    return _rate(run, f"{app_id}-last-changelog", first)


def _bare(module: str, run: Run) -> Outcome:
    with running(peer(module, run.broker.bootstrap, run.topic, run.count)) as system:
        first = system.milestone("first", timeout=60)
        return Outcome(run.count / (system.milestone("last", timeout=120) - first) * 1000)


def _rate(run: Run, changelog: str, first: float) -> Outcome:
    """Events a second from `first` (ms) to the last record of the changelog, which is deleted then."""
    last, rows = run.cluster.last_appended(changelog), run.cluster.size(changelog)
    if last is None:
        raise RuntimeError(f"{changelog} is empty: nothing was kept")
    run.cluster.delete(changelog)
    return Outcome(run.count / (last - first) * 1000, rows)


def _ratios(report: Report, rates: dict[str, list[float]]) -> None:
    """How many times a peer's rate ours is: the median over the rounds, each of them one ratio."""
    targets = {"stock Faust": 30.0, "Quix Streams": 4.0, "Kafka Streams 1 thread": 0.7, "bare confluent": 0.3}
    for name, theirs in rates.items():
        if name != "mmrec":
            target = Target(targets[name]) if name in targets else None
            ratios = [mine / other for mine, other in zip(rates["mmrec"], theirs, strict=True)]
            report.add("ratio", f"mmrec / {name}", ratios, "×", target=target)


def _draw(axes: object, report: Report) -> None:
    figures = sorted((f for f in report.figures if f.case == "stream.throughput"), key=lambda f: f.value)
    bars = axes.barh(  # type: ignore[attr-defined]
        [f.system for f in figures], [f.value for f in figures],
        color=["#c2410c" if f.system.startswith("mmrec") else "#94a3b8" for f in figures],
    )  # fmt: skip
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)  # type: ignore[attr-defined]
    axes.set_xlabel("events/s, median")  # type: ignore[attr-defined]
    axes.margins(x=0.15)  # type: ignore[attr-defined]
