"""A chunk: what a fetch brought of one partition, as columns."""

from dataclasses import dataclass, field

from streams.ownership import Ownership


@dataclass(slots=True)
class Chunk:
    """Records of one partition in their order; the columns belong together place by place."""

    topic: str
    partition: int
    owner: Ownership
    """For whom they were fetched."""
    offsets: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    """When the broker or the producer says that they were made, ms since 1970."""
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    fetched: float = 0.0
    """When they came in: s since 1970."""
    behind: int = 0
    """How many records the partition is known to have after them."""

    def __len__(self) -> int:
        return len(self.offsets)

    def at(self, places: list[int]) -> "Chunk":
        """The records at `places` alone."""
        return Chunk(
            self.topic,
            self.partition,
            self.owner,
            [self.offsets[place] for place in places],
            [self.times_ms[place] for place in places],
            [self.keys[place] for place in places],
            [self.values[place] for place in places],
            self.fetched,
            self.behind,
        )

    def pieces(self, size: int) -> "list[Chunk]":
        """The chunk in pieces of at most `size` records, in order."""
        if len(self) <= size:
            return [self]
        return [self.at(list(range(start, min(start + size, len(self))))) for start in range(0, len(self), size)]
