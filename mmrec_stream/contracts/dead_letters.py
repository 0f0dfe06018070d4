"""Dead letters: an input that could not be used, whole, with its cause and its origin."""

import time
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Offset, Partition, SchemaVersion

MAX_VALUE_BYTES = 512 * 1024
"""How much of a value a dead letter keeps: with base64's third on top it stays below a topic's usual 1 MB limit."""


class Fault(StrEnum):
    """What is wrong with an input."""

    NOT_JSON = "not_json"
    INVALID = "invalid"
    """JSON, but a field is missing or wrong; the detail names it."""
    EMPTY = "empty"
    """No value: behaviour topics carry no deletions."""
    OVERSIZED = "oversized"
    FUTURE = "future"
    """The event time lies further ahead than clocks disagree."""
    MISPLACED = "misplaced"
    """The user's events belong to another partition: the producer partitions otherwise than murmur2."""
    INTERNAL = "internal"
    """Our own mistake; the detail has the exception."""


class Origin(Struct, kw_only=True, frozen=True):
    """Where the input was read."""

    topic: str
    partition: Partition
    offset: Offset
    timestamp: Annotated[int, Meta(description="record timestamp, ms")] = -1


class DeadLetter(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The key is `topic/partition/offset` of the origin, so that a repeat replaces itself."""

    fault: Fault
    detail: str
    origin: Origin
    key: bytes | None = None
    """The record's key, base64 on the wire."""
    value: bytes | None = None
    """The record's value, base64 on the wire."""
    truncated: bool = False
    """Whether `value` holds only the beginning; the rest is at the origin while it is retained."""
    noticed: EventTime
    v: SchemaVersion = 1

    @property
    def record_key(self) -> bytes:
        """The key to publish this letter with."""
        return f"{self.origin.topic}/{self.origin.partition}/{self.origin.offset}".encode()


def dead_letter(origin: Origin, key: bytes | None, value: bytes | None, fault: Fault, detail: str) -> DeadLetter:
    """The letter of a record, noticed now; whole unless its value is larger than a letter can be."""
    return DeadLetter(
        fault=fault,
        detail=detail,
        origin=origin,
        key=key,
        value=value[:MAX_VALUE_BYTES] if value is not None else None,
        truncated=value is not None and len(value) > MAX_VALUE_BYTES,
        noticed=int(time.time() * 1000),
    )


encode_dead_letter = msgspec.json.Encoder().encode
decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode
