"""How soon what sells out is gone from lists, and what a million products cost a worker."""

import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import events
from benchmarks.events import item_id
from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import await_true, mmrec, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import PARTITIONS, create_topics, worker_env
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.contracts.recommendations import decode_list
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import Topics

PREFIX = "cat."
USERS = 5_000
CHANGES = 100
"""Products that sell out a second."""

EVENTS = 200
"""Behaviour events a second beside updates: half of what one core scores of a million products."""

UPDATES = 1_000
"""Prices that change a second."""

FRESH = 100
"""Products that are new a second."""

SMALL = 10_000
"""Products that the million is held against."""

PATIENCE_S = 10.0
"""How long lists are awaited after the last change."""


def command(
    quick: Annotated[bool, typer.Option(help="100,000 products in place of a million, a quarter of the time.")] = False,
) -> None:
    """Seconds until a product that sells out is in no active user's list; what a million products cost a worker."""
    report = Report("catalogue", quick=quick, users=USERS, changes_per_s=CHANGES)
    with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        for count in (SMALL, 100_000 if quick else 1_000_000):
            _worker(report, Path(folder), count, 5.0 if quick else 20.0)
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
        self.waits: list[float] = []
        """ms from an event in the log to its list."""
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            if (first := self._consumer.poll(0.1)) is None:
                continue
            for message in (first, *self._consumer.consume(1_000, 0)):
                if message.error() is None:
                    one = decode_list(message.value())
                    self.remade += one.revision > 0
                    if one.revision == 0:
                        self.waits.append(one.times.published - one.times.appended)
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


def _worker(report: Report, folder: Path, count: int, seconds: float) -> None:
    """A worker of `count` products: start, memory, and lists with and without 1,000 updates a second."""
    name, prefix, app = f"{count:,} products", f"n{count}.", f"catalogue-{count}"
    with console.status(f"exporting a release of {name}"):
        release = write_synthetic_release(folder / f"of-{count}", count)
    with running_broker() as broker:
        cluster = Cluster(broker.bootstrap)
        topics = Topics.of(load_settings(prefix=prefix))
        create_topics(cluster, prefix=prefix, app_id=app)
        announce(broker, prefix, release)
        places = cluster.partitions(topics.catalogue)
        with console.status(f"publishing {name}"):
            cluster.load(topics.catalogue, (_product(row, places) for row in range(count)))
        producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 0})
        env = worker_env(broker, prefix=prefix, app_id=app, data_dir=folder)
        began = time.perf_counter()
        with running(mmrec("worker"), env=env) as worker:
            worker.logged("ready: partitions", timeout=600)
            report.add("start", name, time.perf_counter() - began, "s")
            resident = psutil.Process(worker.process.pid).memory_info().rss / 2**20
            report.add("resident memory", name, resident, "MiB")
            watch = _Watch(broker.bootstrap, topics.recommendations)
            watch.start()
            shoppers = events.messages(10_000_000, users=USERS, items=count, first_ms=int(time.time() * 1000))
            _pace(producer, topics, shoppers, seconds / 2, 0, count, places)  # everybody's first list
            used = []
            for case, updates in (("nothing changes", 0), (f"{UPDATES:,} updates/s", UPDATES)):
                watch.waits.clear()
                before = worker.processor_s()
                _pace(producer, topics, shoppers, seconds, updates, count, places)
                time.sleep(1)
                used.append(worker.processor_s() - before)
                report.add(f"event to list, p50, {case}", name, float(np.percentile(watch.waits, 50)), "ms")
                report.add(f"event to list, p99, {case}", name, float(np.percentile(watch.waits, 99)), "ms")
            report.add("an update", name, 1e6 * (used[1] - used[0]) / (UPDATES * seconds), "µs of processor time")
            before_new, began_new = _encoded(env), time.monotonic()
            for number in range(int(FRESH * seconds / 2)):
                while time.monotonic() < began_new + number / FRESH:
                    time.sleep(0.001)
                fresh = CatalogueItem(item_id=f"new-{number}", title=f"a lamp number {number}", category="lamps.new")
                producer.produce(topics.catalogue, encode_item(fresh), fresh.item_id.encode())
                producer.poll(0)
            producer.flush()
            await_true(
                lambda: _encoded(env)[-1][1] - before_new[-1][1] >= int(FRESH * seconds / 2),
                "new products to be encoded",
                patience_s=120,
            )
            new = [(edge, after - before) for (edge, after), (_, before) in zip(_encoded(env), before_new, strict=True)]
            report.add(
                f"a new product until lists may have it, p99, {FRESH}/s",
                name,
                _quantile(new, 0.99),
                "s",
                target=Target(1.0, at_least=False),
            )
            watch.end()


def _encoded(env: dict[str, str]) -> list[tuple[float, float]]:
    """How many products had their vector within each number of seconds, as the worker has counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{env['MMREC_WEB_PORT']}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    (found,) = (family for family in families if family.name == "mmrec_encoding_seconds")
    return [(float(s.labels["le"]), s.value) for s in found.samples if s.name.endswith("_bucket")]


def _quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """A quantile of counts up to each edge, between the edges by a straight line, as Prometheus has it."""
    wanted, below, low = share * buckets[-1][1], 0.0, 0.0
    for edge, count in buckets:
        if count >= wanted:
            return low if edge == float("inf") else low + (edge - low) * (wanted - below) / max(count - below, 1e-9)
        low, below = edge, count
    return low


def _product(row: int, partitions: int, price: float = 9.9) -> events.Message:
    item = CatalogueItem(item_id=item_id(row), title="a lamp", category=events.CATEGORIES[row % 20], price=price)
    key = item.item_id.encode()
    return events.Message(partition_of(key, partitions), key, encode_item(item))


def _pace(
    producer: Producer,
    topics: Topics,
    shoppers: Iterator[events.Message],
    seconds: float,
    updates: int,
    count: int,
    places: int,
) -> None:
    """`EVENTS` events and `updates` changed prices a second."""
    random = np.random.default_rng(1)
    began = time.monotonic()
    steps = int(seconds * 100)
    for step in range(steps):
        while time.monotonic() < began + step / 100:
            time.sleep(0.001)
        for message in islice(shoppers, EVENTS // 100):
            producer.produce(topics.clicks, message.value, message.key, message.partition)
        for row in random.integers(0, count, updates // 100).tolist():
            message = _product(row, places, price=5.0 + step % 7)
            producer.produce(topics.catalogue, message.value, message.key, message.partition)
        producer.poll(0)
    producer.flush()


def _draw(axes: Any, dropped: list[float]) -> None:
    axes.plot(np.sort(dropped), np.linspace(0, 100, len(dropped)))
    axes.axvline(1.0, linestyle=":", color="grey")
    axes.set_xlabel("s from selling out until a user's list is without the product")
    axes.set_ylabel("% of lists that held it")
