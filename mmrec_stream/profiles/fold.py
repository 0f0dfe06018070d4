"""The fold: profiles and a batch of events in, profiles out. It decides everything that a profile is.

It is compiled (numba), one event after the other, so that its order and its idempotence can be read off the code.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.identity import NO_KEY
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.record import AFFINITIES, HELD, RING, SOURCES, TYPE_SLOTS, VERSION, WINDOWS_MS, Records
from mmrec_stream.profiles.tastes import SHOP_TASTES, Tastes

MIDDLE_RATING = 2.5
"""The middle of the scale from 0 to 5: a rating counts as its distance above it; one at or below it is no liking."""

_ADD, _REMOVE = int(EventType.ADD_TO_CART), int(EventType.REMOVE_FROM_CART)
_PURCHASE, _CANCEL, _RETURN = int(EventType.PURCHASE), int(EventType.CANCEL), int(EventType.RETURN)
_RATING, _IMPRESSION, _FOLLOW = int(EventType.RATING), int(EventType.IMPRESSION), int(EventType.FOLLOW)
_NO_KEY = np.uint64(NO_KEY)

if max(EventType) >= TYPE_SLOTS:
    raise ImportError(f"layout {VERSION} of the profile counts codes below {TYPE_SLOTS}: a new one needs a new layout")


def fold(
    records: Records,
    rows: NDArray[np.int64],
    columns: EventColumns,
    source: int,
    tastes: Tastes = SHOP_TASTES,
) -> NDArray[np.bool_]:
    """Fold events of one source partition into `records`, in place.

    An event at or below the source's last folded offset changes nothing, so that a replay is a no-op. The ring is
    kept in event time (ties in order of arrival): the interactions of several topics come out the same however
    their partitions were interleaved.

    Args:
        records: shape (profiles,).
        rows: the profile of each event, shape (events,).
        columns: the events, in the order of their offsets.
        source: `source_key` of the partition.
        tastes: the rule of affinities.

    Returns:
        Which events were folded (False: known already, or a command), shape (events,).
    """
    folded = np.zeros(len(rows), dtype=np.bool_)
    _fold(
        records,
        rows,
        columns.types,
        columns.items,
        columns.times_ms,
        columns.offsets,
        columns.ratings,
        columns.categories,
        columns.brands,
        columns.price_bands,
        np.uint32(source),
        tastes.weights,
        tastes.half_life_ms,
        folded,
    )
    return folded


def taste_weights(
    types: NDArray[np.integer], ratings: NDArray[np.float32], tastes: Tastes = SHOP_TASTES
) -> NDArray[np.float32]:
    """How much each event says of a taste: what the fold adds to affinities for an event of now.

    An event that says something is a liking, which models learn to foresee.

    Args:
        types: Codes of `EventType`, shape (events,).
        ratings: From 0 to 5; only looked at where the event is a rating. Shape (events,).
        tastes: The rule of affinities.
    """
    weights: NDArray[np.float32] = _tastes(types, ratings, tastes.weights)
    return weights


def decay_to(records: Records, now_ms: int | NDArray[np.int64], tastes: Tastes = SHOP_TASTES) -> None:
    """Bring what decays in `records` forward to `now_ms`, or each to its own, in place; not what is newer."""
    _decay_all(records, np.full(len(records), now_ms, dtype=np.int64), tastes.half_life_ms)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled on first use and kept on disk: 2 s the first time on a machine, 50 ms after. Frees the GIL."""
    compiled: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    return compiled


@_compiled
def _taste(code, rating, weight):  # type: ignore[no-untyped-def]
    return max(float(rating) - MIDDLE_RATING, 0.0) if code == _RATING else weight


@_compiled
def _tastes(types, ratings, by_code):  # type: ignore[no-untyped-def]
    weights = np.empty(len(types), dtype=np.float32)
    for event in range(len(types)):
        weights[event] = _taste(types[event], ratings[event], by_code[types[event]])
    return weights


