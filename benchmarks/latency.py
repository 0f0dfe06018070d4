"""From an event to its list: milliseconds beside a bare echo and a Faust echo, and how many lists a second."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import events
from benchmarks.kafka import EMBEDDED, Cluster, embedded_beside, running_broker
from benchmarks.probe import Observation, Probe
from benchmarks.processes import System, mmrec, peer, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.brokers.base import Broker, free_port
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import Topics

PREFIX = "lat."

USERS = 20_000

EVENTS_PER_USER = 20
"""Published before anything is measured: what a list costs depends on how long the histories are."""

RUNS = 3
"""Runs at a rate, each with events of its own: the 99th percentile of one alone moves by half of itself."""

SETTLE_S = 2.0
"""Before each run, events at its rate whose latency does not count."""

PLOTS = {"one alone": "alone", "1,000/s": "1000", "70% of the highest rate": "busy"}

TARGETS = {("one alone", 50): 5.0, ("one alone", 99): 10.0, ("1,000/s", 50): 6.0, ("1,000/s", 99): 20.0}


def command(
    quick: Annotated[bool, typer.Option(help="A quarter of the time, for a look.")] = False,
    items: Annotated[int, typer.Option(help="Items in the catalogue that is scored.")] = 10_000,
) -> None:
    """Latency from publishing an event to receiving the list, at 20/s, 1,000/s and 70% of the highest rate."""
    seconds = (4.0, 3.0) if quick else (20.0, 10.0)
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("latency", quick=quick, broker=broker.name, items=items, partitions=PARTITIONS)
        with console.status("exporting a release"):
            release = write_synthetic_release(Path(folder) / "releases", items)
        observed: dict[tuple[str, str], list[Observation]] = {}
        with mmrec_worker(cluster, broker, Path(folder), release) as (probe, system):
            observed["one alone", "mmrec"] = _runs(probe, 20, seconds[0])
            used = system.processor_s()
            observed["1,000/s", "mmrec"] = _runs(probe, 1_000, seconds[1])
            cores = (system.processor_s() - used) / (RUNS * (SETTLE_S + seconds[1]))
            report.add("1,000/s, processor time", "mmrec", cores, "cores", target=Target(0.5, at_least=False))
            burst = _lists_per_second(report, probe, USERS // (2 if quick else 1))
            rate = _sustained(report, probe, burst, seconds[1])
            observed["70% of the highest rate", "mmrec"] = _runs(probe, 0.7 * rate, seconds[1])
        for name, module in (("bare echo", "echo_confluent"), ("Faust echo", "echo_faust")):
            with _echo(cluster, broker, module) as probe:
                observed["one alone", name] = _runs(probe, 20, seconds[0])
                observed["1,000/s", name] = _runs(probe, 1_000, seconds[1])
        with embedded_beside(broker) as other:
            if other is not None:
                with mmrec_worker(Cluster(other.bootstrap), other, Path(folder), release) as (probe, _):
                    for load, rate in (("one alone", 20), ("1,000/s", 1_000)):
                        observed[load, EMBEDDED] = _runs(probe, rate, seconds[1])
        _record(report, observed)
        for load in dict.fromkeys(load for load, _ in observed):
            runs = {system: found for (at, system), found in observed.items() if at == load and system != EMBEDDED}
            report.plot(f"histogram-{PLOTS[load]}", partial(_draw, load=load, runs=runs))
        report.close()


@contextlib.contextmanager
def mmrec_worker(
    cluster: Cluster, broker: Broker, folder: Path, release: Path, **settings: str
) -> Iterator[tuple[Probe, System]]:
    """A worker that serves `release`, with a probe around it."""
    env = worker_env(broker, prefix=PREFIX, app_id="latency", data_dir=folder, **settings)
    create_topics(cluster, prefix=PREFIX, app_id="latency")
    topics = Topics.of(load_settings(prefix=PREFIX))
    announce(broker, PREFIX, release)
    with running(mmrec("worker"), env=env) as system:
        system.logged("ready: partitions", timeout=60)
        probe = Probe(broker.bootstrap, topics.clicks, topics.recommendations, PARTITIONS)
        probe.run(events.messages(USERS * EVENTS_PER_USER, users=USERS, first_ms=_now_ms()), float("inf"), 0)
        try:
            yield probe, system
        finally:
            probe.close()


@contextlib.contextmanager
def _echo(cluster: Cluster, broker: Broker, module: str) -> Iterator[Probe]:
    source, sink = f"{module}-in", f"{module}-out"
    for topic in (source, sink):
        cluster.create(topic, PARTITIONS)
    more = [free_port()] if module == "echo_faust" else []
    with running(peer(module, broker.bootstrap, source, sink, *more)) as system:
        system.milestone("ready", timeout=60)
        probe = Probe(broker.bootstrap, source, sink, PARTITIONS)
        try:
            yield probe
        finally:
            probe.close()


def _runs(probe: Probe, rate: float, seconds: float) -> list[Observation]:
    """What came of events at a rate, in several runs."""
    return [probe.run(_messages(int(rate) + number), rate, seconds, settle=SETTLE_S) for number in range(RUNS)]


def _messages(seed: int) -> Iterator[events.Message]:
    return events.messages(10_000_000, users=USERS, seed=seed, first_ms=_now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _lists_per_second(report: Report, probe: Probe, users: int) -> float:
    """Lists a second while every one of `users` users waits for one: an event each, published at once."""
    rates = []
    for seed in range(3):
        seen = probe.run(events.one_each(users, seed=seed, first_ms=_now_ms()), float("inf"), 0)
        # Between the arrivals of the first and the last hundredth: the burst's edges are not its rate.
        low, high = len(seen.arrivals) // 100, len(seen.arrivals) * 99 // 100
        rates.append((high - low) / (seen.arrivals[high] - seen.arrivals[low]))
    return report.add("lists", "mmrec", rates, "users/s", target=Target(8_000), users=users).value


def _sustained(report: Report, probe: Probe, rate: float, seconds: float) -> float:
    """Lists a second while events keep coming faster than lists can be made, and publishing them takes its share."""
    arrivals = probe.run(_messages(4), rate, seconds).arrivals
    within = arrivals - arrivals[0]
    # The first fifth fills the line, and what comes after the last event empties it.
    made = np.count_nonzero((within > 0.2 * seconds) & (within <= seconds)) / (0.8 * seconds)
    return report.add("lists, events coming all the time", "mmrec", made, "users/s", offered=round(rate)).value


def _record(report: Report, observed: dict[tuple[str, str], list[Observation]]) -> None:
    for (load, system), runs in observed.items():
        for q in (50, 99):
            limit = TARGETS.get((load, q)) if system == "mmrec" else None
            if system == "mmrec" and q == 99 and limit is None:
                limit = 100.0
            target = Target(limit, at_least=False) if limit else None
            report.add(
                f"{load}, p{q}", system, [run.percentile(q) for run in runs], "ms", target=target,
                events=sum(len(run.latencies) for run in runs), unanswered=sum(run.unanswered for run in runs),
            )  # fmt: skip
        for step in runs[0].steps:
            medians = [float(np.median(run.steps[step])) for run in runs]
            report.add(f"{load}, until {step}, p50", system, medians, "ms")
    for load, system in observed:
        if system not in ("mmrec", EMBEDDED):
            for q in (50, 99):
                pairs = zip(observed[load, "mmrec"], observed[load, system], strict=True)
                ratios = [ours.percentile(q) / theirs.percentile(q) for ours, theirs in pairs]
                report.add(f"{load}, p{q}, ratio", f"mmrec / {system}", ratios, "×")


def _draw(axes: Any, load: str, runs: dict[str, list[Observation]]) -> None:
    latencies = {system: np.concatenate([run.latencies for run in seen]) for system, seen in runs.items()}
    edges = np.geomspace(0.3, max(50.0, *(float(np.percentile(all_, 99.9)) for all_ in latencies.values())), 60)
    for system, found in latencies.items():
        ours = system == "mmrec"
        values = np.clip(found, edges[0], edges[-1])
        axes.hist(
            values,
            edges,
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled" if ours else "step",
            alpha=0.6 if ours else 1.0,
            label=f"{system}: p50 {np.percentile(found, 50):.1f}, p99 {np.percentile(found, 99):.1f} ms",
        )
    axes.set_xscale("log")
    axes.set_xlabel(f"ms from event published to list received ({load})")
    axes.set_ylabel("% of events")
    axes.legend(frameon=False)
