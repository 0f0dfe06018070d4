"""Topics are created as planned, described as they are, and never touched when they exist."""

import pytest

from mmrec_stream.brokers import free_port
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import open_consumer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec, topic_plan


def test_the_whole_plan_is_created_once(settings: Settings) -> None:
    plan, cluster = topic_plan(settings), Cluster(settings)
    assert sorted(cluster.create(plan)) == sorted(spec.name for spec in plan)
    assert cluster.create(plan) == []
    states = cluster.describe(spec.name for spec in plan)
    for spec in plan:
        state = states[spec.name]
        assert (state.partitions, state.replication) == (spec.partitions, 1)
        assert {key: state.config[key] for key in spec.config} == spec.config


def test_missing_topics_are_left_out_of_a_description(settings: Settings) -> None:
    assert Cluster(settings).describe([f"{settings.prefix}nowhere"]) == {}


def test_a_configuration_value_can_be_set(kafka_settings: Settings) -> None:
    name, cluster = f"{kafka_settings.prefix}t", Cluster(kafka_settings)
    cluster.create([TopicSpec(name, "user id", 1, 1, {"retention.ms": "1000000", "cleanup.policy": "delete"})])
    cluster.set_config(name, {"retention.ms": "2000000"})
    state = cluster.describe([name])[name]
    assert (state.config["retention.ms"], state.config["cleanup.policy"]) == ("2000000", "delete")


def test_a_refused_topic_says_why(kafka_settings: Settings) -> None:
    spec = TopicSpec(f"{kafka_settings.prefix}t", "user id", 1, replication=3)
    with pytest.raises(UserError, match=f"topic {spec.name} cannot be created: .*[Rr]eplication factor"):
        Cluster(kafka_settings).create([spec])


def test_group_offsets(settings: Settings) -> None:
    from confluent_kafka import TopicPartition

    name, cluster = f"{settings.prefix}t", Cluster(settings)
    cluster.create([TopicSpec(name, "user id", 2, 1)])
    assert cluster.committed(settings.app_id, [name, "nowhere"]) == {}
    consumer = open_consumer(settings, settings.app_id)
    consumer.commit(offsets=[TopicPartition(name, 1, 42)], asynchronous=False)
    consumer.close()
    assert cluster.committed(settings.app_id, [name]) == {(name, 1): 42}


def test_no_broker_is_a_readable_line() -> None:
    settings = Settings(_env_file=None, bootstrap=f"127.0.0.1:{free_port()}")  # type: ignore[call-arg]
    with pytest.raises(UserError, match=f"no broker answers at {settings.bootstrap}"):
        Cluster(settings).partitions(timeout_s=0.5)
