"""The field types that several contracts share, with their bounds."""

from typing import Annotated

from msgspec import Meta

MAX_ID_LENGTH = 128
"""Longer ids are a producer's mistake (a URL, a whole title) and would bloat every list."""

EARLIEST_MS = 100_000_000_000
"""1973 in milliseconds. A time below it was given in seconds."""

MAX_PRICE = 1e12
"""Beyond it a price is a mistake in any currency, infinity among them, which JSON cannot write."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
EventTime = Annotated[int, Meta(ge=EARLIEST_MS, le=9_000_000_000_000, description="milliseconds since 1970, UTC")]
SchemaVersion = Annotated[int, Meta(ge=1, le=1, description="version of this contract")]
Label = Annotated[str, Meta(max_length=256)]
Price = Annotated[float, Meta(ge=0, le=MAX_PRICE)]
Offset = Annotated[int, Meta(ge=0)]
Partition = Annotated[int, Meta(ge=0)]
