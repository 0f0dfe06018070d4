"""Which offsets may be committed: never past work that is not finished. Pure bookkeeping."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class CommitTracker(Generic[P]):
    """Chunks of each partition that were begun, in their order, and which of them are finished."""

    def __init__(self) -> None:
        self._open: dict[P, deque[int]] = {}
        self._finished: dict[P, set[int]] = {}
        self._next: dict[P, int] = {}

    def begin(self, partition: P, last_offset: int) -> None:
        """A chunk that ends with `last_offset` is being worked on.

        Raises:
            ValueError: the partition's offsets do not grow.
        """
        chunks = self._open.setdefault(partition, deque())
        if chunks and chunks[-1] >= last_offset:
            raise ValueError(f"{partition}: chunk up to {last_offset} begun after {chunks[-1]}")
        chunks.append(last_offset)

    def finish(self, partition: P, last_offset: int) -> None:
        """The chunk that ends with `last_offset` is done. A chunk that was never begun here is ignored."""
        chunks = self._open.get(partition)
        if not chunks or last_offset < chunks[0]:
            return
        finished = self._finished.setdefault(partition, set())
        finished.add(last_offset)
        while chunks and chunks[0] in finished:
            finished.discard(chunks[0])
            self._next[partition] = chunks.popleft() + 1

    def committable(self, partition: P) -> int | None:
        """The next offset to read after all finished work, None if nothing finished since it was last taken."""
        return self._next.pop(partition, None)

    def partitions(self) -> Iterable[P]:
        """Partitions with something to commit."""
        return list(self._next)

    def forget(self) -> None:
        """Give everything up: it will be read again."""
        self._open.clear()
        self._finished.clear()
        self._next.clear()
