"""Whether the records of a topic lie where their users belong: keyed by user id, on the partition murmur2 gives."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import Message

from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.identity import partition_of

EXAMPLES = 3
"""Misplaced records that are shown: enough to find the producer."""


@dataclass
class Placement:
    """What a sample of a topic's records says of its producers."""

    sampled: int = 0
    unusable: int = 0
    """Records that are no valid events; their key cannot be judged."""
    keyless: int = 0
    """Valid events without a key: they lie on any partition."""
    other_key: int = 0
    """Valid events whose key is not the user id."""
    misplaced: int = 0
    """Valid events on another partition than their user's."""
    crc32: int = 0
    """Misplaced ones that lie where librdkafka's default partitioner puts their key."""
    examples: list[str] = field(default_factory=list)
    """`partition/offset: user …` of the first misplaced ones."""

    @property
    def judged(self) -> int:
        """Valid events."""
        return self.sampled - self.unusable

    @property
    def cause(self) -> str:
        """What the producer most likely does."""
        if self.keyless > self.judged / 2:
            return "its producer sends no keys"
        if self.crc32 > 0.9 * self.misplaced:
            return "its producer partitions by CRC32, librdkafka's default: set partitioner=murmur2_random there"
        if self.other_key > self.judged / 2:
            return "its producer keys by something else than the user id"
        return "its producer partitions by other means than murmur2 of the user id"


def judge(messages: Iterable[Message], partitions: int, max_bytes: int) -> Placement:
    """Judge records of a topic with so many partitions; values above `max_bytes` count as unusable."""
    found = Placement()
    for message in messages:
        found.sampled += 1
        event = accept(message.value(), max_bytes)
        if isinstance(event, Refusal):
            found.unusable += 1
            continue
        user, key = event.user_id.encode(), message.key()
        if key is None:
            found.keyless += 1
        elif key != user:
            found.other_key += 1
        if message.partition() == partition_of(user, partitions):
            continue
        found.misplaced += 1
        if key is not None and zlib.crc32(key) % partitions == message.partition():
            found.crc32 += 1
        if len(found.examples) < EXAMPLES:
            found.examples.append(f"{message.partition()}/{message.offset()}: user {event.user_id}")
    return found
