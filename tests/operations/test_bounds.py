"""What `mmrec doctor` says of brokers: what they take from workers, how safe records are, and what to set."""

from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.operations import bounds
from mmrec_stream.operations.bounds import broker_findings, changelog_finding, replica_findings, worker_protocol
from mmrec_stream.operations.findings import Finding, Level
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec
from streams import changelog, group
from streams.app import group_protocol
from streams.assignment import ENTITLED_S
from streams.outbox import LIST_TIMEOUT_S

KAFKA_4 = {
    "group.coordinator.rebalance.protocols": "classic,consumer,streams",
    "group.consumer.session.timeout.ms": "45000",
    "group.consumer.min.session.timeout.ms": "45000",
    "group.consumer.heartbeat.interval.ms": "5000",
    "group.consumer.min.heartbeat.interval.ms": "5000",
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "transaction.max.timeout.ms": "900000",
}
"""As it is delivered."""

SHORT = {"consumer.session.timeout.ms": "6000", "consumer.heartbeat.interval.ms": "1000"}


def worker(**values: str) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type, call-arg]


def finding(settings: Settings, broker: Mapping[str, str], group: Mapping[str, str] | None = None) -> Finding:
    (found,) = [one for one in broker_findings(settings, broker, group or {}) if one.check == "group protocol"]
    return found


def test_a_long_session_is_noted_with_what_the_brokers_must_allow_first() -> None:
    found = finding(worker(), KAFKA_4)
    assert (found.level, "stand still for 45 s" in found.detail) == (Level.NOTE, True)
    assert "group.consumer.min.session.timeout.ms=6000" in found.remedy
    allowed = KAFKA_4 | {
        "group.consumer.min.session.timeout.ms": "6000",
        "group.consumer.min.heartbeat.interval.ms": "500",
    }
    assert finding(worker(), allowed).remedy.startswith("set consumer.session.timeout.ms=6000")
    assert finding(worker(), allowed, SHORT) == Finding(
        Level.OK, "group protocol", "consumer, session 6 s, heartbeat 1 s"
    )


@pytest.mark.parametrize(
    ("session", "heartbeat", "level", "word"),
    [
        ("5000", "1000", Level.BROKEN, "after the next owner's"),
        ("9000", "3000", Level.OK, "session 9 s"),
        ("9000", "4000", Level.NOTE, "two lost heartbeats"),
    ],
)
def test_sessions_that_do_not_fit_what_workers_rely_on(session: str, heartbeat: str, level: Level, word: str) -> None:
    in_force = {"consumer.session.timeout.ms": session, "consumer.heartbeat.interval.ms": heartbeat}
    found = finding(worker(), KAFKA_4, in_force)
    assert (found.level, word in found.detail) == (level, True)


@pytest.mark.parametrize(
    ("name", "bound", "setting"),
    [
        ("", {"group.min.session.timeout.ms": "10000"}, "group.min.session.timeout.ms=6000"),
        ("pod-1", {"group.max.session.timeout.ms": "20000"}, "group.max.session.timeout.ms=30000"),
    ],
)
def test_a_classic_session_that_the_brokers_refuse_is_broken(name: str, bound: dict[str, str], setting: str) -> None:
    asked = worker(worker_name=name, group_protocol="classic")
    assert finding(asked, KAFKA_4).level is Level.OK
    found = finding(asked, KAFKA_4 | bound)
    assert found.level is Level.BROKEN
    assert setting in found.remedy


def test_a_protocol_that_does_not_fit_is_told() -> None:
    old = {"group.coordinator.rebalance.protocols": "classic"}
    assert finding(worker(group_protocol="consumer"), old).level is Level.BROKEN
    assert finding(worker(), old).detail == "classic, session 6 s"
    named = finding(worker(group_protocol="consumer", worker_name="pod-1"), KAFKA_4)
    assert (named.level, "MMREC_GROUP_PROTOCOL=auto" in named.remedy) == (Level.NOTE, True)


def test_a_broker_that_tells_nothing_is_not_complained_of() -> None:
    assert [found.level for found in broker_findings(worker(), {}, {})] == [Level.OK]


def test_transactions_shorter_than_the_writers_ask_for_are_broken() -> None:
    (found,) = [
        one
        for one in broker_findings(worker(), KAFKA_4 | {"transaction.max.timeout.ms": "30000"}, SHORT)
        if one.level is Level.BROKEN
    ]
    assert "transaction.max.timeout.ms=60000" in found.remedy


@pytest.mark.parametrize(
    ("replication", "least", "brokers", "level", "word"),
    [
        (1, "1", 1, None, ""),
        (1, "1", 3, Level.NOTE, "one copy"),
        (3, "1", 3, Level.NOTE, "1 of 3"),
        (3, "2", 3, None, ""),
        (3, "3", 3, Level.BROKEN, "every copy"),
        (2, "2", 3, Level.BROKEN, "every copy"),
    ],
)
def test_replicas(replication: int, least: str, brokers: int, level: Level | None, word: str) -> None:
    spec = TopicSpec("clicks", "user id", 4, replication)
    state = TopicState("clicks", 4, replication, {"min.insync.replicas": least})
    found = list(replica_findings([spec], {"clicks": state}, brokers))
    assert [one.level for one in found] == ([level] if level else [])
    assert all(word in one.detail for one in found)


def test_a_changelog_that_is_gone_is_broken_once_something_was_read() -> None:
    assert not list(changelog_finding(worker(), False, {}))
    assert not list(changelog_finding(worker(), False, {("clicks", 0): 0}))
    assert not list(changelog_finding(worker(), True, {("clicks", 0): 7}))
    (found,) = changelog_finding(worker(), False, {("clicks", 0): 7})
    assert found.level is Level.BROKEN
    assert "MMREC_APP_ID" in found.remedy


def test_the_doctor_knows_what_workers_ask_for(settings: Settings) -> None:
    assert group.CLASSIC_SESSION_S * 1000 == bounds.CLASSIC_SESSION_MS
    assert group.STATIC_SESSION_S * 1000 == bounds.STATIC_SESSION_MS
    assert changelog.TRANSACTION_TIMEOUT_MS == bounds.TRANSACTION_MS
    assert max(2 * ENTITLED_S, LIST_TIMEOUT_S) * 1000 <= bounds.SHORTEST_SESSION_MS
    offered = Cluster(settings).speaks_consumer_protocol()
    for more in ({}, {"worker_name": "pod-1"}, {"group_protocol": "classic"}, {"group_protocol": "consumer"}):
        asked = settings.model_copy(update=more)
        assert worker_protocol(asked, offered) == group_protocol(asked)


def test_what_is_set_for_the_group_is_in_force(kafka_settings: Settings) -> None:
    cluster = Cluster(kafka_settings)
    before = finding(kafka_settings, cluster.broker_config(), cluster.group_config(kafka_settings.app_id))
    entry = ConfigEntry("consumer.session.timeout.ms", "11000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, kafka_settings.app_id, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka_settings.bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    while cluster.group_config(kafka_settings.app_id)["consumer.session.timeout.ms"] != "11000":
        admin.poll(0.02)
    after = finding(kafka_settings, cluster.broker_config(), cluster.group_config(kafka_settings.app_id))
    assert "session 11 s" not in before.detail
    assert "stand still for 11 s" in after.detail
