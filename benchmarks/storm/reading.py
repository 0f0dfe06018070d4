"""What the judge reads of a cluster: topics to an end, committed records only, and the group's committed offsets."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from benchmarks.storm.judge import Changelog, Letters, Lists, Log, Receipts, Verdict, judge

PATIENCE_S = 60.0
"""How long a broker may be silent while it is read: longer than a leader's election."""

BATCH = 5_000


@dataclass(frozen=True)
class Stage:
    """Where a storm takes place: a cluster and the names of the topics that the documentation gives."""

    bootstrap: str
    prefix: str
    app_id: str

    @property
    def behaviour(self) -> tuple[str, ...]:
        """The topics with events."""
        return f"{self.prefix}clicks", f"{self.prefix}purchases", f"{self.prefix}feedback"

    @property
    def changelog(self) -> str:
        """The topic with the profiles."""
        return f"{self.app_id}-profiles-changelog"

    @property
    def lists(self) -> str:
        """The topic with recommendation lists."""
        return f"{self.prefix}recommendations"

    @property
    def letters(self) -> str:
        """The topic with dead letters."""
        return f"{self.prefix}dead-letters"


Ends = Mapping[str, Mapping[int, int]]
"""By topic and partition, the offset before which reading ends."""


def lag(stage: Stage) -> int:
    """Records of the behaviour topics that the workers have not committed.

    Raises:
        KafkaException: no broker, or no coordinator, answers.
    """
    with closing(_consumer(stage, stage.app_id)) as consumer:
        places = [place for topic in stage.behaviour for place in _partitions(consumer, topic)]
        committed = consumer.committed(places, timeout=PATIENCE_S)
        return sum(_end(consumer, place) - max(place.offset, 0) for place in committed)


def ends(stage: Stage) -> Ends:
    """The ends of all topics, open transactions left out.

    Raises:
        KafkaException: no broker answers.
    """
    with closing(_consumer(stage)) as consumer:
        return {
            topic: {place.partition: _end(consumer, place) for place in _partitions(consumer, topic)}
            for topic in (*stage.behaviour, stage.changelog, stage.lists, stage.letters)
        }


def open_transactions(stage: Stage) -> int:
    """Partitions of the changelog that end in a transaction whose owner has neither committed nor aborted it."""
    with closing(_consumer(stage)) as stable, closing(_consumer(stage, isolation="read_uncommitted")) as all_:
        return sum(_end(stable, place) < _end(all_, place) for place in _partitions(stable, stage.changelog))


def read(stage: Stage, topic: str, upto: Mapping[int, int]) -> Iterator[Message]:
    """The committed records of a topic from its beginning, each partition's in order.

    Raises:
        KafkaException: the broker refuses, or is silent for `PATIENCE_S`.
    """
    with closing(_consumer(stage)) as consumer:
        open_ = {partition for partition, end in upto.items() if end > 0}
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in open_])
        deadline = time.monotonic() + PATIENCE_S
        while open_:
            messages = consumer.consume(BATCH, 0.2)
            if messages:
                deadline = time.monotonic() + PATIENCE_S
            elif time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic}: nothing came"))
            for message in messages:
                partition, error = message.partition(), message.error()
                if error is None:
                    if message.offset() < upto[partition]:
                        yield message
                    if message.offset() >= upto[partition] - 1:
                        open_.discard(partition)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard(partition)
                elif not error.retriable() and error.code() not in _PASSING:
                    raise KafkaException(error)


def read_and_judge(
    stage: Stage, receipts: Receipts, upto: Ends, *, lists: bool = True, followed: Changelog | None = None
) -> Verdict:
    """Read everything up to `upto` and judge it.

    Args:
        stage: where.
        receipts: what the producer knows to be in the log.
        upto: where each topic ends.
        lists: whether lists were asked for.
        followed: the changelog as it was read while it was written, before compaction took rows out of it.
    """
    log, changelog, letters, newest = Log(receipts), Changelog(), Letters(), Lists()
    for topic in stage.behaviour:
        for message in read(stage, topic, upto[topic]):
            log.take(topic, message.partition(), message.offset(), message.timestamp()[1], message.value())
    for message in read(stage, stage.changelog, upto[stage.changelog]):
        changelog.take(message.partition(), message.offset(), message.key(), message.value())
    for message in read(stage, stage.letters, upto[stage.letters]):
        letters.take(message.key(), message.value())
    if lists:
        for message in read(stage, stage.lists, upto[stage.lists]):
            newest.take(message.timestamp()[1], message.key(), message.value())
    if followed is not None:
        changelog.backward |= followed.backward
    return judge(log, changelog, letters, newest if lists else None, receipts)


class Follower:
    """Reads the changelog while it is written, so that rows which compaction will take out are judged too."""

    def __init__(self, stage: Stage) -> None:
        self.changelog = Changelog()
        self._stage = stage
        self._stop = threading.Event()
        self._upto: Mapping[int, int] = {}
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def finish(self, upto: Mapping[int, int]) -> Changelog:
        """Stop once everything before `upto` is read.

        Raises:
            RuntimeError: that takes longer than `PATIENCE_S`.
        """
        self._upto = upto
        self._stop.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise RuntimeError(f"{self._stage.changelog}: not read to its end within {PATIENCE_S:.0f} s")
        return self.changelog

    def _follow(self) -> None:
        with closing(_consumer(self._stage)) as consumer:
            places = _partitions(consumer, self._stage.changelog)
            for place in places:
                place.offset = OFFSET_BEGINNING
            consumer.assign(places)
            reached = dict.fromkeys((place.partition for place in places), 0)
            while not (self._stop.is_set() and all(reached[p] >= end for p, end in self._upto.items())):
                for message in consumer.consume(BATCH, 0.2):
                    if message.error() is None:
                        self.changelog.take(message.partition(), message.offset(), message.key(), message.value())
                        reached[message.partition()] = message.offset() + 1
                    elif message.error().code() == KafkaError._PARTITION_EOF:  # markers of transactions are no records
                        reached[message.partition()] = message.offset()


_PASSING = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
    }
)
"""What clients are told while a broker comes back."""


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    metadata = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
    return [TopicPartition(topic, partition) for partition in sorted(metadata.partitions)]


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """The end of a partition as the consumer's isolation shows it; a leader that has just come back is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=PATIENCE_S)[1])
        except KafkaException as error:
            if not error.args[0].retriable() and error.args[0].code() not in _PASSING:
                raise
            if time.monotonic() > deadline:
                raise
        consumer.poll(0.1)


def _consumer(stage: Stage, group: str = "storm-judge", *, isolation: str = "read_committed") -> Consumer:
    """A client that joins no group and commits nothing."""
    config: dict[str, Any] = {
        "bootstrap.servers": stage.bootstrap,
        "group.id": group,
        "isolation.level": isolation,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 100,
        "log_level": 0,
    }
    return Consumer(config)
