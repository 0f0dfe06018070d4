"""Releases that follow each other in a worker: what a swap costs whoever waits for a list, and what it leaves."""

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from scipy.stats import theilslopes

from benchmarks import events
from benchmarks.events import CATEGORIES, Message, item_id
from benchmarks.kafka import Cluster, running_broker
from benchmarks.probe import Observation, Probe
from benchmarks.processes import System, await_true, mmrec, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, health, worker_env
from mmrec_stream.brokers.base import Broker
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.reader import read_batches
from mmrec_stream.profiles.record import from_bytes
from mmrec_stream.settings import Settings, load_settings
from mmrec_stream.topics import Topics, changelog_topic

PREFIX, APP = "swap.", "swap"

USERS = 20_000
RATE = 1_000
"""Events a second while releases follow each other: half of a core of the worker's without."""

ROUNDS = 5
"""Pairs of a time without swaps and one with, so that what else runs on the machine meets both."""

SETTLED_SWAPS = 200
"""Swaps before memory is compared: the allocator's arenas, caches and maps have their size after some tens."""

GROWTH_KIB = 16.0
"""Growth in KiB a swap that counts as none: a year of releases every ten minutes at that rate takes 800 MiB, and what
is measured over 800 swaps moves by a few KiB for what else the worker does."""

PATIENCE_S = 60.0


