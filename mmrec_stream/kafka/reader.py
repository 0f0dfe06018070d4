"""Bounded reading: a topic from where you say to its end as it was at the call, in batches, without a consumer group.

The end is taken from a Fetch response's high watermark and not from ListOffsets: the embedded broker's ListOffsets
leaves out the tail of the last batch, and a table restored to it would miss records silently. On Kafka both agree.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from mmrec_stream.errors import NoBrokerError, UserError
from mmrec_stream.kafka.clients import open_consumer
from mmrec_stream.settings import Settings

BATCH = 2_000
"""Most records of a batch: 2 MB of profiles, which the processor's cache holds. Reading 400,000 of them costs 0.6 s of
processor time; in batches of 10,000 it costs 0.8 s."""

STALL_S = 30.0
"""A broker that sends nothing for this long is taken for gone: twice the time that a new leader's election takes."""

FETCH_WAIT_MS = 10
"""How long a fetch at the end waits for more. Nothing more is wanted: the wait is the time that it takes to learn
that the end is reached. 0 would spin on partitions that are empty."""

FOLLOW_WAIT_MS = 100
"""How long a fetch waits for news when following. Kafka answers with the first record; the embedded broker looks again
after half of it."""

QUEUE_KBYTES = 32 * 1024
"""What is fetched ahead, in memory: a tenth of a second at the fastest. Four times as much reads no faster and takes
150 MB instead of 60."""

QUEUE_BACKOFF_MS = 2
"""How long fetching pauses once that much is queued. The client's own default is a second, in which a reader that takes
200,000 records a second has long emptied the queue and stands still."""

PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
    }
)
"""What a topic that has just been made, or a leader that has just moved, answers until the news has spread."""


@dataclass(frozen=True)
class Span:
    """The offsets that a partition holds: from `low` up to and without `high`."""

    low: int
    high: int

    @property
    def empty(self) -> bool:
        """Whether nothing lies in it."""
        return self.low >= self.high


def spans(settings: Settings, topic: str, partitions: Iterable[int] | None = None) -> dict[int, Span]:
    """The true first and end offsets of a topic's partitions.

    Args:
        settings: where the brokers are.
        topic: full name.
        partitions: all where None.

    Raises:
        UserError: no broker answers, the topic does not exist, or it has no such partition.
    """
    with closing(open_reader(settings)) as consumer:
        return _spans(consumer, settings, topic, partitions)


