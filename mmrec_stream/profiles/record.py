"""The fixed-width record of one profile and its versioned bytes.

A record holds nothing of a model: items, categories and brands are kept by a hash of their id, so that releases
change without touching it and an event may come before its catalogue entry. Its bytes are the changelog's value.

Layouts are written in literal numbers and never changed, as their bytes lie in people's changelogs; what the fold needs
of them is read off them. A new version has the fields of the one before it, where they were, and its own behind them.
So a worker reads the rows of a newer one as far as it knows them, and hands back what it does not know as it was: old
and new workers share a group while a new release is rolled out. A field at the end must therefore bear that events
were folded without it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = 1

LAYOUTS: dict[int, np.dtype[np.void]] = {
    1: np.dtype(
        {
            "itemsize": 1140,
            "names": [
                "version",
                "size",  # valid entries of the ring
                "types",  # EventType, oldest first
                "held_types",  # ADD_TO_CART, PURCHASE, or 0 for an empty slot
                "padding",  # puts all that follows on multiples of 8
                "items",  # id_key
                "held_items",  # id_key
                "last_ms",  # newest event time; what decays is as of this time
                "source_offsets",  # last folded offset
                "source_keys",  # source_key, 0 for an empty slot
                "times",  # s since 1970
                "held_times",  # s since 1970
                "events",  # folded in all, impressions too
                "first_s",  # time of the first folded event, s since 1970
                "category_keys",  # short_key, 0 for an empty slot
                "category_weights",
                "brand_keys",
                "brand_weights",
                "price_weights",
                "counts",  # by half-life and EventType, as of last_ms
            ],
            "formats": [
                "u1",
                "u1",
                "50u1",
                "8u1",
                "4u1",
                "50<u8",
                "8<u8",
                "<i8",
                "6<i8",
                "6<u4",
                "50<u4",
                "8<u4",
                "<u4",
                "<u4",
                "8<u4",
                "8<f4",
                "8<u4",
                "8<f4",
                "8<f4",
                "(3,11)<f4",
            ],
            "offsets": [
                *(0, 1, 2, 52, 60, 64, 464, 528, 536, 584),
                *(608, 808, 840, 844, 848, 880, 912, 944, 976, 1008),
            ],
        }
    ),
}
"""The record's layout of every version that may still be in a changelog. The first byte is the version."""

RECORD = LAYOUTS[VERSION]

RING: int = RECORD["items"].shape[0]
"""Interactions remembered. Sequence encoders gain little beyond 50 (SASRec's own ablation on Amazon data), and each
further place costs 13 bytes a user."""

HELD: int = RECORD["held_items"].shape[0]
"""Items in the cart or lately bought. Carts beyond 8 lines are rare; the oldest purchase makes room first."""

AFFINITIES: int = RECORD["category_keys"].shape[0]
"""Slots for categories and for brands: the heaviest ones of a user, by the Space-Saving rule."""

