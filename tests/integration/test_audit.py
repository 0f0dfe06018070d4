"""The audit agrees with real workers: nothing lost, nothing doubled, also when one is killed in the middle."""

from collections.abc import Callable
from pathlib import Path

from mmrec_stream.contracts.behaviour import BehaviourEvent, View
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.operations.audit import audit
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.cli.folding import NOW
from tests.conftest import Outcome
from tests.integration.workers import WorkerProcess, folded, publish, wait_for

USERS = 200


def views(count: int) -> list[BehaviourEvent]:
    return [View(user_id=f"user-{n % USERS}", item_id=f"item-{n % 37}", ts=NOW + n) for n in range(count)]


def pending(settings: Settings) -> int:
    return sum(source.pending for source in audit(settings).sources)


def test_workers_and_audit_agree_through_a_kill(
    kafka_settings: Settings, kafka_topics: Topics, tmp_path: Path, mmrec: Callable[..., Outcome]
) -> None:
    settings = kafka_settings.model_copy(update={"lists": False})
    count = 0
    with WorkerProcess(settings, tmp_path / "killed.log") as killed:
        killed.wait_ready()
        while folded(settings) == 0:  # kill it while it folds
            count += publish(settings, views(5_000))
        killed.kill()
    count += publish(settings, views(1_000))
    with BatchProducer(settings) as producer:
        producer.send(kafka_topics.clicks, b"not json", key=b"user-1")
        producer.send(kafka_topics.clicks, None, key=b"user-2")
    assert audit(settings).ok, "what a killed worker left undone is pending and no loss"
    with WorkerProcess(settings, tmp_path / "next.log") as worker:
        worker.wait_ready()
        wait_for("everything folded", lambda: pending(settings) == 0)
        assert worker.stop() == 0
    found = audit(settings)
    assert found.ok
    assert (found.users, found.agreeing) == (USERS, USERS)
    assert sum(source.folded for source in found.sources) == count
    assert found.dead_letters == {"not_json": 1, "empty": 1}
    assert mmrec(settings, "doctor").exit_code == 0
