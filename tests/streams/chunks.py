"""Chunks made by hand."""

from collections.abc import Sequence
from typing import cast

from faust.types import TP

from streams.chunks import Chunk
from streams.ownership import Ownership

TIME_MS = 1_700_000_000_000

NOBODY = cast("Ownership", None)
"""For what does not ask whose a chunk is."""


def chunk(tp: TP, *offsets: int, owner: Ownership = NOBODY) -> Chunk:
    """Records with these offsets; what is in them does not matter."""
    return chunk_of(tp, [b"{}"] * len(offsets), offsets, owner=owner)


def chunk_of(
    tp: TP,
    values: Sequence[bytes | None],
    offsets: Sequence[int],
    *,
    owner: Ownership = NOBODY,
    key: bytes | None = b"ann",
    time_ms: int = TIME_MS,
    fetched: float = 0.0,
    behind: int = 0,
) -> Chunk:
    count = len(values)
    return Chunk(
        tp.topic,
        tp.partition,
        owner,
        list(offsets),
        [time_ms] * count,
        [key] * count,
        list(values),
        fetched,
        behind,
    )
