"""Restore: how fast a worker has a large profile table back from its changelog, and what a profile costs in memory."""

import tempfile
from typing import Annotated

import psutil
import typer

from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import mmrec, running
from benchmarks.results import Report, Target, console
from benchmarks.workload import PARTITIONS, changelog, create_topics, worker_env
from mmrec_stream.profiles.record import RECORD
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic

PREFIX, APP = "restore.", "restore"


def command(
    quick: Annotated[bool, typer.Option(help="A tenth of the profiles, one round.")] = False,
    profiles: Annotated[int, typer.Option(help="Profiles in the changelog.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(help="Times that a worker starts and restores.")] = 3,
) -> None:
    """Rows a second that a starting worker restores, and its memory per live profile."""
    profiles, rounds = (profiles // 10, 1) if quick else (profiles, rounds)
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report(
            "restore",
            quick=quick,
            broker=broker.name,
            profiles=profiles,
            row_bytes=RECORD.itemsize,
            partitions=PARTITIONS,
        )
        for app in (APP, "nothing"):
            create_topics(cluster, prefix=PREFIX, app_id=app)
        with console.status(f"writing a changelog of {profiles:,} profiles"):
            cluster.load(changelog_topic(load_settings(app_id=APP)), changelog(profiles), compression="lz4")
        env = worker_env(broker, prefix=PREFIX, app_id="nothing", data_dir=folder, lists="false")
        with running(mmrec("worker"), env=env) as system:
            system.logged("ready: partitions", timeout=120)
            idle = psutil.Process(system.process.pid).memory_info().rss
        rates, memory, starts = [], [], []
        for _ in range(rounds):
            env = worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder, lists="false")
            with running(mmrec("worker"), env=env) as system:
                began = system.logged("restoring the profiles", timeout=120)
                ready = system.logged(f"{profiles} profiles", timeout=300)
                # "restored 1000000 profile rows in 3.21 s (311526 rows/s)", by the worker's own clock.
                (line,) = system.lines("profile rows in")
                rates.append(float(line.rpartition("(")[2].split()[0]))
                starts.append((ready - began) / 1000)
                memory.append((psutil.Process(system.process.pid).memory_info().rss - idle) / profiles)
        report.add("rate", "mmrec", rates, "rows/s", target=Target(200_000))
        report.add("until every profile is served", "mmrec", starts, "s")
        report.add("memory", "mmrec", memory, "bytes/profile", target=Target(1_331, at_least=False))
        report.close()