def command(
    quick: Annotated[bool, typer.Option(help="A tenth of the swaps.")] = False,
    items: Annotated[int, typer.Option(help="Products in the catalogue and in both releases.")] = 10_000,
    swaps: Annotated[int, typer.Option(help="Swaps under load, one a second.")] = 100,
    more: Annotated[int, typer.Option(help="Swaps as fast as they go, for the memory.")] = 1_000,
) -> None:
    """What an event waits for its list while releases follow each other, beside without; memory over many swaps."""
    swaps, more = (swaps // 10, more // 10) if quick else (swaps, more)
    rounds = 1 if quick else ROUNDS
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        cluster = Cluster(broker.bootstrap)
        report = Report("swap", quick=quick, broker=broker.name, items=items, partitions=PARTITIONS, rate=RATE)
        with console.status("exporting two releases"):
            releases = [write_synthetic_release(Path(folder) / "releases", items) for _ in range(2)]
        env = worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder)
        create_topics(cluster, prefix=PREFIX, app_id=APP)
        settings = load_settings(bootstrap=broker.bootstrap, prefix=PREFIX, app_id=APP)
        topics = Topics.of(settings)
        cluster.load(topics.catalogue, _catalogue(items, cluster.partitions(topics.catalogue)))
        announce(broker, PREFIX, releases[0])
        with running(mmrec("worker"), env=env) as system:
            system.logged("ready: partitions", timeout=60)
            swapper = Swapper(broker, system, int(env["MMREC_WEB_PORT"]), releases)
            _under_load(report, broker, topics, swapper, swaps, rounds)
            _nothing_lost(report, cluster, settings, topics)
            resident = _over_many(swapper, more)
        later = resident[min(SETTLED_SWAPS, more // 2) :]
        growth = float(theilslopes(later, np.arange(len(later))).slope) * 1024
        report.add("memory, resident", "mmrec", later, "MiB", swaps=more)
        report.add(
            "memory, growth", "mmrec", growth, "KiB/swap", target=Target(GROWTH_KIB, at_least=False), swaps=len(later)
        )
        report.add("a swap, from announced to served", "mmrec", [1000 * s for s in swapper.took[1:]], "ms")
        report.plot("memory", lambda axes: _draw_memory(axes, resident))
        report.close()


class Swapper:
    """Has a worker take the one release and the other in turn, each as it is announced."""

    def __init__(self, broker: Broker, system: System, port: int, releases: Sequence[Path]) -> None:
        self.system = system
        self.took: list[float] = []
        """Seconds of each swap, from its announcement to the worker's word that it serves."""
        self._broker, self._port, self._releases = broker, port, releases

    def swap(self) -> None:
        """Announce the release that does not serve, and wait until it does."""
        release = self._releases[(len(self.took) + 1) % 2]
        began = time.monotonic()
        announce(self._broker, PREFIX, release)
        await_true(
            lambda: health(self._port).get("release") == release.name,
            f"release {release.name}",
            patience_s=PATIENCE_S,
            look_s=0.01,
        )
        self.took.append(time.monotonic() - began)

    def keep_swapping(self, swaps: int, stop: threading.Event) -> None:
        """Swap `swaps` times, once a second from start to start."""
        for _ in range(swaps):
            began = time.monotonic()
            self.swap()
            if stop.wait(max(0.0, began + 1.0 - time.monotonic())):
                return

    @property
    def resident_mib(self) -> float:
        """The worker's resident memory."""
        return float(psutil.Process(self.system.process.pid).memory_info().rss) / 2**20


def _under_load(report: Report, broker: Broker, topics: Topics, swapper: Swapper, swaps: int, rounds: int) -> None:
    """Times with swaps beside times without, in turn, and which of the two comes first in turn as well."""
    probe = Probe(broker.bootstrap, topics.clicks, topics.recommendations, PARTITIONS)
    seconds = swaps / rounds
    seen: dict[str, list[Observation]] = {"without swaps": [], "with swaps": []}
    try:
        probe.run(events.messages(USERS * 10, users=USERS, first_ms=_now_ms()), float("inf"), 0)
        for number in range(rounds):
            for name in seen if number % 2 == 0 else reversed(seen):
                stop = threading.Event()
                swapping = threading.Thread(target=swapper.keep_swapping, args=(int(seconds), stop))
                if name == "with swaps":
                    swapping.start()
                seen[name].append(probe.run(_messages(number), RATE, seconds, settle=1))
                if name == "with swaps":
                    stop.set()
                    swapping.join()
    finally:
        probe.close()
    for q in (50, 99, 99.9):
        for name, runs in seen.items():
            report.add(f"event to list, p{q:g}", name, [run.percentile(q) for run in runs], "ms")
    pairs = list(zip(seen["with swaps"], seen["without swaps"], strict=True))
    slower = [ours.percentile(99) - theirs.percentile(99) for ours, theirs in pairs]
    report.add("event to list, p99, more with swaps", "mmrec", slower, "ms", target=Target(5, at_least=False))
    for name, runs in seen.items():
        report.add("longest wait for a list", name, [float(run.latencies.max()) for run in runs], "ms")
    unanswered = sum(run.unanswered for run in seen["with swaps"])
    report.add("swaps under load", "mmrec", len(swapper.took), "")
    report.add("events without a list", "mmrec", unanswered, "", target=Target(0, at_least=False))
    report.plot("latency", lambda axes: _draw_latency(axes, seen))


def _nothing_lost(report: Report, cluster: Cluster, settings: Settings, topics: Topics) -> None:
    """Events in the log that no profile has folded, by the changelog."""
    sent = cluster.size(topics.clicks)
    newest: dict[bytes, bytes] = {}

    def missing() -> int:
        for messages in read_batches(settings, changelog_topic(settings)):
            newest.update({message.key() or b"": message.value() or b"" for message in messages})
        return sent - int(from_bytes([value for value in newest.values() if value])["events"].sum())

    await_true(lambda: missing() <= 0, "every event in a profile", patience_s=PATIENCE_S, look_s=1.0)
    report.add("events in no profile", "mmrec", missing(), "", target=Target(0, at_least=False), events=sent)


def _over_many(swapper: Swapper, swaps: int) -> list[float]:
    """Resident memory after each of many swaps, MiB."""
    resident = []
    with console.status(f"{swaps} swaps") as status:
        for number in range(swaps):
            swapper.swap()
            resident.append(swapper.resident_mib)
            if number % 10 == 0:
                status.update(f"swap {number} of {swaps}: {resident[-1]:.0f} MiB")
    return resident


def _catalogue(items: int, partitions: int) -> Iterator[Message]:
    """Products without pictures, as many as the releases know."""
    for row in range(items):
        kind = CATEGORIES[row % len(CATEGORIES)]
        item = CatalogueItem(item_id=item_id(row), title=f"{kind} number {row}", category=kind, price=9.9, stock=5)
        key = item.item_id.encode()
        yield Message(partition_of(key, partitions), key, encode_item(item))


def _messages(seed: int) -> Iterator[Message]:
    return events.messages(10_000_000, users=USERS, seed=seed, first_ms=_now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)


def _draw_latency(axes: Any, seen: dict[str, list[Observation]]) -> None:
    colours = {"without swaps": "#64748b", "with swaps": "#c2410c"}
    for name, runs in seen.items():
        found = np.sort(np.concatenate([run.latencies for run in runs]))
        axes.plot(
            found,
            100 * (1 - np.arange(len(found)) / len(found)),
            color=colours[name],
            label=f"{name}: p50 {np.percentile(found, 50):.1f}, p99 {np.percentile(found, 99):.1f} ms",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("ms from event published to list received")
    axes.set_ylabel("% of events that wait longer")
    axes.legend(frameon=False)


def _draw_memory(axes: Any, resident: list[float]) -> None:
    axes.plot(np.arange(1, len(resident) + 1), resident, color="#c2410c")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("swaps")
    axes.set_ylabel("resident memory, MiB")