@_compiled
def _fold(  # type: ignore[no-untyped-def]
    records,
    rows,
    types,
    items,
    times_ms,
    offsets,
    ratings,
    categories,
    brands,
    price_bands,
    source,
    by_code,
    half_life_ms,
    folded,
):
    for event in range(len(rows)):
        record = records[rows[event]]
        if types[event] >= TYPE_SLOTS or not _advance(record, source, offsets[event]):
            continue
        folded[event] = True
        code, item, now = types[event], items[event], times_ms[event]
        seconds = np.uint32(now // 1000)
        if record.events == 0:
            record.version = VERSION
            record.first_s = seconds
            record.last_ms = now
        record.events += np.uint32(1)
        age_factor_base = _bring_forward(record, now, half_life_ms)
        for window in range(len(WINDOWS_MS)):
            record.counts[window, code] += np.float32(2.0 ** (-age_factor_base / WINDOWS_MS[window]))
        if code == _IMPRESSION:
            continue
        weight = _taste(code, ratings[event], by_code[code])
        if weight > 0.0:
            weight = np.float32(weight * 2.0 ** (-age_factor_base / half_life_ms))
            if categories[event] != 0:
                _strengthen(record.category_keys, record.category_weights, categories[event], weight)
            if brands[event] != 0:
                _strengthen(record.brand_keys, record.brand_weights, brands[event], weight)
            if price_bands[event] >= 0:
                record.price_weights[price_bands[event]] += weight
        if code == _FOLLOW:
            continue
        _remember(record, item, seconds, code)
        if code in (_ADD, _PURCHASE):
            _hold(record, item, seconds, code)
        elif code == _REMOVE:
            _release(record, item, _ADD)
        elif code in (_CANCEL, _RETURN):
            _release(record, item, _PURCHASE)


@_compiled
def _advance(record, source, offset):  # type: ignore[no-untyped-def]
    """Note the offset of the source; False if it was folded before."""
    free, oldest = -1, 0
    for slot in range(SOURCES):
        key = record.source_keys[slot]
        if key == source:
            if offset <= record.source_offsets[slot]:
                return False
            record.source_offsets[slot] = offset
            return True
        if key == 0 and free < 0:
            free = slot
        if record.source_offsets[slot] < record.source_offsets[oldest]:
            oldest = slot
    slot = free if free >= 0 else oldest
    record.source_keys[slot] = source
    record.source_offsets[slot] = offset
    return True


@_compiled
def _bring_forward(record, now, half_life_ms):  # type: ignore[no-untyped-def]
    """Decay the record to `now` if that is newer; return the event's age (ms) as of the record's time."""
    elapsed = now - record.last_ms
    if elapsed <= 0:
        return -elapsed
    fade = np.float32(2.0 ** (-elapsed / half_life_ms))
    for slot in range(AFFINITIES):
        record.category_weights[slot] *= fade
        record.brand_weights[slot] *= fade
    for band in range(len(record.price_weights)):
        record.price_weights[band] *= fade
    for window in range(len(WINDOWS_MS)):
        fade = np.float32(2.0 ** (-elapsed / WINDOWS_MS[window]))
        for code in range(TYPE_SLOTS):
            record.counts[window, code] *= fade
    record.last_ms = now
    return 0


@_compiled
def _strengthen(keys, weights, key, weight):  # type: ignore[no-untyped-def]
    """Add weight to a key's slot.

    Without a free slot the lightest key gives its place and its weight (Space-Saving: Metwally, Agrawal, El Abbadi
    2005), so that a taste that comes often is never kept out.
    """
    lightest = 0
    for slot in range(AFFINITIES):
        if keys[slot] == key:
            weights[slot] += weight
            return
        if keys[slot] == 0:
            keys[slot] = key
            weights[slot] = weight
            return
        if weights[slot] < weights[lightest]:
            lightest = slot
    keys[lightest] = key
    weights[lightest] += weight


@_compiled
def _remember(record, item, seconds, code):  # type: ignore[no-untyped-def]
    """Put an interaction into the ring at its time; the oldest makes room."""
    size = int(record.size)
    if size == RING and seconds < record.times[0]:
        return
    place = size
    while place > 0 and record.times[place - 1] > seconds:
        place -= 1
    if size == RING:
        place -= 1
        for slot in range(place):
            record.items[slot] = record.items[slot + 1]
            record.times[slot] = record.times[slot + 1]
            record.types[slot] = record.types[slot + 1]
    else:
        for slot in range(size, place, -1):
            record.items[slot] = record.items[slot - 1]
            record.times[slot] = record.times[slot - 1]
            record.types[slot] = record.types[slot - 1]
        record.size = np.uint8(size + 1)
    record.items[place] = item
    record.times[place] = seconds
    record.types[place] = code


@_compiled
def _hold(record, item, seconds, code):  # type: ignore[no-untyped-def]
    """Note that the item is in the cart or bought. Room is made by the oldest purchase, else the oldest line."""
    chosen = -1
    for slot in range(HELD):
        if record.held_items[slot] == item:
            chosen = slot
            break
    if chosen < 0:
        for slot in range(HELD):
            if record.held_items[slot] == _NO_KEY:
                chosen = slot
                break
    if chosen < 0:
        chosen = 0
        for slot in range(1, HELD):
            bought, best_bought = record.held_types[slot] == _PURCHASE, record.held_types[chosen] == _PURCHASE
            older = record.held_times[slot] < record.held_times[chosen]
            if (bought and not best_bought) or (bought == best_bought and older):
                chosen = slot
    record.held_items[chosen] = item
    record.held_types[chosen] = code
    record.held_times[chosen] = seconds


@_compiled
def _release(record, item, code):  # type: ignore[no-untyped-def]
    """Forget that the item is held as `code`."""
    for slot in range(HELD):
        if record.held_items[slot] == item and record.held_types[slot] == code:
            record.held_items[slot] = _NO_KEY
            record.held_types[slot] = 0
            record.held_times[slot] = 0


@_compiled
def _decay_all(records, now_ms, half_life_ms):  # type: ignore[no-untyped-def]
    for row in range(len(records)):
        _bring_forward(records[row], now_ms[row], half_life_ms)
