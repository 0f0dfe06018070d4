"""Memory over a long run at constant users: it should not grow once every user is known."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from scipy.stats import theilslopes

from benchmarks import events
from benchmarks.kafka import Cluster, running_broker, wait_committed
from benchmarks.processes import mmrec, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, worker_env

PREFIX, APP = "mem.", "memory"

USERS = 20_000


def command(
    quick: Annotated[bool, typer.Option(help="A fifth of the events.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds of events.")] = 40,
    size: Annotated[int, typer.Option(help="Events a round.")] = 400_000,
) -> None:
    """Resident memory of a worker with lists after each of many rounds of events of the same users."""
    size = size // 5 if quick else size
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("memory", quick=quick, broker=broker.name, users=USERS, events_per_round=size)
        create_topics(cluster, prefix=PREFIX, app_id=APP)
        announce(broker, PREFIX, write_synthetic_release(Path(folder) / "releases", 10_000))
        resident = []
        with running(mmrec("worker"), env=worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder)) as system:
            system.logged("ready: partitions", timeout=60)
            process = psutil.Process(system.process.pid)
            for number in range(rounds):
                with console.status(f"round {number + 1} of {rounds}"):
                    messages = events.messages(size, users=USERS, seed=number, partitions=PARTITIONS)
                    cluster.load(f"{PREFIX}clicks", messages)
                    wait_committed(cluster, APP, f"{PREFIX}clicks", (number + 1) * size, system, timeout=300)
                resident.append(process.memory_info().rss / 2**20)
                console.print(f"round {number + 1}: {resident[-1]:.0f} MiB", highlight=False)
        # The median of the slopes between all rounds of the second half: a round's own value depends on how much was
        # being fetched and on when memory was last given back, and a single dip would tilt a line of least squares.
        later = resident[len(resident) // 2 :]
        growth = float(theilslopes(later, np.arange(len(later)) * size / 1e6).slope)
        report.add("resident at the end", "mmrec", resident[-1], "MiB", rounds=[round(mib, 1) for mib in resident])
        report.add(
            "growth in the second half", "mmrec", growth, "MiB per million events", target=Target(2, at_least=False)
        )
        report.plot("rounds", lambda axes: _draw(axes, resident, size))
        report.close()


def _draw(axes: Any, resident: list[float], size: int) -> None:
    axes.plot([(number + 1) * size / 1e6 for number in range(len(resident))], resident, marker="o", color="#c2410c")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"million events of {USERS:,} users")
    axes.set_ylabel("resident memory, MiB")
