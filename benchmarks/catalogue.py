"""How soon what sells out is gone: a worker under load, and a worker's tables of a million products."""

import resource
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks import events
from benchmarks.events import item_id
from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import mmrec, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.recommendations import decode_list
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import blank_features
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import Topics

PREFIX = "cat."
USERS = 5_000
CHANGES = 100
"""Products that sell out a second."""

PATIENCE_S = 10.0
"""How long lists are awaited after the last change."""


def command(
    quick: Annotated[bool, typer.Option(help="100,000 products in place of a million, a quarter of the time.")] = False,
) -> None:
    """Seconds until a product that sells out is in no active user's list; what a million products cost a worker."""
    report = Report("catalogue", quick=quick, users=USERS, changes_per_s=CHANGES)
    with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        _tables(report, Path(folder), 100_000 if quick else 1_000_000, 5.0 if quick else 20.0)
        dropped = _sold_out(report, Path(folder), 5.0 if quick else 20.0)
    report.plot("sold-out", lambda axes: _draw(axes, dropped))
    report.close()


class _Watch(threading.Thread):
    """Reads every list as a page would, and notes when it came and what it held."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "watch", "enable.auto.commit": False, "fetch.wait.max.ms": 5}
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
        self.seen: dict[str, list[tuple[float, frozenset[str]]]] = defaultdict(list)
        self.remade = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            if (first := self._consumer.poll(0.1)) is None:
                continue
            for message in (first, *self._consumer.consume(1_000, 0)):
                if message.error() is None:
                    one = decode_list(message.value())
                    self.remade += one.revision > 0
                    self.seen[one.user_id].append((time.time(), frozenset(item.item_id for item in one.items)))
        self._consumer.close()

    def end(self) -> None:
        self._ended.set()
        self.join()


def _sold_out(report: Report, folder: Path, seconds: float) -> list[float]:
    """100 products a second sell out, drawn as often as they are in lists, while 1,000 events a second come."""
    random = np.random.default_rng(0)
    with running_broker() as broker:
        release = write_synthetic_release(folder / "releases", 10_000)
        topics = Topics.of(load_settings(prefix=PREFIX))
        create_topics(Cluster(broker.bootstrap), prefix=PREFIX, app_id="catalogue")
        announce(broker, PREFIX, release)
        producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 0})
        with running(mmrec("worker"), env=worker_env(broker, prefix=PREFIX, app_id="catalogue", data_dir=folder)) as w:
            w.logged("ready: partitions", timeout=60)
            watch = _Watch(broker.bootstrap, topics.recommendations)
            watch.start()
            for message in events.messages(10 * USERS, users=USERS, first_ms=int(time.time() * 1000)):
                producer.produce(topics.clicks, message.value, message.key, message.partition)
                producer.poll(0)
            producer.flush()
            deadline = time.monotonic() + 60
            while len(watch.seen) < USERS and time.monotonic() < deadline:
                time.sleep(0.1)
            time.sleep(2)
            listed = [item for lists in list(watch.seen.values()) for item in lists[-1][1]]
            items = list(dict.fromkeys(random.permutation(listed).tolist()))
            sold: dict[str, float] = {}
            began = time.time()
            more = events.messages(10_000_000, users=USERS, seed=3, first_ms=int(began * 1000))
            for number, item in enumerate(items[: int(CHANGES * seconds)]):
                while time.time() < began + number / CHANGES:
                    time.sleep(0.001)
                sold[item] = time.time()
                producer.produce(topics.catalogue, encode_item(CatalogueItem(item_id=item, stock=0)), item.encode())
                for _, message in zip(range(1_000 // CHANGES), more, strict=False):
                    producer.produce(topics.clicks, message.value, message.key, message.partition)
                producer.poll(0)
            producer.flush()
            time.sleep(PATIENCE_S)
            watch.end()
    dropped, kept = [], 0
    for lists in watch.seen.values():
        for place, (at, held) in enumerate(lists):
            until = lists[place + 1][0] if place + 1 < len(lists) else float("inf")
            for item in held & sold.keys():
                if at <= sold[item] < until:
                    gone = next((when for when, later in lists[place + 1 :] if item not in later), None)
                    kept += gone is None
                    if gone is not None:
                        dropped.append(gone - sold[item])
    report.add("sold out until gone, p50", "mmrec", float(np.percentile(dropped, 50)), "s", lists=len(dropped))
    report.add(
        "sold out until gone, p99", "mmrec", float(np.percentile(dropped, 99)), "s", target=Target(1.0, at_least=False)
    )
    report.add("lists that kept it", "mmrec", kept, "lists", target=Target(0, at_least=False))
    report.add("lists made again", "mmrec", watch.remade / len(sold), "lists a change", sold_out=len(sold))
    return dropped


def _tables(report: Report, folder: Path, count: int, seconds: float) -> None:
    """A scorer of `count` products: start, memory, and lists while 1,000 updates a second come."""
    with console.status(f"exporting a release of {count:,} products"):
        release = write_synthetic_release(folder / "large", count)
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scorer = Scorer.load(release, provider="cpu", threads=1)
    scorer.retrieve("exact")
    report.add("start", f"{count:,} products", time.perf_counter() - began, "s")
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report.add("memory above the export's peak", f"{count:,} products", memory, "MB")
    items = [CatalogueItem(item_id=item_id(row), title="a lamp", price=9.9) for row in range(0, count, count // 5_000)]
    for start in range(0, len(items), 256):
        scorer.add_items(items[start : start + 256])
    users = blank_features(32, scorer.max_history)
    alone = _runs(scorer, users, seconds / 2)
    stop, took = threading.Event(), []

    def update() -> None:
        number, began = 0, time.perf_counter()
        while not stop.is_set():
            due = int((time.perf_counter() - began) * 1_000) - number
            some = [
                CatalogueItem(item_id=items[place % len(items)].item_id, title="a lamp", price=9.9, stock=place % 2)
                for place in range(number, number + min(due, 512))
            ]
            if some:
                at = time.perf_counter()
                scorer.add_items(some)
                took.append((time.perf_counter() - at) / len(some))
                number += len(some)
            time.sleep(0.01)

    thread = threading.Thread(target=update)
    thread.start()
    beside = _runs(scorer, users, seconds)
    stop.set()
    thread.join()
    report.add("run of 32 users, nothing changes", f"{count:,} products", alone, "ms")
    report.add("run of 32 users, 1,000 updates/s", f"{count:,} products", beside, "ms")
    report.add("an update", f"{count:,} products", 1e6 * float(np.median(took)), "µs")
    added = []
    for number in range(20):
        at = time.perf_counter()
        scorer.add_items([CatalogueItem(item_id=f"new-{number}", title="a lamp", price=3.0)])
        scorer.run(users, 20)
        added.append(1000 * (time.perf_counter() - at))
    report.add("a product more, until lists may have it", f"{count:,} products", added, "ms")


def _runs(scorer: Scorer, users: Any, seconds: float) -> list[float]:
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        at = time.perf_counter()
        scorer.run(users, 20)
        times.append(1000 * (time.perf_counter() - at))
    return times


def _draw(axes: Any, dropped: list[float]) -> None:
    axes.plot(np.sort(dropped), np.linspace(0, 100, len(dropped)))
    axes.axvline(1.0, linestyle=":", color="grey")
    axes.set_xlabel("s from selling out until a user's list is without the product")
    axes.set_ylabel("% of lists that held it")
