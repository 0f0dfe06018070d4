"""From records to events: what is good comes out as columns, what is not as dead letters with cause and origin."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourEvent, Forget, decode_event
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, dead_letter
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.profiles.columns import EventColumns, columns_of
from streams.chunks import Chunk


@dataclass(frozen=True, slots=True)
class Limits:
    """What an event may not exceed."""

    max_bytes: int
    max_future_ms: int


@dataclass(slots=True)
class Intake:
    """A chunk, sorted: `events`, `chunk` and `columns` belong together place by place."""

    events: list[BehaviourEvent]
    chunk: Chunk
    columns: EventColumns
    letters: list[DeadLetter]

    def reject(self, places: Sequence[int], fault: Fault, details: Sequence[str]) -> None:
        """Move events to the dead letters."""
        if not places:
            return
        for place, detail in zip(places, details, strict=True):
            self.letters.append(letter(self.chunk, place, fault, detail))
        out = set(places)
        keep = [place for place in range(len(self.events)) if place not in out]
        self.events = [self.events[place] for place in keep]
        self.chunk = self.chunk.at(keep)
        self.columns = columns_of(self.events, self.chunk.offsets)


def sort_chunk(chunk: Chunk, limits: Limits, now_ms: int) -> Intake:
    """Decode and check a chunk's records.

    Args:
        chunk: of at least one record.
        limits: what an event may not exceed.
        now_ms: the worker's clock.
    """
    letters: list[DeadLetter] = []
    try:
        if max(map(len, chunk.values)) > limits.max_bytes:  # type: ignore[arg-type]
            raise ValueError("an oversized record is among them")
        events = [decode_event(value) for value in chunk.values]  # type: ignore[arg-type]
    except (TypeError, ValueError, *UNREADABLE):
        events, good = [], []
        for place, value in enumerate(chunk.values):
            outcome = accept(value, limits.max_bytes)
            if isinstance(outcome, Refusal):
                letters.append(letter(chunk, place, outcome.fault, outcome.detail))
            else:
                events.append(outcome)
                good.append(place)
        chunk = chunk.at(good)
    if any(isinstance(event, Forget) for event in events):
        kept = [place for place, event in enumerate(events) if not isinstance(event, Forget)]
        events, chunk = [events[place] for place in kept], chunk.at(kept)
    intake = Intake(events, chunk, columns_of(events, chunk.offsets), letters)
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


def letter(chunk: Chunk, place: int, fault: Fault, detail: str) -> DeadLetter:
    """A dead letter of a chunk's record."""
    origin = Origin(
        topic=chunk.topic,
        partition=chunk.partition,
        offset=chunk.offsets[place],
        timestamp=chunk.times_ms[place],
    )
    return dead_letter(origin, chunk.keys[place], chunk.values[place], fault, detail)