PRICE_BANDS: int = RECORD["price_weights"].shape[0]
PRICE_EDGES = (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Upper ends of the price bands, in the shop's currency; a 1-2-5 series, as prices spread evenly on a log scale."""

UNKNOWN_BAND = -1
WINDOWS_MS = (3_600_000, 86_400_000, 604_800_000)
"""Half-lives of the decayed counts: an hour, a day, a week."""

TYPE_SLOTS: int = RECORD["counts"].shape[1]
"""Codes of `EventType` that have a count; 0 is none."""

SOURCES: int = RECORD["source_keys"].shape[0]
"""Source partitions whose last folded offset is remembered: one a behaviour topic (a user has one partition)."""

if len(PRICE_EDGES) + 1 != PRICE_BANDS or len(WINDOWS_MS) != RECORD["counts"].shape[0]:
    raise ImportError(f"layout {VERSION} of the profile has no place for all price bands or half-lives")

_WHOLE = np.dtype((np.void, RECORD.itemsize))
"""A record as bytes, of which numpy knows no fields."""

Records = NDArray[np.void]
"""Array of `RECORD`s."""


def empty(count: int) -> Records:
    """`count` profiles of users of whom nothing is known. Untouched rows take no memory until they are written."""
    return np.zeros(count, dtype=RECORD)


def take(records: Records, rows: NDArray[np.int64]) -> Records:
    """Copies of some rows, shape (rows,): six times faster whole than field by field, as numpy copies records."""
    taken: Records = records.view(_WHOLE)[rows].view(RECORD)
    return taken


def put(records: Records, rows: NDArray[np.int64], values: Records) -> None:
    """Overwrite some rows, in place. As `take`, thirteen times faster than by fields."""
    records.view(_WHOLE)[rows] = values.view(_WHOLE)


def to_bytes(record: np.void) -> bytes:
    """The record's bytes, `RECORD.itemsize` long."""
    return record.tobytes()


class Newer(NamedTuple):
    """What a row of a newer version has beyond `RECORD`: to be handed back as it was."""

    version: int
    rest: bytes


def from_bytes(values: Sequence[bytes]) -> Records:
    """Records of shape (values,) from their bytes, whatever version wrote them.

    What an old version lacks is empty; what a newer one has beyond `RECORD` is left out.

    Raises:
        ValueError: a value is no profile; names its position.
    """
    records = plain(values)
    if records is not None:
        return records
    found = []
    for position, value in enumerate(values):
        try:
            found.append(parse(value)[0])
        except ValueError as error:
            raise ValueError(f"profile {position}: {error}") from error
    return np.frombuffer(bytearray().join(found), dtype=RECORD)


def plain(values: Sequence[bytes | None]) -> Records | None:
    """Records of shape (values,) if every value was written by this version, None if not: the usual case, at once."""
    try:
        # A None has no length.
        if set(map(len, values)) == {RECORD.itemsize}:  # type: ignore[arg-type]
            records: Records = np.frombuffer(bytearray().join(values), dtype=RECORD)  # type: ignore[arg-type]
            if (records["version"] == VERSION).all():
                return records
    except TypeError:
        pass
    return None


def parse(value: bytes) -> tuple[bytes, Newer | None]:
    """One value as the bytes of a `RECORD`, and what a newer version has beyond them.

    Raises:
        ValueError: it is no profile.
    """
    version, width = value[0] if value else 0, RECORD.itemsize
    if version > VERSION:
        if len(value) < width:
            raise ValueError(f"{len(value)} bytes, version {version} has no fewer than the {width} of {VERSION}")
        return bytes([VERSION]) + value[1:width], Newer(version, value[width:])
    layout = LAYOUTS.get(version)
    if layout is None:
        raise ValueError(f"no profile: {f'version {version}' if value else 'empty'}")
    if len(value) != layout.itemsize:
        raise ValueError(f"{len(value)} bytes, version {version} has {layout.itemsize}")
    return bytes([VERSION]) + value[1:] + bytes(width - len(value)), None


def erase(records: Records, source: int, offset: int) -> bool:
    """Forget all that users did, in place; what remains is how far each source was folded.

    Args:
        records: shape (users,).
        source: `source_key` of the topic partition with the request.
        offset: the request's.

    Returns:
        False if every one of them has folded something at or after the request: it is a repeat.
    """
    slots = (records["source_keys"] == source) & (records["source_offsets"] >= offset)
    asked = ~slots.any(axis=1)
    if not asked.any():
        return False
    keys, offsets = records["source_keys"][asked].copy(), records["source_offsets"][asked].copy()
    for row in range(len(keys)):
        # Its own slot, else an empty one, else the one with the lowest offset: as the fold chooses.
        slot = int(np.lexsort((offsets[row], keys[row] != 0, keys[row] != source))[0])
        keys[row, slot], offsets[row, slot] = source, offset
    emptied = empty(len(keys))
    emptied["version"], emptied["source_keys"], emptied["source_offsets"] = VERSION, keys, offsets
    records[asked] = emptied
    return True


def price_bands(prices: NDArray[np.float64]) -> NDArray[np.int8]:
    """The band of each price, from 0 (cheapest) to `PRICE_BANDS` − 1; `UNKNOWN_BAND` where it is NaN."""
    bands = np.searchsorted(PRICE_EDGES, prices, side="right").astype(np.int8)
    bands[np.isnan(prices)] = UNKNOWN_BAND
    return bands
