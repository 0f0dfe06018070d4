"""From records to events: what is good comes out as columns, what is not as dead letters with cause and origin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourEvent, decode_event
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, dead_letter
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.profiles.columns import EventColumns, columns_of


class Record(Protocol):
    """A Kafka record, as confluent-kafka gives it."""

    def topic(self) -> str:
        """Full name."""

    def partition(self) -> int:
        """Its number."""

    def offset(self) -> int:
        """Its place in the partition."""

    def timestamp(self) -> tuple[int, int]:
        """The kind of time, and the time: ms since 1970."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value; None is a tombstone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an event may not exceed."""

    max_bytes: int
    max_future_ms: int


@dataclass(slots=True)
class Intake:
    """A chunk, sorted: `events`, `records` and `columns` belong together place by place."""

    events: list[BehaviourEvent]
    records: Sequence[Record]
    columns: EventColumns
    letters: list[DeadLetter]

    def reject(self, places: Sequence[int], fault: Fault, details: Sequence[str]) -> None:
        """Move events to the dead letters."""
        if not places:
            return
        for place, detail in zip(places, details, strict=True):
            self.letters.append(letter(self.records[place], fault, detail))
        out = set(places)
        keep = [place for place in range(len(self.events)) if place not in out]
        self.events = [self.events[place] for place in keep]
        self.records = [self.records[place] for place in keep]
        self.columns = columns_of(self.events, [record.offset() for record in self.records])


def sort_records(records: Sequence[Record], limits: Limits, now_ms: int) -> Intake:
    """Decode and check a chunk's records.

    Args:
        records: of one partition, in order.
        limits: what an event may not exceed.
        now_ms: the worker's clock.
    """
    letters: list[DeadLetter] = []
    try:
        values = [record.value() for record in records]
        if max(map(len, values)) > limits.max_bytes:  # type: ignore[arg-type]
            raise ValueError("an oversized record is among them")
        events = [decode_event(value) for value in values]  # type: ignore[arg-type]
    except (TypeError, ValueError, *UNREADABLE):
        events, good = [], []
        for record in records:
            outcome = accept(record.value(), limits.max_bytes)
            if isinstance(outcome, Refusal):
                letters.append(letter(record, outcome.fault, outcome.detail))
            else:
                events.append(outcome)
                good.append(record)
        records = good
    intake = Intake(events, records, columns_of(events, [record.offset() for record in records]), letters)
    late = np.flatnonzero(intake.columns.times_ms > now_ms + limits.max_future_ms).tolist()
    ahead = [(intake.events[place].ts - now_ms) / 1000 for place in late]
    intake.reject(late, Fault.FUTURE, [f"`ts` lies {seconds:.0f} s ahead of the worker's clock" for seconds in ahead])
    return intake


def misplaced(intake: Intake, newcomers: set[str], partition: int, partitions: int) -> list[int]:
    """Places of events whose user belongs to another partition. Only users without a profile need to be looked at."""
    elsewhere = {user for user in newcomers if partition_of(user.encode(), partitions) != partition}
    if not elsewhere:
        return []
    return [place for place, user in enumerate(intake.columns.users) if user in elsewhere]


def letter(record: Record, fault: Fault, detail: str) -> DeadLetter:
    """A dead letter of a record."""
    origin = Origin(
        topic=record.topic(), partition=record.partition(), offset=record.offset(), timestamp=record.timestamp()[1]
    )
    return dead_letter(origin, record.key(), record.value(), fault, detail)
