"""Catching up: a worker starts hours behind, folds what there is, and makes lists for those whom they still concern."""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaError, Message, Producer

from benchmarks import events
from benchmarks.kafka import Cluster
from benchmarks.processes import await_true
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.storm.judge import Receipts
from benchmarks.storm.reading import Stage, ends, lag, read_and_judge
from benchmarks.storm.workers import Worker
from benchmarks.workload import create_topics, worker_env
from mmrec_stream.brokers import apache_kafka
from mmrec_stream.brokers.base import Broker

PREFIX, PARTITIONS = "catchup.", 12

EVENTS_PER_MS = 2
"""As `benchmarks.events` has them: 20 million are the last three hours of a shop with 2,000 events a second."""

PATIENCE_S = 1_800.0


def command(
    quick: Annotated[bool, typer.Option(help="A twentieth of the events and users.")] = False,
    count: Annotated[int, typer.Option("--events", help="Events that nobody has read yet.")] = 20_000_000,
    users: Annotated[int, typer.Option(help="Users that they are of.")] = 200_000,
) -> None:
    """Events a second of a worker that is hours behind, with lists and without, and whether all is right then."""
    count, users = (count // 20, users // 20) if quick else (count, users)
    properties = {"log.cleaner.enable": "false"}
    with apache_kafka(properties=properties) as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        report = Report("catchup", quick=quick, broker=broker.name, events=count, users=users, partitions=PARTITIONS)
        cluster = Cluster(broker.bootstrap)
        for app in ("folds", "lists"):
            create_topics(cluster, prefix=PREFIX, app_id=app, partitions=PARTITIONS)
        announce(broker, PREFIX, write_synthetic_release(Path(folder) / "releases", 10_000))
        with console.status(f"loading {count:,} events"):
            receipts = _load(broker, count, users)
        folding = count / _catch_up(broker, Path(folder), "folds", lists="false")
        listing = count / _catch_up(broker, Path(folder), "lists", lists="true")
        stage = Stage(broker.bootstrap, PREFIX, "lists")
        with console.status("the judge reads"):
            verdict = read_and_judge(stage, receipts, ends(stage))
        report.add("without lists", "mmrec", folding, "events/s")
        report.add("with lists", "mmrec", listing, "events/s")
        report.add("with lists beside without", "mmrec", listing / folding, "", target=Target(0.9))
        report.add("lists made", "mmrec", verdict.lists / users, "a user")
        for name, faults in verdict.faults.items():
            report.add(name, "mmrec", faults, "", target=Target(0, at_least=False))
        report.close()
    if not verdict.ok:
        raise typer.Exit(1)


def _load(broker: Broker, count: int, users: int) -> Receipts:
    """Publish events whose times, and those of their records, are spread over the hours before now."""
    receipts = Receipts()

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            receipts.add(message.topic(), message.partition(), message.offset(), message.value())

    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "linger.ms": 50,
            "batch.size": 500_000,
            "queue.buffering.max.messages": 500_000,
            "log_level": 0,
            "on_delivery": delivered,
        }
    )
    first_ms = int(time.time() * 1000) - count // EVENTS_PER_MS
    for number, message in enumerate(events.messages(count, users=users, partitions=PARTITIONS, first_ms=first_ms)):
        while True:
            try:
                producer.produce(
                    f"{PREFIX}clicks",
                    message.value,
                    message.key,
                    message.partition,
                    timestamp=first_ms + number // EVENTS_PER_MS,
                )
                break
            except BufferError:
                producer.poll(0.1)
        if number % 5_000 == 0:
            producer.poll(0)
    producer.flush()
    return receipts


def _catch_up(broker: Broker, folder: Path, app: str, *, lists: str) -> float:
    """How long a worker takes from serving to having committed everything, and then to having made all lists, s."""
    env = worker_env(broker, prefix=PREFIX, app_id=app, data_dir=folder, lists=lists, partitions=str(PARTITIONS))
    worker, stage = Worker(app, env, folder), Stage(broker.bootstrap, PREFIX, app)
    try:
        worker.start()
        began = await_true(lambda: worker.ready, "the worker", patience_s=120)
        with console.status(f"{app}: catching up"):
            ended = await_true(
                lambda: lag(stage) == 0 and worker.idle, f"{app} to catch up", patience_s=PATIENCE_S, look_s=0.2
            )
        return ended - began
    finally:
        worker.kill()
