"""`mmrec topics` creates what is missing, reports what differs, and changes nothing unasked."""

from collections.abc import Callable
from typing import Any

from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec, topic_plan
from tests.conftest import Outcome

Mmrec = Callable[..., Outcome]


def changed(settings: Settings, **values: Any) -> Settings:
    return settings.model_copy(update=values)


def test_a_first_run_creates_everything_and_a_second_nothing(settings: Settings, mmrec: Mmrec) -> None:
    first = mmrec(settings, "topics")
    assert first.exit_code == 0, first.output
    plan = topic_plan(settings)
    assert first.stdout.count("created") == len(plan)
    assert set(Cluster(settings).partitions()) >= {spec.name for spec in plan}
    second = mmrec(settings, "topics")
    assert second.exit_code == 0
    assert "created" not in second.stdout
    assert second.stdout.count("as planned") == len(plan)


def test_a_different_retention_is_reported_and_altered_only_on_demand(kafka_settings: Settings, mmrec: Mmrec) -> None:
    clicks = Topics.of(kafka_settings).clicks
    own = {"cleanup.policy": "delete", "retention.ms": "3600000"}
    cluster = Cluster(kafka_settings)
    cluster.create([TopicSpec(clicks, "user id", kafka_settings.partitions, 1, own)])
    report = mmrec(kafka_settings, "topics")
    assert report.exit_code == 0, "a retention is its owner's choice"
    assert "retention.ms is 3600000, planned 2592000000" in " ".join(report.stdout.split())
    assert cluster.describe([clicks])[clicks].config["retention.ms"] == "3600000"
    altered = mmrec(kafka_settings, "topics", "--alter")
    assert altered.exit_code == 0
    assert "retention.ms set" in altered.stdout
    assert cluster.describe([clicks])[clicks].config["retention.ms"] == "2592000000"


def test_other_partitions_are_refused_with_the_reason(settings: Settings, mmrec: Mmrec) -> None:
    assert mmrec(settings, "topics").exit_code == 0
    more = mmrec(changed(settings, partitions=8), "topics", "--alter")
    assert more.exit_code == 1
    assert "MMREC_PARTITIONS=4. More partitions move users" in " ".join(more.stdout.split())
    clicks = Topics.of(settings).clicks
    assert Cluster(settings).partitions()[clicks] == 4


def test_topics_that_would_split_users_are_not_created(settings: Settings, mmrec: Mmrec) -> None:
    Cluster(settings).create([TopicSpec(Topics.of(settings).clicks, "user id", 2, 1)])
    outcome = mmrec(settings, "topics")
    assert outcome.exit_code == 1
    assert "Set MMREC_PARTITIONS=2" in outcome.stderr
    assert Topics.of(settings).purchases not in Cluster(settings).partitions()
