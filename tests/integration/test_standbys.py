"""A worker leaves, and another goes on with the rows that it kept warm."""

import re
import urllib.request
from pathlib import Path

import pytest

from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.test_worker import views
from tests.integration.workers import WorkerProcess, folded, profiles, publish, wait_for

USERS = 2_000


def restored(worker: WorkerProcess) -> int:
    """Changelog rows that a worker has read to take partitions over."""
    with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/metrics", timeout=5) as answer:
        found = re.search(r"^mmrec_restored_rows_total (\S+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@pytest.mark.kafka
def test_partitions_are_taken_over_with_the_tail_of_their_changelog_alone(
    kafka_settings: Settings, kafka_topics: Topics, tmp_path: Path
) -> None:
    settings = kafka_settings.model_copy(update={"standbys": 1, "lists": False})
    everything = set(range(settings.partitions))
    count = publish(settings, views(10_000, users=USERS))

    def warm(worker: WorkerProcess, others: list[int]) -> bool:
        status = worker.status()
        kept = set(status["warm_partitions"]) >= set(others)
        return kept and status["warm_profiles"] + status["profiles"] == USERS and not status["warm_behind"]

    with WorkerProcess(settings, tmp_path / "one.log") as one:
        one.wait_ready(everything)
        wait_for("all events folded", lambda: folded(settings) == count)
        with WorkerProcess(settings, tmp_path / "two.log") as two:
            two.wait_ready()
            wait_for("partitions on both", lambda: one.status()["ready"] and len(one.status()["partitions"]) == 2)
            # It has read them before it joined.
            assert "partitions warm after" in two.log.read_text()
            assert restored(two) < USERS / 20
            share = two.status()["partitions"]
            wait_for("the rows of the one at the other", lambda: warm(one, share))
            before = restored(one)
            count += publish(settings, views(100, users=50))
            wait_for("both shares folded", lambda: folded(settings) == count)
            assert two.stop() == 0
            one.wait_ready(everything)
            assert restored(one) - before < USERS / 20
            assert one.status()["profiles"] == USERS
        count += publish(settings, views(1_000, users=USERS))
        wait_for("all folded by the one that stayed", lambda: folded(settings) == count)
        assert one.stop() == 0
    assert sum(int(record["events"]) for record in profiles(settings).values()) == count
