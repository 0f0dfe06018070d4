"""Restore: how fast a worker has a large profile table back from its changelog, and what a profile costs in memory."""

import tempfile
import time
from typing import Annotated

import psutil
import typer

from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import System, mmrec, running
from benchmarks.results import Report, Target, console
from benchmarks.workload import changelog, create_topics, health, worker_env
from mmrec_stream.profiles.record import RECORD
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import changelog_topic

PREFIX, APP = "restore.", "restore"

LOOK_S = 0.05
"""How often a worker that restores is asked how far it is: a hundredth of the shortest restore, and no work for it."""

PATIENCE_S = 300.0


def command(
    quick: Annotated[bool, typer.Option(help="A tenth of the profiles, one round.")] = False,
    profiles: Annotated[int, typer.Option(help="Profiles in the changelog.")] = 2_000_000,
    partitions: Annotated[int, typer.Option(help="Partitions that they lie on.")] = 48,
    rounds: Annotated[int, typer.Option(help="Times that a worker starts and restores.")] = 3,
) -> None:
    """Rows a second that a starting worker restores, when its partitions go on, and its memory per live profile."""
    profiles, rounds = (profiles // 10, 1) if quick else (profiles, rounds)
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report(
            "restore",
            quick=quick,
            broker=broker.name,
            profiles=profiles,
            row_bytes=RECORD.itemsize,
            partitions=partitions,
        )
        for app in (APP, "nothing"):
            create_topics(cluster, prefix=PREFIX, app_id=app, partitions=partitions)
        with console.status(f"writing a changelog of {profiles:,} profiles"):
            rows = changelog(profiles, partitions=partitions)
            cluster.load(changelog_topic(load_settings(app_id=APP)), rows, compression="lz4")
        more = {"prefix": PREFIX, "data_dir": folder, "lists": "false", "partitions": str(partitions)}
        env = worker_env(broker, app_id="nothing", **more)
        with running(mmrec("worker"), env=env) as system:
            system.logged("ready: partitions", timeout=120)
            idle = psutil.Process(system.process.pid).memory_info().rss
        rates, memory, first, half, last, told = [], [], [], [], [], []
        for _ in range(rounds):
            env = worker_env(broker, app_id=APP, **more)
            with running(mmrec("worker"), env=env) as system:
                went_on = _restored(system, int(env["MMREC_WEB_PORT"]), profiles, partitions)
                memory.append((psutil.Process(system.process.pid).memory_info().rss - idle) / profiles)
                told.append(len(system.lines("restoring profiles of partitions")))
            rates.append(profiles / went_on[-1])
            first.append(went_on[0])
            half.append(went_on[partitions // 2])
            last.append(went_on[-1])
        report.add("rate", "mmrec", rates, "rows/s", target=Target(300_000))
        report.add("until the first partition is served", "mmrec", first, "s")
        report.add("until half of the partitions are served", "mmrec", half, "s")
        report.add("until every profile is served", "mmrec", last, "s")
        report.add("lines of progress", "mmrec", told, "")
        report.add("memory", "mmrec", memory, "bytes/profile", target=Target(1_331, at_least=False))
        report.close()


def _restored(system: System, port: int, profiles: int, partitions: int) -> list[float]:
    """When each partition was served, s after the first was begun with, ascending.

    Raises:
        RuntimeError: the worker ended, it is not done within `PATIENCE_S`, or not all profiles are there.
    """
    began, went_on = 0.0, list[float]()
    deadline = time.monotonic() + PATIENCE_S
    while len(went_on) < partitions:
        if not system.alive() or time.monotonic() > deadline:
            raise system.failure(f"{len(went_on)} of {partitions} partitions are restored")
        time.sleep(LOOK_S)
        status, now = health(port), time.monotonic()
        if not began and (status.get("restoring") or status.get("partitions")):
            began = now
        went_on += [now - began] * (len(status.get("partitions", [])) - len(went_on))
    if (found := health(port)["profiles"]) != profiles:
        raise system.failure(f"{found} of {profiles} profiles are restored")
    return went_on
