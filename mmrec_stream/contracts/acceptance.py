"""Whether a record's value is an event that can be used, and if not, which fault it has."""

from dataclasses import dataclass

import msgspec

from mmrec_stream.contracts.behaviour import BehaviourRecord, decode_event
from mmrec_stream.contracts.dead_letters import Fault

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from outside may raise. The last: a field that nobody asked for, nested a thousand deep."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a value cannot be used."""

    fault: Fault
    detail: str


def accept(value: bytes | None, max_bytes: int) -> BehaviourRecord | Refusal:
    """The event or command of a behaviour record's value, or why there is none.

    Args:
        value: the record's value.
        max_bytes: larger values are refused unread.
    """
    if not value:
        return Refusal(Fault.EMPTY, "the record has no value: behaviour topics carry no deletions")
    if len(value) > max_bytes:
        return Refusal(Fault.OVERSIZED, f"{len(value)} bytes, at most {max_bytes} are taken")
    try:
        event: BehaviourRecord = decode_event(value)
    except msgspec.ValidationError as error:
        return Refusal(Fault.INVALID, str(error))
    except UNREADABLE as error:
        return Refusal(Fault.NOT_JSON, str(error))
    return event
