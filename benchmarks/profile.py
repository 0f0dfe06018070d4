"""Where a worker's time goes: samples of its threads by part, while it catches up and while it makes lists."""

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import events
from benchmarks.kafka import Cluster, running_broker, wait_committed
from benchmarks.processes import System, mmrec, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.errors import UserError

PARTS = {
    "scoring (ONNX Runtime)": ("ranking/scorer.py", "onnxruntime/"),
    "features and lists' objects": ("ranking/recommend.py", "ranking/features.py", "ranking/items.py"),
    "popularity and catalogue": ("ranking/popularity.py", "mmrec_stream/catalogue/"),
    "decode and check": ("streams/intake.py",),
    "columns and hashes": ("profiles/columns.py", "contracts/identity.py"),
    "fold": ("profiles/fold.py",),
    "rows of users": ("profiles/rows.py",),
    "copies of touched rows": ("profiles/record.py",),
    "sending and confirmations": ("streams/outbox.py", "streams/changelog.py"),
    "fetching": ("streams/group.py", "streams/driver.py", "faust/transport/"),
    "pipeline": ("streams/pipeline.py", "streams/lists.py", "streams/metrics.py"),
    "ownership": ("streams/ownership.py", "streams/assignment.py", "streams/commits.py"),
    "event loop and Faust": ("asyncio/", "mode/", "faust/", "concurrent/", "selectors.py", "streams/behaviour.py"),
}
"""Parts by the files they lie in; a sample belongs to the part of its innermost frame that has one."""

IDLE = ("selectors.py", "threading.py", "streams/followers.py", "concurrent/futures/thread.py")
"""Files whose innermost frames wait."""

STARTING = ("importlib", "numba/", "llvmlite/")

HERTZ = 200
"""Fine enough for parts of 1% in ten seconds; pausing the worker for each sample takes less than that."""


def command(
    quick: Annotated[bool, typer.Option(help="A third of the events.")] = False,
    events_count: Annotated[int, typer.Option("--events", help="Events of the run without lists.")] = 1_500_000,
) -> None:
    """Shares of a busy worker's time by part, without lists and with them. Needs py-spy (extra `bench`)."""
    count = events_count // 3 if quick else events_count
    sampler = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if sampler is None:
        raise UserError("profiles are taken with py-spy: pip install py-spy")
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("profile", quick=quick, broker=broker.name, events=count)
        for name, lists, size in (
            ("catching up, no lists", "false", count),
            ("lists for everybody", "true", count // 5),
        ):
            prefix = f"profile-{lists}."
            create_topics(cluster, prefix=prefix, app_id=prefix)
            if lists == "true":
                announce(broker, prefix, write_synthetic_release(Path(folder) / "releases", 10_000))
            cluster.load(f"{prefix}clicks", events.messages(size, partitions=PARTITIONS))
            env = worker_env(broker, prefix=prefix, app_id=prefix, data_dir=folder, lists=lists)
            with running(mmrec("worker"), env=env) as system:
                system.logged("ready: partitions", timeout=60)
                out = Path(folder) / f"{lists}.txt"
                with _sampling(sampler, system, out):
                    wait_committed(cluster, prefix, f"{prefix}clicks", size, system, timeout=300)
            samples = _by_part(out.read_text())
            for part, number in samples.most_common():
                report.add(name, part, 100 * number / samples.total(), "% of samples")
        report.close()


@contextlib.contextmanager
def _sampling(sampler: str, system: System, out: Path) -> Iterator[None]:
    """Record the stacks of a process's busy threads while inside."""
    process = subprocess.Popen(
        [sampler, "record", "-p", str(system.process.pid), "-r", str(HERTZ), "-d", "600", "-f", "raw", "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)  # py-spy writes what it has
        _, said = process.communicate(timeout=60)
    if not out.exists():
        raise UserError(
            f"py-spy cannot read the worker (it needs the right to trace processes): {said.decode()[-200:]}"
        )


def _by_part(stacks: str) -> Counter[str]:
    """Samples of each part. A line is the frames from the outermost in, separated by `;`, and the number of samples."""
    samples: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, number = line.rpartition(" ")
        inward = frames.split(";")
        if not any(place in inward[-1] for place in IDLE) and not any(place in frames for place in STARTING):
            samples[_part(inward)] += int(number)
    return samples


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for part, places in PARTS.items():
            if any(place in frame for place in places):
                return part
    return "other"
