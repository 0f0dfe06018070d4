"""Behaviour events as columns: what the fold reads of a batch, one array a field."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from mmrec_stream.contracts.behaviour import BehaviourRecord, CommandType, EventType, Rating
from mmrec_stream.contracts.identity import NO_KEY, short_key
from mmrec_stream.profiles.record import price_bands

MAX_CACHED_LABELS = 100_000
"""Categories and brands whose key is kept at hand; a shop has thousands, and a producer that sends titles as brands
must not fill the memory."""


@dataclass(slots=True)
class EventColumns:
    """A batch of events of one source partition, in its order. Every array has shape (events,)."""

    users: list[str]
    types: NDArray[np.uint8]
    """EventType; or CommandType, which the fold passes over."""
    items: NDArray[np.uint64]
    """id_key; NO_KEY for a follow and a command."""
    times_ms: NDArray[np.int64]
    offsets: NDArray[np.int64]
    ratings: NDArray[np.float32]
    """0 where the event is no rating."""
    categories: NDArray[np.uint32]
    """short_key; NO_KEY where unknown."""
    brands: NDArray[np.uint32]
    """short_key; NO_KEY where unknown."""
    price_bands: NDArray[np.int8]
    """UNKNOWN_BAND where unknown."""

    def __len__(self) -> int:
        return len(self.users)


class _ShortKeys(dict[str | None, int]):
    """`short_key` of a label, remembered."""

    def __missing__(self, label: str | None) -> int:
        key = short_key(label) if label else NO_KEY
        if len(self) < MAX_CACHED_LABELS:
            self[label] = key
        return key


_short_keys = _ShortKeys()


def columns_of(events: Sequence[BehaviourRecord], offsets: Sequence[int]) -> EventColumns:
    """The columns of `events`, whose offsets in their partition are `offsets`."""
    codes = [event.CODE for event in events]
    types = np.array(codes, dtype=np.uint8)
    items = np.array([xxh3_64_intdigest(event.item_id.encode()) for event in events], dtype=np.uint64)
    items[items == NO_KEY] = 1
    if EventType.FOLLOW in codes or CommandType.FORGET in codes:
        items[(types == EventType.FOLLOW) | (types == CommandType.FORGET)] = NO_KEY
    ratings = np.zeros(len(events), dtype=np.float32)
    if EventType.RATING in codes:
        for position, event in enumerate(events):
            if isinstance(event, Rating):
                ratings[position] = event.rating
    return EventColumns(
        users=[event.user_id for event in events],
        types=types,
        items=items,
        times_ms=np.array([event.ts for event in events], dtype=np.int64),
        offsets=np.array(offsets, dtype=np.int64),
        ratings=ratings,
        categories=np.array([_short_keys[event.category] for event in events], dtype=np.uint32),
        brands=np.array([_short_keys[event.brand] for event in events], dtype=np.uint32),
        # None becomes NaN, which has no band.
        price_bands=price_bands(np.array([event.price for event in events], dtype=np.float64)),
    )
