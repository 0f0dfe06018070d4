"""Chunks made by hand."""

from collections.abc import Sequence

from faust.types import TP

from streams.chunks import Chunk

TIME_MS = 1_700_000_000_000


def chunk(tp: TP, *offsets: int) -> Chunk:
    """Records with these offsets; what is in them does not matter."""
    return chunk_of(tp, [b"{}"] * len(offsets), offsets)


def chunk_of(
    tp: TP,
    values: Sequence[bytes | None],
    offsets: Sequence[int],
    *,
    key: bytes | None = b"ann",
    time_ms: int = TIME_MS,
    fetched: float = 0.0,
) -> Chunk:
    count = len(values)
    return Chunk(tp.topic, tp.partition, list(offsets), [time_ms] * count, [key] * count, list(values), fetched)
