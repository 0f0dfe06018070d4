"""Scaling: events a second over workers and partitions, and what an event costs over the size of a batch."""

import tempfile
import time
from contextlib import ExitStack
from typing import Annotated, Any, cast

import numpy as np
import typer

from benchmarks import events
from benchmarks.kafka import Cluster, running_broker, wait_committed
from benchmarks.processes import mmrec, running
from benchmarks.results import Report, console
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.brokers.base import Broker
from mmrec_stream.contracts.identity import source_key
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic
from streams.chunks import Chunk
from streams.intake import Limits, sort_chunk

WORKERS = (1, 2, 3, 4)
PARTITION_COUNTS = (1, 2, 4, 8)
BATCHES = (1, 4, 16, 64, 256, 1_024, 4_096, 16_384)


def command(
    quick: Annotated[bool, typer.Option(help="A fifth of the events.")] = False,
    events_count: Annotated[int, typer.Option("--events", help="Events of each run.")] = 1_000_000,
) -> None:
    """Throughput over workers (1 to 4 on 4 partitions), over partitions (1 to 8), and over batch size."""
    count = events_count // 5 if quick else events_count
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("scaling", quick=quick, broker=broker.name, events=count)
        _batches(report, count)
        for partitions in PARTITION_COUNTS:
            prefix = f"p{partitions}."
            create_topics(cluster, prefix=prefix, app_id=f"p{partitions}", partitions=partitions)
            with console.status(f"loading {count:,} events"):
                cluster.load(f"{prefix}clicks", events.messages(count, partitions=partitions))
            rate = _drain(cluster, broker, folder, prefix, f"p{partitions}", 1, count, partitions)
            report.add("partitions, 1 worker", f"{partitions}", rate, "events/s")
            for workers in WORKERS if partitions == PARTITIONS else ():
                app_id = f"w{workers}"
                create_topics(cluster, prefix=prefix, app_id=app_id, partitions=partitions)
                rate = _drain(cluster, broker, folder, prefix, app_id, workers, count, partitions)
                report.add(f"workers, {PARTITIONS} partitions", f"{workers}", rate, "events/s")
        for name in ("partitions, 1 worker", f"workers, {PARTITIONS} partitions", "batch"):
            report.plot(name.split(",")[0], lambda axes, name=name: _draw(axes, report, name))  # type: ignore[misc]
        report.close()


def _drain(
    cluster: Cluster, broker: Broker, folder: str, prefix: str, app_id: str, workers: int, count: int, partitions: int
) -> float:
    """Events a second of `workers` workers over a topic that lies there whole.

    From the first changelog record to the last: with several workers, no one moment is the start of all.
    """
    changelog = changelog_topic(load_settings(app_id=app_id))
    with ExitStack() as stack:
        systems = [
            stack.enter_context(
                running(
                    mmrec("worker"),
                    env=worker_env(
                        broker, prefix=prefix, app_id=app_id, data_dir=folder, lists="false", partitions=str(partitions)
                    ),
                )
            )
            for _ in range(workers)
        ]
        for system in systems:
            system.logged("ready: partitions", timeout=120)
        wait_committed(cluster, app_id, f"{prefix}clicks", count, systems[0], timeout=180)
    first, last = cluster.first_appended(changelog), cluster.last_appended(changelog)
    assert first is not None
    assert last is not None
    cluster.delete(changelog)
    return count / (last - first) * 1000


def _batches(report: Report, count: int) -> None:
    """Decode, check and fold in process, one core, by events a batch."""
    messages = list(events.messages(min(count, 200_000), partitions=1))
    _take(messages[:100], 100)  # loads the compiled fold
    for size in BATCHES:
        taken = messages[: min(len(messages), 4_000 * size)]
        began = time.perf_counter()
        _take(taken, size)
        report.add("batch", f"{size}", len(taken) / (time.perf_counter() - began), "events/s")


def _take(messages: list[events.Message], size: int) -> None:
    """What a worker does with `messages` between fetching and sending, `size` at a time."""
    limits = Limits(65_536, 3_600_000, partitions=1)
    rows, nobody = ProfileRows(), cast("Any", None)
    for start in range(0, len(messages), size):
        values: list[bytes | None] = [message.value for message in messages[start : start + size]]
        count = len(values)
        chunk = Chunk("bench", 0, nobody, list(range(start, start + count)), [0] * count, [None] * count, values)
        intake = sort_chunk(chunk, limits, int(time.time() * 1000), rows.unknown)
        places = rows.rows_of(intake.columns.users)
        fold(rows.records, places, intake.columns, source_key("bench", 0))
        rows.encode(np.unique(places))


def _draw(axes: Any, report: Report, case: str) -> None:
    figures = [figure for figure in report.figures if figure.case == f"scaling.{case}"]
    axes.plot([figure.system for figure in figures], [figure.value for figure in figures], marker="o", color="#c2410c")
    axes.set_ylim(bottom=0)
    axes.set_xlabel({"batch": "events a batch, one core, in process"}.get(case, case))
    axes.set_ylabel("events/s")
