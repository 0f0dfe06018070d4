"""From records to events: what is good comes out as columns, what is not as dead letters with cause and origin."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourRecord, Forget, decode_event
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, dead_letter
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.profiles.columns import EventColumns, columns_of
from streams.chunks import Chunk


@dataclass(frozen=True, slots=True)
class Limits:
    """What an event may not exceed."""

    max_bytes: int
    max_future_ms: int
    partitions: int
    """How many partitions the behaviour topics have: a user's events belong on the one that murmur2 gives."""


@dataclass(frozen=True, slots=True)
class Intake:
    """A chunk, sorted: `events`, `chunk` and `columns` belong together place by place."""

    events: list[BehaviourRecord]
    chunk: Chunk
    columns: EventColumns
    letters: list[DeadLetter]

    def parts(self) -> "Iterator[Intake | tuple[Forget, int]]":
        """What is to be folded, and requests to forget with their offsets, in their order."""
        requests = [place for place, event in enumerate(self.events) if isinstance(event, Forget)]
        if not requests:
            yield self
            return
        start = 0
        for place in [*requests, len(self.events)]:
            if start < place:
                events, chunk = self.events[start:place], self.chunk.at(list(range(start, place)))
                yield Intake(events, chunk, columns_of(events, chunk.offsets), [])
            if place < len(self.events):
                yield cast("Forget", self.events[place]), self.chunk.offsets[place]
            start = place + 1


def sort_chunk(
    chunk: Chunk, limits: Limits, now_ms: int, unknown: Callable[[Sequence[str]], Collection[str]]
) -> Intake:
    """Decode and check a chunk's records. Whatever is wrong with one is its fate before any of them is folded.

    Args:
        chunk: of at least one record.
        limits: what an event may not exceed.
        now_ms: the worker's clock.
        unknown: those of some users that have no profile. Only they are asked for their place: the others were.
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
    faults = _faults(events, chunk.partition, limits, now_ms, unknown)
    if faults:
        letters += [letter(chunk, place, *fault) for place, fault in faults.items()]
        good = [place for place in range(len(events)) if place not in faults]
        events, chunk = [events[place] for place in good], chunk.at(good)
    return Intake(events, chunk, columns_of(events, chunk.offsets), letters)


def set_aside(chunk: Chunk, detail: str) -> Intake:
    """A whole chunk as dead letters, for a mistake of our own: nothing of it is folded."""
    letters = [letter(chunk, place, Fault.INTERNAL, detail) for place in range(len(chunk))]
    return Intake([], chunk.at([]), columns_of([], []), letters)


def letter(chunk: Chunk, place: int, fault: Fault, detail: str) -> DeadLetter:
    """A dead letter of a chunk's record."""
    origin = Origin(
        topic=chunk.topic,
        partition=chunk.partition,
        offset=chunk.offsets[place],
        timestamp=chunk.times_ms[place],
    )
    return dead_letter(origin, chunk.keys[place], chunk.values[place], fault, detail)


def _faults(
    events: Sequence[BehaviourRecord],
    partition: int,
    limits: Limits,
    now_ms: int,
    unknown: Callable[[Sequence[str]], Collection[str]],
) -> dict[int, tuple[Fault, str]]:
    """What is wrong with events that can be read, by their place."""
    latest = now_ms + limits.max_future_ms
    faults = {
        place: (Fault.FUTURE, f"`ts` lies {(event.ts - now_ms) / 1000:.0f} s ahead of the worker's clock")
        for place, event in enumerate(events)
        if event.ts > latest
    }
    newcomers = unknown([event.user_id for event in events])
    elsewhere = {user for user in newcomers if partition_of(user.encode(), limits.partitions) != partition}
    if elsewhere:
        detail = f"the user's events belong to another of the {limits.partitions} partitions (murmur2)"
        faults |= {place: (Fault.MISPLACED, detail) for place, event in enumerate(events) if event.user_id in elsewhere}
    return faults
