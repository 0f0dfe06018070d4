"""The broker goes away under load, for a second to minutes: what workers say meanwhile, and how they go on."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaException

from benchmarks.kafka import Cluster
from benchmarks.processes import await_true
from benchmarks.results import Report, Target, console
from benchmarks.storm.judge import Verdict
from benchmarks.storm.reading import Stage, ends, lag, read_and_judge
from benchmarks.storm.traffic import Traffic
from benchmarks.storm.workers import Worker
from benchmarks.workload import create_topics, worker_env
from mmrec_stream.brokers import ApacheKafka, apache_kafka

PREFIX, APP, PARTITIONS = "out.", "outage", 12

RATE = 1_000
"""Events a second. Those of five minutes without a broker wait in the producer's memory."""

USERS = 3_000
WORKERS = 2

NOTICE_S = 10.0
"""After how long without a broker a worker must no longer say that it is ready: what it serves is old by then."""

LOOK_S = 0.25
PATIENCE_S = 180.0
NONE = Target(0, at_least=False)


def command(
    quick: Annotated[bool, typer.Option(help="1 and 20 s.")] = False,
    away: Annotated[str, typer.Option(help="How long the broker is away, s, comma-separated.")] = "1,30,300",
) -> None:
    """Whether workers stay alive, unready and quiet without a broker, go on by themselves, and lose nothing."""
    lengths = [1.0, 20.0] if quick else [float(text) for text in away.split(",")]
    with apache_kafka() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        report = Report("outage", quick=quick, broker=broker.name, rate=RATE, users=USERS, workers=WORKERS)
        create_topics(Cluster(broker.bootstrap), prefix=PREFIX, app_id=APP, partitions=PARTITIONS)
        stage = Stage(broker.bootstrap, PREFIX, APP)
        env = worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder, partitions=str(PARTITIONS))
        workers = [Worker(f"w{number}", env, Path(folder)) for number in range(WORKERS)]
        traffic = Traffic(broker.bootstrap, PREFIX, seed=1, users=USERS, rate=RATE)
        try:
            for worker in workers:
                worker.start()
            _await(lambda: all(worker.ready for worker in workers), "the workers")
            traffic.start()
            for seconds in lengths:
                before = traffic.receipts.total
                _await(lambda before=before: traffic.receipts.total > before + 3 * RATE, "the flow of events")  # type: ignore[misc]
                _outage(report, broker, stage, workers, seconds)
            verdict = _judgement(stage, traffic, workers)
        finally:
            for worker in workers:
                worker.kill()
        for name, count in verdict.faults.items():
            report.add(name, "mmrec", count, "", target=NONE)
        report.close()
    if not verdict.ok:
        raise typer.Exit(1)


def _outage(report: Report, broker: ApacheKafka, stage: Stage, workers: Sequence[Worker], seconds: float) -> None:
    """One time without a broker, and what comes of it."""
    name = f"broker away for {seconds:.0f} s"
    rows, lines = _rows(stage), [_lines(worker) for worker in workers]
    alive, ready_late = [], []
    with console.status(name):
        broker.kill()
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            for worker in workers:
                alive.append(worker.page("health")[0] == 200)
                if passed > NOTICE_S:
                    ready_late.append(worker.page("ready")[0] == 200)
            time.sleep(LOOK_S)
        said = [_lines(worker) - before for worker, before in zip(workers, lines, strict=True)]
        broker.start()
        back = time.monotonic()
        _await(lambda: _rows(stage) > rows, "new rows in the changelog")
        goes_on = time.monotonic() - back
        _await(lambda: all(_ready_or_gone(worker) for worker in workers), "the workers to be ready again")
    report.add(f"{name}: not alive", "mmrec", 1 - sum(alive) / max(len(alive), 1), "of the time", target=NONE)
    if ready_late:
        share = sum(ready_late) / len(ready_late)
        report.add(f"{name}: ready all the same", "mmrec", share, "of the time", target=NONE)
        report.add(
            f"{name}: log lines", "mmrec", [10 * count / seconds for count in said], "in ten seconds",
            target=Target(1, at_least=False),
        )  # fmt: skip
    report.add(f"{name}: until rows are written again", "mmrec", goes_on, "s after the broker answers")
    ended = sum(len(worker.endings) for worker in workers)
    report.add(f"{name}: workers that ended", "mmrec", ended, "", target=NONE)
    for worker in workers:  # whoever runs workers starts them again; the next outage begins with all of them
        worker.endings.clear()
        worker.start()
    _await(lambda: all(worker.ready for worker in workers), "the workers")


def _judgement(stage: Stage, traffic: Traffic, workers: Sequence[Worker]) -> Verdict:
    traffic.stop()

    def done() -> bool:
        try:
            return lag(stage) == 0 and all(worker.idle for worker in workers)
        except KafkaException:
            return False

    _await(done, "everything to be committed")
    with console.status("the judge reads"):
        return read_and_judge(stage, traffic.receipts, ends(stage))


def _ready_or_gone(worker: Worker) -> bool:
    worker.look()
    return worker.down or worker.ready


def _rows(stage: Stage) -> int:
    return sum(ends(stage)[stage.changelog].values())


def _lines(worker: Worker) -> int:
    return worker.log.read_bytes().count(b"\n")


def _await(condition: Callable[[], object], what: str) -> None:
    await_true(condition, what, patience_s=PATIENCE_S, look_s=LOOK_S)
