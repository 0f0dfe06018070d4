"""A rolling upgrade of the profile's record: workers of two versions share a group, and partitions go both ways."""

import sys
from pathlib import Path

from mmrec_stream.contracts.behaviour import BehaviourEvent, View
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.audit import audit
from mmrec_stream.profiles.record import RECORD, VERSION
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from tests.cli.folding import NOW
from tests.integration.wider_worker import TAIL
from tests.integration.workers import WorkerProcess, publish, wait_for

USERS = 200
WIDER = (sys.executable, "-m", "tests.integration.wider_worker", "worker")


def views(first: int) -> list[BehaviourEvent]:
    """Three of each user, the `first` of them all at the front."""
    return [View(user_id=f"user-{n % USERS}", item_id=f"item-{n % 37}", ts=NOW + first + n) for n in range(3 * USERS)]


def settled(settings: Settings) -> bool:
    return not sum(source.pending for source in audit(settings).sources)


def rows(settings: Settings) -> dict[bytes, bytes]:
    """Each user's newest row."""
    return {message.key() or b"": message.value() or b"" for message in read(settings, changelog_topic(settings))}


def test_old_and_new_workers_share_a_group_and_what_the_new_ones_know_survives(
    kafka_settings: Settings, kafka_topics: Topics, tmp_path: Path
) -> None:
    settings = kafka_settings.model_copy(update={"lists": False})
    partitions = range(settings.partitions)
    with WorkerProcess(settings, tmp_path / "old.log") as old:
        old.wait_ready(partitions)
        publish(settings, views(0))
        wait_for("all folded by the old one", lambda: settled(settings))
        assert {row[0] for row in rows(settings).values()} == {VERSION}
        with WorkerProcess(settings, tmp_path / "new.log", WIDER) as new:
            wait_for("the new one serves a part", lambda: new.status().get("ready") and new.status()["partitions"])
            publish(settings, views(1_000))
            wait_for("all folded by both", lambda: settled(settings))
            assert old.stop() == 0  # what it had goes to the new one
            new.wait_ready(partitions)
            publish(settings, views(2_000))
            wait_for("all folded by the new one", lambda: settled(settings))
            wider = rows(settings)
            assert {(row[0], row[RECORD.itemsize :]) for row in wider.values()} == {(VERSION + 1, TAIL)}
            with WorkerProcess(settings, tmp_path / "back.log") as back:
                wait_for("an old one serves a part", lambda: back.status().get("ready") and back.status()["partitions"])
                assert new.stop() == 0  # the upgrade is taken back
                back.wait_ready(partitions)
                publish(settings, views(3_000))
                wait_for("all folded by the old one again", lambda: settled(settings))
                assert back.stop() == 0
    found = audit(settings)
    assert found.ok
    assert (found.users, found.agreeing) == (USERS, USERS)
    assert sum(source.folded for source in found.sources) == 4 * 3 * USERS
    assert {(row[0], row[RECORD.itemsize :]) for row in rows(settings).values()} == {(VERSION + 1, TAIL)}
    assert rows(settings).keys() == wider.keys()