def read_batches(
    settings: Settings,
    topic: str,
    partitions: Iterable[int] | None = None,
    start_offsets: Mapping[int, int] | None = None,
    end_offsets: Mapping[int, int] | None = None,
    *,
    batch: int = BATCH,
) -> Iterator[list[Message]]:
    """Read partitions from `start_offsets` up to and without `end_offsets`, each in order.

    A batch holds records of several partitions; none is empty, and no message in it is an error.

    Args:
        settings: where the brokers are.
        topic: full name.
        partitions: all where None.
        start_offsets: by partition; the partition's beginning where it has none or an offset before that.
        end_offsets: by partition; its end at the time of the call where it has none.
        batch: most records of one batch.

    Raises:
        UserError: as for `spans`; or nothing came for `STALL_S`.
        KafkaException: the broker refused a fetch for good (authorisation, a corrupt record).
    """
    with closing(open_reader(settings)) as consumer:
        starts, ends = _bounds(consumer, settings, topic, partitions, start_offsets or {}, end_offsets or {})
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        open_partitions = set(ends)
        deadline = monotonic() + STALL_S
        while open_partitions:
            received = receive(consumer, batch)
            if not received:
                if monotonic() > deadline:
                    raise NoBrokerError(f"{topic}: nothing came from {settings.bootstrap} for {STALL_S:.0f} s")
                continue
            deadline = monotonic() + STALL_S
            finished: set[int] = set()
            messages: list[Message] = []
            for message in received:
                partition, error = message.partition(), message.error()
                if error is None:
                    end = ends[partition]
                    offset = message.offset()
                    if offset < end:
                        messages.append(message)
                    if offset >= end - 1:
                        finished.add(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # The end, also where the last offsets hold no record for us (transaction markers).
                    finished.add(partition)
                elif error.code() not in PASSING:
                    raise KafkaException(error)
            if closed := finished & open_partitions:
                open_partitions -= closed
                consumer.incremental_unassign([TopicPartition(topic, partition) for partition in closed])
            if messages:
                yield messages
                deadline = monotonic() + STALL_S  # the caller's time is not the broker's


def read(
    settings: Settings,
    topic: str,
    partitions: Iterable[int] | None = None,
    start_offsets: Mapping[int, int] | None = None,
    end_offsets: Mapping[int, int] | None = None,
) -> Iterator[Message]:
    """`read_batches`, one record at a time."""
    for messages in read_batches(settings, topic, partitions, start_offsets, end_offsets):
        yield from messages


def follow(settings: Settings, starts: Mapping[str, Mapping[int, int]]) -> Iterator[list[Message]]:
    """Read topics from given offsets on, for ever, without a consumer group.

    Args:
        settings: where the brokers are.
        starts: start offset by topic and partition.

    Yields:
        What has arrived, no message in it an error; empty after a quarter of a second in which nothing did, so that
        the caller can look at a clock.

    Raises:
        KafkaException: the broker refused a fetch for good.
    """
    with closing(open_reader(settings, fetch_wait_max_ms=FOLLOW_WAIT_MS, enable_partition_eof=False)) as consumer:
        consumer.assign(
            [TopicPartition(t, p, offset) for t, offsets in starts.items() for p, offset in offsets.items()]
        )
        while True:
            messages = []
            for message in receive(consumer, BATCH):
                if message.error() is None:
                    messages.append(message)
                elif message.error().code() not in PASSING:
                    raise KafkaException(message.error())
            yield messages


def tails(span: Mapping[int, Span], records: int) -> dict[int, int]:
    """The start offsets that leave the last `records` of each partition."""
    return {partition: max(s.low, s.high - records) for partition, s in span.items()}


def open_reader(settings: Settings, **extra: object) -> Consumer:
    """A client that reads partitions it is given, in no group; `extra` as for `open_consumer`."""
    return open_consumer(
        settings,
        "mmrec-reader",  # the client library wants a name; no group is joined and nothing committed
        **{
            "enable_partition_eof": True,
            "fetch_wait_max_ms": FETCH_WAIT_MS,
            "queued_max_messages_kbytes": QUEUE_KBYTES,
            "fetch_queue_backoff_ms": QUEUE_BACKOFF_MS,
            "max_poll_interval_ms": 86_400_000,  # a caller may take its time: no group waits for it
            **extra,
        },
    )


def receive(consumer: Consumer, batch: int) -> list[Message]:
    """What has arrived, waiting only for the first: `consume` alone waits until a batch is full."""
    first = consumer.poll(0.25)
    if first is None:
        return []
    return [first, *consumer.consume(batch - 1, 0)]


def _bounds(
    consumer: Consumer,
    settings: Settings,
    topic: str,
    partitions: Iterable[int] | None,
    start_offsets: Mapping[int, int],
    end_offsets: Mapping[int, int],
) -> tuple[dict[int, int], dict[int, int]]:
    """Where to start and end in each partition that has something in between.

    The broker is asked only for what the caller does not say.
    """
    wanted = None if partitions is None else set(partitions)
    if wanted is not None and wanted <= start_offsets.keys() & end_offsets.keys():
        bounds = {partition: (start_offsets[partition], end_offsets[partition]) for partition in wanted}
    else:
        bounds = {
            partition: (
                max(start_offsets.get(partition, span.low), span.low),
                min(end_offsets.get(partition, span.high), span.high),
            )
            for partition, span in _spans(consumer, settings, topic, wanted).items()
        }
    bounds = {partition: (start, end) for partition, (start, end) in bounds.items() if start < end}
    return {p: start for p, (start, _) in bounds.items()}, {p: end for p, (_, end) in bounds.items()}


def _spans(consumer: Consumer, settings: Settings, topic: str, partitions: Iterable[int] | None) -> dict[int, Span]:
    try:
        # The whole list, not this topic: asking the embedded broker for a name creates the topic.
        metadata = consumer.list_topics(timeout=STALL_S).topics.get(topic)
    except KafkaException as error:
        raise NoBrokerError(
            f"no broker answers at {settings.bootstrap} ({error.args[0].str()}): start one, or set MMREC_BOOTSTRAP"
        ) from error
    if metadata is None:
        raise UserError(f"topic {topic} does not exist at {settings.bootstrap}: `mmrec topics` creates ours")
    wanted = sorted(metadata.partitions) if partitions is None else sorted(set(partitions))
    if unknown := set(wanted) - set(metadata.partitions):
        raise UserError(f"topic {topic} has {len(metadata.partitions)} partitions, and none numbered {min(unknown)}")
    lows, assignment = {}, []
    for partition in wanted:
        low, listed = _listed(consumer, TopicPartition(topic, partition))
        lows[partition] = low
        # The listed end is at most the true one: a fetch from it sees the high watermark and little else.
        assignment.append(TopicPartition(topic, partition, max(low, listed)))
    highs = _fetched_ends(consumer, assignment)
    return {partition: Span(lows[partition], highs[partition]) for partition in wanted}


def _listed(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """What ListOffsets says of a partition."""
    deadline = monotonic() + STALL_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=STALL_S)
            return low, high
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise
            if monotonic() > deadline:
                place = f"{partition.topic}[{partition.partition}]"
                raise NoBrokerError(f"{place}: nobody tells its offsets: {error.args[0].str()}") from error
        consumer.poll(0.05)


def _fetched_ends(consumer: Consumer, assignment: list[TopicPartition]) -> dict[int, int]:
    """The high watermark that a Fetch of each partition answers with."""
    consumer.assign(assignment)
    ends: dict[int, int] = {}
    deadline = monotonic() + STALL_S
    while len(ends) < len(assignment):
        if monotonic() > deadline:
            topic, left = assignment[0].topic, len(assignment) - len(ends)
            raise NoBrokerError(f"{topic}: {left} partitions did not answer within {STALL_S:.0f} s")
        for message in receive(consumer, BATCH):
            error = message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if error.code() in PASSING:
                    continue
                raise KafkaException(error)
            partition = TopicPartition(message.topic(), message.partition())
            if message.partition() not in ends:
                ends[message.partition()] = consumer.get_watermark_offsets(partition, cached=True)[1]
    consumer.unassign()
    return ends


def keyed(messages: Iterable[Message]) -> Iterator[tuple[bytes | None, bytes | None, str]]:
    """Key, value and place (`topic[partition]@offset`) of records, for rules that know nothing of Kafka."""
    for message in messages:
        yield message.key(), message.value(), f"{message.topic()}[{message.partition()}]@{message.offset()}"
