"""Copies a foreign behaviour topic into ours: the same bytes, keyed by user id, on the partition murmur2 gives."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer, open_consumer
from mmrec_stream.kafka.reader import PASSING, Span, receive, spans
from mmrec_stream.operations.letters import write_letter
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

BATCH = 10_000
"""Most records between two commits: what a crash copies a second time."""

SESSION_MS = 6_000
"""How long a copier that died keeps its partitions: the least that Kafka allows by default, as nothing has to be
rebuilt when they move."""

_MOVED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._NO_OFFSET,
    }
)
"""Why a commit fails when the partitions have moved: their new owner copies the batch again."""


def copy(settings: Settings, source: str, *, once: bool) -> Iterator[Counter[str]]:
    """Copy records of `source` into our topics; those that are no events into the dead letters.

    At least once: a batch is committed under the group `APP_ID-repartition` when all of it is delivered. Several
    copiers share the partitions. The copies carry the present as timestamp: a record dated years back would be past
    our topics' retention at once.

    Args:
        settings: which cluster and topics.
        source: full name of the foreign topic.
        once: end at the topic's end as it is at the call.

    Yields:
        Records copied by destination, after each batch.

    Raises:
        UserError: the topic does not exist, is one of ours, or is read by the workers already.
        DeliveryError: the broker did not take a record; its batch is not committed.
    """
    topics = Topics.of(settings)
    _check(settings, topics, source)
    there = spans(settings, source)
    with (
        closing(
            open_consumer(settings, group_of(settings), enable_partition_eof=True, session_timeout_ms=SESSION_MS)
        ) as consumer,
        BatchProducer(settings) as producer,
    ):
        share = _join(consumer, source, there)
        while not (once and share.at_end(there)):
            counts: Counter[str] = Counter()
            seen: dict[int, int] = {}
            for message in receive(consumer, BATCH):
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.code() in PASSING:
                        continue
                    raise KafkaException(error)
                if error is None:
                    counts[_forward(producer, topics, settings, message)] += 1
                # At the end, `offset` is that of the next record to come.
                seen[message.partition()] = message.offset() + (error is None)
            producer.flush()
            # What was given up meanwhile is its new owner's, who copies it again.
            kept = {partition: offset for partition, offset in seen.items() if partition in share.positions}
            if counts:
                _commit(consumer, source, kept)
                yield counts
            share.positions.update(kept)


def group_of(settings: Settings) -> str:
    """The consumer group of copiers."""
    return f"{settings.app_id}-repartition"


def _check(settings: Settings, topics: Topics, source: str) -> None:
    ours = {topics.clicks, topics.purchases, topics.feedback, topics.dead_letters}
    if source in ours:
        raise UserError(f"{source} is one of our own topics: copying it would count its events twice")
    if source in topics.foreign:
        raise UserError(
            f"{source} is in MMREC_BEHAVIOUR_TOPICS, so workers read it themselves and would count its events twice: "
            "take it out there and start the workers again"
        )
    there = Cluster(settings).partitions()
    if source not in there:
        raise UserError(f"topic {source} does not exist at {settings.bootstrap}")
    if missing := sorted(ours - there.keys()):
        raise UserError(f"{', '.join(missing)} does not exist: create our topics with `mmrec topics`")


_NEW = Span(0, 0)
"""A partition that the topic was given after the copy began."""


@dataclass
class _Share:
    """The partitions that this copier has, and the next offset in each."""

    joined: bool = False
    positions: dict[int, int] = field(default_factory=dict)

    def at_end(self, there: dict[int, Span]) -> bool:
        """Whether all that this copier has is copied; also if the group gave it nothing."""
        return self.joined and all(at >= there.get(p, _NEW).high for p, at in self.positions.items())


def _join(consumer: Consumer, source: str, there: dict[int, Span]) -> _Share:
    """Join the group; the share follows its assignments."""
    share = _Share()

    def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        share.joined = True
        starts = consumer.committed(partitions, timeout=30) if partitions else []
        for at in starts:
            at.offset = share.positions[at.partition] = max(at.offset, there.get(at.partition, _NEW).low)
        consumer.assign(starts)

    def revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            share.positions.pop(at.partition, None)

    consumer.subscribe([source], on_assign=assigned, on_revoke=revoked)
    return share


def _commit(consumer: Consumer, source: str, offsets: dict[int, int]) -> None:
    try:
        consumer.commit(
            offsets=[TopicPartition(source, partition, offset) for partition, offset in offsets.items()],
            asynchronous=False,
        )
    except KafkaException as error:
        if error.args[0].code() not in _MOVED:
            raise


def _forward(producer: BatchProducer, topics: Topics, settings: Settings, message: Message) -> str:
    """Queue the copy of one record; where it goes."""
    event = accept(message.value(), settings.max_event_bytes)
    if isinstance(event, Refusal):
        write_letter(producer, topics.dead_letters, message, event)
        return topics.dead_letters
    destination = topics.of_event(event)
    producer.send(destination, message.value(), key=event.user_id.encode(), headers=message.headers())
    return destination
