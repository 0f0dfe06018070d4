"""What differs between the topics planned and the topics there, and what is said about it."""

import pytest

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import TopicState
from mmrec_stream.kafka.plan import creatable, differences, uneven
from mmrec_stream.topics import TopicSpec

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
    assert creatable([CLICKS, BUYS, ITEMS], {"clicks": state(CLICKS)}) == [BUYS, ITEMS]


def test_a_topic_that_would_split_users_is_not_created() -> None:
    with pytest.raises(UserError, match=r"clicks exists with 8 partitions, so buys .* Set MMREC_PARTITIONS=8"):
        creatable([CLICKS, BUYS], {"clicks": state(CLICKS, partitions=8)})


def test_uneven_topics_are_listed() -> None:
    assert uneven({"a": 4, "b": 4}) is None
    assert uneven({"a": 4, "b": 12}) == "a has 4, b has 12"
