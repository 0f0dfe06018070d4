"""A worker in miniature for tests of what reads its traces: folds the log and leaves rows, dead letters and offsets."""

import time
from collections.abc import Collection

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.behaviour import Forget
from mmrec_stream.contracts.dead_letters import DeadLetter, Origin, encode_dead_letter
from mmrec_stream.contracts.identity import source_key
from mmrec_stream.kafka.clients import BatchProducer, open_consumer
from mmrec_stream.kafka.reader import read, spans
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic

Place = tuple[str, int, int]
NOW = int(time.time() * 1000)


def click(user: str, item: str = "sofa", ts: int = NOW) -> bytes:
    return b'{"type":"click","user_id":"%s","item_id":"%s","ts":%d}' % (user.encode(), item.encode(), ts)


def publish(settings: Settings, topic: str, values: Collection[tuple[str | None, bytes | None]]) -> None:
    """Publish values keyed by user."""
    with BatchProducer(settings, idempotent=False) as producer:
        for user, value in values:
            producer.send(topic, value, key=user.encode() if user is not None else None)


def delete_before(settings: Settings, topic: str, partition: int, offset: int) -> None:
    """Delete the beginning of a partition, as retention would (Kafka only)."""
    admin = AdminClient({"bootstrap.servers": settings.bootstrap})  # referenced until the futures are done
    for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result()


def fold_log(
    settings: Settings,
    *,
    lose: Collection[Place] = (),
    double: Collection[Place] = (),
    up_to: dict[str, int] | None = None,
    letters: bool = True,
) -> None:
    """Fold every behaviour topic and commit.

    Args:
        settings: which corner.
        lose: records to pass over as if they had been folded.
        double: records to count twice.
        up_to: by topic, the offset to stop before, in each partition.
        letters: whether bad records get a dead letter.
    """
    topics = Topics.of(settings)
    changelog = changelog_topic(settings)
    tables = {partition: ProfileRows() for partition in spans(settings, changelog)}
    offsets = []
    with BatchProducer(settings, idempotent=False) as producer:
        for topic in topics.behaviour:
            for partition, span in spans(settings, topic).items():
                end = min(span.high, (up_to or {}).get(topic, span.high))
                rows = tables[partition]
                for message in read(settings, topic, [partition], None, {partition: end}):
                    event = accept(message.value(), settings.max_event_bytes)
                    place = (topic, partition, message.offset())
                    if isinstance(event, Refusal):
                        letter = DeadLetter(
                            fault=event.fault,
                            detail=event.detail,
                            origin=Origin(topic=topic, partition=partition, offset=message.offset()),
                            key=message.key(),
                            value=message.value(),
                            noticed=NOW,
                        )
                        if letters:
                            producer.send(topics.dead_letters, encode_dead_letter(letter), key=letter.record_key)
                        continue
                    if place in lose or isinstance(event, Forget):
                        continue
                    numbers = rows.rows_of([event.user_id])
                    fold(rows.records, numbers, columns_of([event], [message.offset()]), source_key(topic, partition))
                    if place in double:
                        rows.records["events"][numbers] += 1
                offsets.append(TopicPartition(topic, partition, end))
        for partition, rows in tables.items():
            live = rows.live()
            for user, value in zip(rows, rows.encode(live), strict=True):
                producer.send(changelog, value, key=user.encode(), partition=partition)
    consumer = open_consumer(settings, settings.app_id)
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()
