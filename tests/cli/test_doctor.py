"""`mmrec doctor` finds what is broken, says what to do, and is content with what is well."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from mmrec_stream.brokers import free_port
from mmrec_stream.cli.doctor import installation_findings
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.contracts.releases import ReleaseAnnouncement, encode_release
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.operations.findings import Level
from mmrec_stream.processor import these_instruction_sets, this_processor
from mmrec_stream.releases import announcement, write_release
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec, changelog_topic, topic_plan
from tests.cli.folding import NOW, click, delete_before, fold_log, publish
from tests.conftest import Outcome
from tests.releases.test_releases import contents, manifest

Mmrec = Callable[..., Outcome]
USERS = [f"user-{number}" for number in range(50)]


def findings(outcome: Outcome) -> dict[str, dict[str, str]]:
    """By check; of several of one check the first."""
    return {finding["check"]: finding for finding in map(json.loads, reversed(outcome.stdout.splitlines()))}


def test_a_healthy_cluster_has_nothing_broken(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [(user, click(user)) for user in USERS])
    fold_log(settings)
    outcome = mmrec(settings, "doctor", "--json")
    found = findings(outcome)
    assert outcome.exit_code == 0, outcome.output
    assert {check: f["detail"] for check, f in found.items() if f["level"] == "broken"} == {}
    assert found["topics"]["detail"] == f"all {len(topic_plan(settings))} as planned"
    assert found["group protocol"]["level"] == "ok"
    assert found[f"keys of {topics.clicks}"]["detail"] == "50 sampled events lie where murmur2 puts their users"
    assert found["release"]["level"] == "note"
    assert found[f"group {settings.app_id}"]["detail"] == "0 events to be read"
    text = mmrec(settings, "doctor").stdout
    assert "ok     co-partitioning: 4 topics by user, 4 partitions" in text
    assert "→ `mmrec train`" in text


def test_no_broker_is_one_finding(tmp_path: Path, mmrec: Mmrec) -> None:
    nowhere = Settings(_env_file=None, bootstrap=f"127.0.0.1:{free_port()}", data_dir=tmp_path)  # type: ignore[call-arg]
    outcome = mmrec(nowhere, "doctor", "--json")
    assert outcome.exit_code == 1
    broker = findings(outcome)["broker"]
    assert broker["level"] == "broken"
    assert "mmrec broker" in broker["remedy"]


def test_missing_topics_are_broken(settings: Settings, mmrec: Mmrec) -> None:
    outcome = mmrec(settings, "doctor", "--json")
    assert outcome.exit_code == 1
    clicks = findings(outcome)[f"topic {Topics.of(settings).clicks}"]
    assert (clicks["detail"], clicks["remedy"]) == ("does not exist", "create it: `mmrec topics`")


def test_a_foreign_topic_by_crc32_with_other_partitions_is_found(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    shop = f"{settings.prefix}shop"
    Cluster(settings).create([TopicSpec(shop, "user id", 6, 1)])
    producer = Producer({"bootstrap.servers": settings.bootstrap})  # librdkafka's default partitioner
    for user in USERS:
        producer.produce(shop, click(user), user)
    assert producer.flush(30) == 0
    outcome = mmrec(settings.model_copy(update={"behaviour_topics": [shop, "gone"]}), "doctor", "--json")
    found = findings(outcome)
    assert outcome.exit_code == 1
    assert f"{shop} has 6" in found["co-partitioning"]["detail"]
    keys = found[f"keys of {shop}"]
    assert keys["level"] == "broken"
    assert "CRC32" in keys["detail"]
    assert keys["remedy"].endswith(f"`mmrec repartition --from {shop}`")
    assert "does not exist" in found["topic gone"]["detail"]


def test_only_the_newest_records_are_sampled(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("ann", click("ann")) for _ in range(100)])
    found = findings(mmrec(settings, "doctor", "--json", "--sample", "10"))
    assert found[f"keys of {topics.clicks}"]["detail"].startswith("10 sampled")


def test_events_nobody_reads_are_told(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("ann", click("ann"))])
    assert "no worker has run" in findings(mmrec(settings, "doctor", "--json"))[f"group {settings.app_id}"]["detail"]
    fold_log(settings)
    publish(settings, topics.clicks, [("ann", click("ann")), ("bob", click("bob"))])
    lag = findings(mmrec(settings, "doctor", "--json"))[f"group {settings.app_id}"]
    assert lag["detail"].startswith("2 events to be read, the oldest came")


def test_events_deleted_unread_are_broken(kafka_settings: Settings, kafka_topics: Topics, mmrec: Mmrec) -> None:
    publish(kafka_settings, kafka_topics.clicks, [("ann", click("ann"))])
    fold_log(kafka_settings)
    publish(kafka_settings, kafka_topics.clicks, [("ann", click("ann")) for _ in range(10)])
    delete_before(kafka_settings, kafka_topics.clicks, partition_of(b"ann", kafka_settings.partitions), 5)
    outcome = mmrec(kafka_settings, "doctor", "--json")
    assert outcome.exit_code == 1
    assert "4 events were deleted by retention" in findings(outcome)[f"group {kafka_settings.app_id}"]["detail"]


def test_a_changelog_that_is_gone_is_broken(kafka_settings: Settings, kafka_topics: Topics, mmrec: Mmrec) -> None:
    publish(kafka_settings, kafka_topics.clicks, [("ann", click("ann"))])
    fold_log(kafka_settings)
    changelog = changelog_topic(kafka_settings)
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap})
    for future in admin.delete_topics([changelog], operation_timeout=15).values():
        future.result()
    while changelog in Cluster(kafka_settings).partitions():
        admin.poll(0.02)
    outcome = mmrec(kafka_settings, "doctor", "--json")
    found = findings(outcome)["changelog"]
    assert outcome.exit_code == 1
    assert found["detail"].startswith(f"{changelog} is gone")
    assert "another MMREC_APP_ID" in found["remedy"]


def test_an_announced_release_is_verified_whole(
    settings: Settings, topics: Topics, mmrec: Mmrec, tmp_path: Path
) -> None:
    write_release(tmp_path / "r1", contents(), manifest("r1"))
    publish(settings, topics.releases, [("hybrid", encode_release(announcement(tmp_path / "r1")))])
    well = findings(mmrec(settings, "doctor", "--json"))["release"]
    assert (well["level"], well["detail"].split()[0]) == ("ok", "r1")
    with (tmp_path / "r1" / "ranker.onnx").open("r+b") as file:
        file.write(b"x")
    tampered = mmrec(settings, "doctor", "--json")
    assert tampered.exit_code == 1
    assert "ranker.onnx" in findings(tampered)["release"]["detail"]


def test_the_live_release_is_verified_and_the_one_on_trial_too(
    settings: Settings, topics: Topics, mmrec: Mmrec, tmp_path: Path
) -> None:
    for version, stage in (("r1", "live"), ("r2", "shadow")):
        write_release(tmp_path / version, contents(), manifest(version))
        told = msgspec.structs.replace(announcement(tmp_path / version), stage=stage)
        publish(settings, topics.releases, [(version, encode_release(told))])
    found = findings(mmrec(settings, "doctor", "--json"))
    assert found["release"]["detail"].startswith("r1 (live) at ")
    assert found["release on trial"]["detail"].startswith("r2 (shadow) at ")
    (tmp_path / "r1" / "ranker.onnx").write_bytes(b"x")
    tampered = mmrec(settings, "doctor", "--json")
    assert tampered.exit_code == 1
    assert "r1: ranker.onnx" in findings(tampered)["release"]["detail"]
    assert findings(tampered)["release on trial"]["level"] == "ok"
    assert mmrec(settings, "release", "rollback", "r2").exit_code == 0
    assert "release on trial" not in findings(mmrec(settings, "doctor", "--json"))


def test_an_announced_release_that_is_not_there_is_broken(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    gone = ReleaseAnnouncement(version="r1", uri="file:///nowhere/r1", manifest_sha256="0" * 64, created=NOW)
    publish(settings, topics.releases, [("hybrid", encode_release(gone))])
    outcome = mmrec(settings, "doctor", "--json")
    assert outcome.exit_code == 1
    assert "release /nowhere/r1: no such folder" in findings(outcome)["release"]["detail"]


def test_dead_letters_are_noted(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("ann", b"not json")])
    fold_log(settings)
    found = findings(mmrec(settings, "doctor", "--json"))["dead letters"]
    assert (found["level"], found["detail"]) == ("note", "1 inputs could not be used")
    assert "mmrec redrive" in found["remedy"]


def test_the_installation_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path / "new", provider="cpu")  # type: ignore[call-arg]
    found = {finding.check: finding for finding in installation_findings(settings)}
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert "confluent-kafka" in found["packages"].detail
    assert this_processor() in found["processor"].detail
    assert all(name in found["processor"].detail for name in (*these_instruction_sets(), "BLAS for", "numba for"))
    assert "CPU" in found["ONNX Runtime"].detail
    approximate = settings.model_copy(update={"retrieval": "approximate"})
    monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed
    found = {finding.check: finding for finding in installation_findings(approximate)}
    lacking = found["retrieval"]
    assert lacking.level is Level.BROKEN
    assert "mmrec-stream[ann]" in lacking.remedy
    (tmp_path / "file").touch()
    broken = Settings(_env_file=None, data_dir=tmp_path / "file" / "x")  # type: ignore[call-arg]
    levels = {finding.check: finding.level for finding in installation_findings(broken, ("no-such-package",))}
    assert levels["packages"] is Level.BROKEN
    assert levels["data folder"] is Level.BROKEN
