"""A user is forgotten by a running worker: profile and list go, and nothing brings them back."""

from pathlib import Path

import pytest

from mmrec_stream.contracts.behaviour import View
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.audit import audit
from mmrec_stream.operations.erasure import forget
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from tests.integration.workers import WorkerProcess, publish, wait_for

NOW_MS = 1_760_000_000_000


def views(user: str, count: int) -> list[View]:
    return [View(user_id=user, item_id=f"item-{number}", ts=NOW_MS + number) for number in range(count)]


def newest(settings: Settings, topic: str, user: str) -> bytes | None:
    """The user's last record of a topic; empty where there is none."""
    values = [message.value() for message in read(settings, topic) if message.key() == user.encode()]
    return values[-1] if values else b""


@pytest.mark.broker
def test_a_forgotten_user_is_gone_and_stays_gone_after_a_crash(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    lists, changelog = topics.recommendations, changelog_topic(settings)
    with WorkerProcess(settings, tmp_path / "1.log") as worker:
        worker.wait_ready()
        publish(settings, [*views("ann", 20), *views("bob", 5)])
        wait_for("lists of both", lambda: newest(settings, lists, "ann") and newest(settings, lists, "bob"))
        erasure = forget(settings, "ann", 60)
        assert newest(settings, changelog, "ann") is None
        assert newest(settings, lists, "ann") is None
        assert erasure is not None
        worker.kill()
    with WorkerProcess(settings, tmp_path / "2.log") as worker:
        worker.wait_ready()
        publish(settings, views("bob", 1))
        wait_for("bob is served", lambda: not worker.status()["open_chunks"] and worker.status()["positions"])
        assert worker.status()["profiles"] == 1
        assert newest(settings, changelog, "ann") is None
        found = audit(settings)
        assert found.ok
