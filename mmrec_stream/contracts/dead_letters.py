"""Dead letters: an input that could not be used, whole, with its cause and its origin."""

import time
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Offset, Partition, SchemaVersion

MAX_VALUE_BYTES = 512 * 1024
"""How much of a value a dead letter keeps. Base64 puts a third on top."""

MAX_KEY_BYTES = 48 * 1024
"""How much of a key a dead letter keeps. Ids have 128 characters at most; who sends more has sent something else."""

MAX_DETAIL_CHARACTERS = 2_000
"""How much of a cause a dead letter tells. A character takes up to 6 bytes in JSON."""

MAX_LETTER_BYTES = 800_000
"""No letter is larger than this as JSON. A topic takes 1 MB by default, and a letter that it refused would hold up the
partition of the record for good."""


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
    """Whether `value` or `key` holds only the beginning; the rest is at the origin while it is retained."""
    noticed: EventTime
    v: SchemaVersion = 1

    @property
    def record_key(self) -> bytes:
        """The key to publish this letter with."""
        return f"{self.origin.topic}/{self.origin.partition}/{self.origin.offset}".encode()


def dead_letter(origin: Origin, key: bytes | None, value: bytes | None, fault: Fault, detail: str) -> DeadLetter:
    """The letter of a record, noticed now; whole unless its key or value is larger than a letter can hold.

    Args:
        origin: where it was read; its topic has a name that Kafka takes (249 characters).
        key: the record's.
        value: the record's.
        fault: what is wrong.
        detail: any text, what it quotes included.
    """
    return DeadLetter(
        fault=fault,
        # Half a surrogate pair, which JSON cannot say, may come out of what an exception quotes.
        detail=detail[:MAX_DETAIL_CHARACTERS].encode(errors="replace").decode(),
        origin=origin,
        key=key[:MAX_KEY_BYTES] if key is not None else None,
        value=value[:MAX_VALUE_BYTES] if value is not None else None,
        truncated=len(key or b"") > MAX_KEY_BYTES or len(value or b"") > MAX_VALUE_BYTES,
        noticed=int(time.time() * 1000),
    )


encode_dead_letter = msgspec.json.Encoder().encode
decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode
