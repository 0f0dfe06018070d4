"""What differs between the topics planned and the topics there, and what is said about it."""

import pytest
from confluent_kafka import TopicPartition

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.kafka.clients import open_consumer
from mmrec_stream.kafka.plan import creatable, differences, ensure_topics, uneven
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec, changelog_topic, topic_plan

CLICKS = TopicSpec("clicks", "user id", 4, 1, {"cleanup.policy": "delete", "retention.ms": "1000"})
BUYS = TopicSpec("buys", "user id", 4, 1)
ITEMS = TopicSpec("items", "item id", 1, 1, {"cleanup.policy": "compact"})


def state(spec: TopicSpec, partitions: int | None = None, replication: int = 1, **config: str) -> TopicState:
    values = dict(spec.config) | {key.replace("_", "."): value for key, value in config.items()}
    return TopicState(spec.name, partitions or spec.partitions, replication, values)


def test_topics_as_planned_differ_in_nothing() -> None:
    assert differences([CLICKS, ITEMS], {"clicks": state(CLICKS), "items": state(ITEMS)}) == []


@pytest.mark.parametrize(
    ("found", "name", "breaks", "remedy"),
    [
        (state(CLICKS, partitions=2), "partitions", True, "MMREC_PARTITIONS=2"),
        (state(CLICKS, partitions=8), "partitions", True, "MMREC_PARTITIONS=8"),
        (state(CLICKS, replication=3), "replication", False, "MMREC_REPLICATION=3"),
        (state(CLICKS, retention_ms="7"), "retention.ms", False, "--alter"),
        (state(CLICKS, cleanup_policy="compact"), "cleanup.policy", True, "--alter"),
    ],
)
def test_each_difference_is_named_with_its_remedy(found: TopicState, name: str, breaks: bool, remedy: str) -> None:
    (difference,) = differences([CLICKS], {"clicks": found})
    assert (difference.topic, difference.name, difference.breaks) == ("clicks", name, breaks)
    assert remedy in difference.remedy


def test_partitions_of_a_topic_by_item_break_nothing() -> None:
    (difference,) = differences([ITEMS], {"items": state(ITEMS, partitions=3)})
    assert not difference.breaks


def test_a_missing_topic_breaks_the_stream() -> None:
    (difference,) = differences([CLICKS], {})
    assert (difference.aspect, difference.breaks) == ("missing", True)


def test_only_missing_topics_are_created() -> None:
    assert creatable([CLICKS, BUYS, ITEMS], {"clicks": 4}) == [BUYS, ITEMS]


def test_a_topic_that_would_split_users_is_not_created() -> None:
    with pytest.raises(UserError, match=r"clicks exists with 8 partitions, so buys .* Set MMREC_PARTITIONS=8"):
        creatable([CLICKS, BUYS], {"clicks": 8})


def test_uneven_topics_are_listed() -> None:
    assert uneven({"a": 4, "b": 4}) is None
    assert uneven({"a": 4, "b": 12}) == "a has 4, b has 12"


def test_missing_topics_are_created_once(settings: Settings) -> None:
    assert sorted(ensure_topics(settings)) == sorted(spec.name for spec in topic_plan(settings))
    assert ensure_topics(settings) == []


def test_a_changelog_that_is_gone_is_not_made_anew_when_its_group_has_read_on(settings: Settings) -> None:
    clicks, changelog, cluster = Topics.of(settings).clicks, changelog_topic(settings), Cluster(settings)
    cluster.create([spec for spec in topic_plan(settings) if spec.name != changelog])
    consumer = open_consumer(settings, settings.app_id)
    consumer.commit(offsets=[TopicPartition(clicks, 1, 42)], asynchronous=False)
    consumer.close()
    with pytest.raises(UserError, match=rf"changelog {changelog} is gone, and group \S+ has read {clicks}\[1\]"):
        ensure_topics(settings)
    assert changelog not in cluster.partitions()
    another = settings.model_copy(update={"app_id": f"{settings.app_id}-new"})
    assert ensure_topics(another) == [changelog_topic(another)]


def test_nothing_is_created_beside_topics_that_have_other_partitions(settings: Settings) -> None:
    ensure_topics(settings)
    other = settings.model_copy(update={"app_id": f"{settings.app_id}-new", "partitions": settings.partitions + 1})
    with pytest.raises(UserError, match=f"Set MMREC_PARTITIONS={settings.partitions}"):
        ensure_topics(other)
    assert changelog_topic(other) not in Cluster(settings).partitions()


def test_topics_that_all_have_other_partitions_are_refused(settings: Settings) -> None:
    ensure_topics(settings)
    more = settings.model_copy(update={"partitions": settings.partitions + 1})
    with pytest.raises(UserError, match=f"{Topics.of(settings).clicks} has {settings.partitions} partitions"):
        ensure_topics(more)


def test_a_shops_own_topic_has_to_be_there_with_the_same_partitions(settings: Settings) -> None:
    shop = f"{settings.prefix}shop"
    with_shop = settings.model_copy(update={"behaviour_topics": [shop]})
    with pytest.raises(UserError, match=f"topic {shop} does not exist"):
        ensure_topics(with_shop)
    Cluster(settings).create([TopicSpec(shop, "user id", settings.partitions + 2, 1)])
    with pytest.raises(UserError, match=f"topic {shop} has {settings.partitions + 2} partitions"):
        ensure_topics(with_shop)
