"""`mmrec forget`: asks, waits for the tombstones that a worker writes, and says by when the bytes are gone."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import TopicPartition

from mmrec_stream.contracts.behaviour import Forget, decode_event
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.kafka.clients import BatchProducer, open_consumer
from mmrec_stream.kafka.reader import follow, read, spans
from mmrec_stream.operations.erasure import Remains, Trace, outliving, remains
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from tests.cli.folding import click, fold_log, publish
from tests.conftest import Outcome

Mmrec = Callable[..., Outcome]
DAY_MS = 86_400_000


@contextmanager
def worker(settings: Settings, *, answers: bool = True) -> Iterator[None]:
    """What a worker does at a request: tombstones, unless it has none to write, and then its offset."""
    topics, stop = Topics.of(settings), threading.Event()
    starts = {topics.purchases: {partition: span.high for partition, span in spans(settings, topics.purchases).items()}}

    def work() -> None:
        for messages in follow(settings, starts):
            if stop.is_set():
                return
            for message in messages:
                event = decode_event(message.value() or b"")
                assert isinstance(event, Forget)
                with BatchProducer(settings) as producer:
                    for topic in (changelog_topic(settings), topics.recommendations) if answers else ():
                        producer.send(topic, None, key=event.user_id.encode())
                consumer = open_consumer(settings, settings.app_id)
                place = TopicPartition(message.topic(), message.partition(), message.offset() + 1)
                consumer.commit(offsets=[place], asynchronous=False)
                consumer.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def known(settings: Settings, topics: Topics) -> Settings:
    """A corner where something is known of ann, and a list of hers is there."""
    publish(settings, topics.clicks, [("ann", click("ann")), ("bob", click("bob"))])
    fold_log(settings)
    publish(settings, topics.recommendations, [("ann", b"a list")])
    return settings


def test_a_user_is_forgotten_once_profile_and_list_have_their_tombstones(known: Settings, mmrec: Mmrec) -> None:
    with worker(known):
        outcome = mmrec(known, "forget", "ann")
    assert outcome.exit_code == 0, outcome.output
    topics, partition = Topics.of(known), partition_of(b"ann", known.partitions)
    last = {
        topic: [message.offset() for message in read(known, topic, [partition]) if message.key() == b"ann"][-1]
        for topic in (changelog_topic(known), topics.recommendations)
    }
    assert "ann is forgotten" in outcome.stdout
    said = " ".join(outcome.stdout.split())
    for topic, offset in last.items():
        assert f"erased ({topic}, partition {partition}, offset {offset})" in said
    assert mmrec(known, "profile", "ann").exit_code == 1
    assert mmrec(known, "profile", "bob").exit_code == 0
    (request,) = read(known, topics.purchases, [partition])
    assert request.key() == b"ann"
    assert decode_event(request.value() or b"").user_id == "ann"


def test_a_user_of_whom_nothing_is_known_is_done_when_the_request_was_read(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    with worker(settings, answers=False):
        outcome = mmrec(settings, "forget", "stranger", "--json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert (found["erasure"]["profile"], found["erasure"]["lists"]) == (None, None)
    assert found["erasure"]["request"]["topic"] == topics.purchases
    assert {each["topic"] for each in found["remains"]} == {
        changelog_topic(settings),
        topics.recommendations,
        topics.dead_letters,
        *topics.behaviour,
    }


def test_without_a_worker_it_says_that_one_must_run_and_that_the_request_stays(
    known: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    outcome = mmrec(known, "forget", "ann", "--timeout", "0.5")
    assert outcome.exit_code == 1
    assert f"no worker of group {known.app_id} has read the request" in outcome.output
    assert len(list(read(known, topics.purchases))) == 1
    with worker(known):  # asking again is answered
        assert mmrec(known, "forget", "ann").exit_code == 0


def test_a_worker_that_leaves_the_profile_is_found_out(known: Settings, mmrec: Mmrec) -> None:
    with worker(known, answers=False):
        outcome = mmrec(known, "forget", "ann", "--timeout", "3")
    assert outcome.exit_code == 1
    topics = Topics.of(known)
    assert f"no tombstone is in {changelog_topic(known)}, {topics.recommendations}." in outcome.output


def test_an_id_that_no_user_has_is_refused(settings: Settings, mmrec: Mmrec) -> None:
    assert "1 to 128 characters" in mmrec(settings, "forget", "x" * 129).output


def test_the_deadlines_are_those_of_the_topics(kafka_settings: Settings, kafka_topics: Topics, mmrec: Mmrec) -> None:
    settings = kafka_settings
    Cluster(settings).set_config(changelog_topic(settings), {"max.compaction.lag.ms": str(3 * DAY_MS)})
    Cluster(settings).set_config(kafka_topics.clicks, {"retention.ms": "-1"})
    with worker(settings):
        outcome = mmrec(settings, "forget", "ann", "--json")
    found = json.loads(outcome.stdout)
    bounds = {each["topic"]: each["longest_ms"] for each in found["remains"]}
    segment = 7 * DAY_MS  # Kafka's default
    assert bounds[changelog_topic(settings)] == 3 * DAY_MS
    assert bounds[kafka_topics.recommendations] == DAY_MS + segment
    assert bounds[kafka_topics.purchases] == 365 * DAY_MS + segment
    assert bounds[kafka_topics.clicks] is None
    assert found["longer_than_request"] == [kafka_topics.clicks]


def state(**config: str) -> TopicState:
    return TopicState("t", 1, 1, {name.replace("_", "."): value for name, value in config.items()})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"cleanup_policy": "compact"}, Remains("t", None, "max.compaction.lag.ms")),
        (
            {"cleanup_policy": "compact", "max_compaction_lag_ms": "9223372036854775807", "retention_ms": "5"},
            Remains("t", None, "max.compaction.lag.ms"),
        ),
        ({"cleanup_policy": "compact", "max_compaction_lag_ms": "7"}, Remains("t", 7, "max.compaction.lag.ms")),
        (
            {"cleanup_policy": "delete", "retention_ms": "5", "segment_ms": "4", "max_compaction_lag_ms": "1"},
            Remains("t", 9, "retention.ms + segment.ms"),
        ),
        (
            {"cleanup_policy": "delete", "retention_ms": "-1", "segment_ms": "4"},
            Remains("t", None, "retention.ms + segment.ms"),
        ),
        (
            {"cleanup_policy": "compact,delete", "retention_ms": "5", "segment_ms": "4", "max_compaction_lag_ms": "7"},
            Remains("t", 7, "max.compaction.lag.ms"),
        ),
        ({}, Remains("t", None, "cleanup.policy")),
    ],
)
def test_how_long_bytes_remain_follows_from_what_the_topic_does(config: dict[str, str], expected: Remains) -> None:
    assert remains({"t": state(**config)}) == [expected]


def test_topics_that_outlive_the_request_are_named() -> None:
    left = [Remains("purchases", 9, ""), Remains("clicks", 3, ""), Remains("shop", None, ""), Remains("dead", 99, "")]
    assert outliving(left, "purchases", ["clicks", "purchases", "shop"]) == ["shop"]


@pytest.mark.parametrize(
    ("before", "after", "taken", "erased"),
    [
        ([b"row"], [], False, False),
        ([b"row"], [], True, False),
        ([b"row"], [None], False, True),
        ([b"row"], [b"row", None], False, True),
        ([b"row"], [None, b"of one who came back"], True, True),
        ([b"row", None], [], False, False),
        ([b"row", None], [], True, True),
        ([], [], True, True),
        ([], [b"row that was under way"], True, False),
    ],
)
def test_a_trace_is_gone_after_a_tombstone_or_if_there_was_none(
    before: list[bytes | None], after: list[bytes | None], taken: bool, erased: bool
) -> None:
    trace = Trace("t", "ann")
    for offset, value in enumerate(before + after):
        trace.see(offset, value, asked=offset >= len(before))
    assert trace.erased(taken=taken) is erased
