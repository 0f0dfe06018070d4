"""Bounded reading sees every record up to the true end, and stops there."""

from itertools import pairwise

import pytest

from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import Span, read, read_batches, spans, tails
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec
from tests.cli.folding import delete_before


@pytest.fixture
def topic(settings: Settings) -> str:
    name = f"{settings.prefix}log"
    Cluster(settings).create([TopicSpec(name, "user id", 3, 1)])
    return name


def fill(settings: Settings, topic: str, count: int, partition: int, first: int = 0) -> None:
    """`count` records in as few batches as possible: a long last batch is where a wrong end hides."""
    with BatchProducer(settings, linger_ms=100, idempotent=False) as producer:
        for number in range(first, first + count):
            producer.send(topic, b"%d" % number, key=b"k", partition=partition)


def test_an_empty_topic_is_empty(settings: Settings, topic: str) -> None:
    assert spans(settings, topic) == {0: Span(0, 0), 1: Span(0, 0), 2: Span(0, 0)}
    assert list(read_batches(settings, topic)) == []


def test_the_true_end_includes_the_last_batch(settings: Settings, topic: str) -> None:
    fill(settings, topic, 1_000, partition=0)
    fill(settings, topic, 1, partition=1)
    assert spans(settings, topic) == {0: Span(0, 1_000), 1: Span(0, 1), 2: Span(0, 0)}
    assert spans(settings, topic, [1]) == {1: Span(0, 1)}


def test_every_record_is_read_once_in_the_order_of_its_partition(settings: Settings, topic: str) -> None:
    fill(settings, topic, 5_000, partition=0)
    fill(settings, topic, 7, partition=2)
    seen: dict[int, list[int]] = {}
    for message in read(settings, topic):
        seen.setdefault(message.partition(), []).append(int(message.value()))
    assert seen == {0: list(range(5_000)), 2: list(range(7))}


def test_batches_are_bounded_and_never_empty(settings: Settings, topic: str) -> None:
    fill(settings, topic, 1_000, partition=0)
    sizes = [len(batch) for batch in read_batches(settings, topic, batch=64)]
    assert sum(sizes) == 1_000
    assert min(sizes) > 0
    assert max(sizes) <= 64


def test_start_and_end_cut_inside_batches(settings: Settings, topic: str) -> None:
    fill(settings, topic, 100, partition=0)
    fill(settings, topic, 100, partition=1)
    got = [(m.partition(), m.offset()) for m in read(settings, topic, [0, 1], {0: 90, 1: 100}, {0: 95})]
    assert got == [(0, offset) for offset in range(90, 95)]


def test_what_comes_after_the_call_is_not_read(settings: Settings, topic: str) -> None:
    fill(settings, topic, 500, partition=0)
    reading = read_batches(settings, topic, batch=100)
    first = next(reading)
    fill(settings, topic, 500, partition=0, first=500)
    rest = [message for batch in reading for message in batch]
    assert [int(message.value()) for message in [*first, *rest]] == list(range(500))


def test_reading_on_from_an_end_misses_and_repeats_nothing(settings: Settings, topic: str) -> None:
    ends = [0]
    offsets: list[int] = []
    for round_ in range(3):
        fill(settings, topic, 333, partition=0, first=333 * round_)
        offsets += [m.offset() for m in read(settings, topic, [0], {0: ends[-1]})]
        ends.append(spans(settings, topic, [0])[0].high)
    assert offsets == list(range(999))
    assert all(b - a == 333 for a, b in pairwise(ends))


def test_tombstones_are_read(settings: Settings, topic: str) -> None:
    with BatchProducer(settings) as producer:
        producer.send(topic, None, key=b"gone", partition=0)
    assert [(m.key(), m.value()) for m in read(settings, topic)] == [(b"gone", None)]


def test_a_missing_topic_is_not_created_by_asking(settings: Settings) -> None:
    name = f"{settings.prefix}nowhere"
    with pytest.raises(UserError, match=f"topic {name} does not exist"):
        list(read_batches(settings, name))
    assert name not in Cluster(settings).partitions()


def test_a_missing_partition_is_named(settings: Settings, topic: str) -> None:
    with pytest.raises(UserError, match="has 3 partitions, and none numbered 7"):
        spans(settings, topic, [0, 7])


def test_deleted_beginnings_are_left_out(kafka_settings: Settings) -> None:
    """Kafka deletes what retention is over for; an offset before the beginning starts at the beginning."""
    name = f"{kafka_settings.prefix}trimmed"
    Cluster(kafka_settings).create([TopicSpec(name, "user id", 1, 1, {"cleanup.policy": "delete"})])
    fill(kafka_settings, name, 100, partition=0)
    delete_before(kafka_settings, name, 0, 60)
    assert spans(kafka_settings, name) == {0: Span(60, 100)}
    assert [m.offset() for m in read(kafka_settings, name, [0], {0: 10})] == list(range(60, 100))


def test_transaction_markers_at_the_end_do_not_stall(kafka_settings: Settings) -> None:
    """Commit and abort markers take offsets and carry no record."""
    from confluent_kafka import Producer

    name = f"{kafka_settings.prefix}transactions"
    Cluster(kafka_settings).create([TopicSpec(name, "user id", 1, 1)])
    producer = Producer({"bootstrap.servers": kafka_settings.bootstrap, "transactional.id": name})
    producer.init_transactions(30)
    for value, commit in ((b"kept", True), (b"dropped", False)):
        producer.begin_transaction()
        producer.produce(name, value)
        producer.flush(30)
        producer.commit_transaction(30) if commit else producer.abort_transaction(30)
    assert [m.value() for m in read(kafka_settings, name)] == [b"kept"]
    producer.begin_transaction()
    producer.produce(name, b"undecided")
    producer.flush(30)
    assert [m.value() for m in read(kafka_settings, name)] == [b"kept"], "what is undecided is not waited for"
    producer.abort_transaction(30)


def test_tails_leave_the_last_records() -> None:
    assert tails({0: Span(0, 100), 1: Span(95, 100), 2: Span(0, 0)}, 10) == {0: 90, 1: 95, 2: 0}
