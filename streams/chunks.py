"""A chunk: what a fetch brought of one partition, as columns."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Chunk:
    """Records of one partition in their order; the columns belong together place by place."""

    topic: str
    partition: int
    offsets: list[int] = field(default_factory=list)
    times_ms: list[int] = field(default_factory=list)
    """When the broker or the producer says that they were made, ms since 1970."""
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    fetched: float = 0.0
    """When they came in: s since 1970."""

    def __len__(self) -> int:
        return len(self.offsets)

    def at(self, places: list[int]) -> "Chunk":
        """The records at `places` alone."""
        return Chunk(
            self.topic,
            self.partition,
            [self.offsets[place] for place in places],
            [self.times_ms[place] for place in places],
            [self.keys[place] for place in places],
            [self.values[place] for place in places],
            self.fetched,
        )
