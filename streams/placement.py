"""Which partitions a worker keeps warm: those that the range assignor would give it if their owner were gone.

Nothing is agreed between workers, and nobody is asked: a worker's own share tells how many there are and which of them
it is. (The group's coordinator could be asked; but librdkafka's admin client aborts the process when the coordinator
comes back while such a question is open, https://github.com/confluentinc/librdkafka/issues/5040.)
"""

from collections.abc import Collection
from typing import NamedTuple


class Place(NamedTuple):
    """A worker's place in a group that the range assignor shares partitions among."""

    rank: int
    """From 0, in the assignor's order."""
    workers: int


def owner(partition: int, partitions: int, workers: int) -> int:
    """The rank of the worker that the range assignor gives a partition to: the first ones get one more."""
    least, more = divmod(partitions, workers)
    if partition < more * (least + 1):
        return partition // (least + 1)
    return more + (partition - more * (least + 1)) // least


def share(place: Place, partitions: int) -> range:
    """The partitions that a worker gets."""
    least, more = divmod(partitions, place.workers)
    first = place.rank * least + min(place.rank, more)
    return range(first, first + least + (place.rank < more))


def places(held: Collection[int], partitions: int) -> list[Place]:
    """Where a worker may stand that holds exactly these; several where they do not tell, none in a rebalance."""
    if not held:
        return []
    found = (Place(owner(min(held), partitions, workers), workers) for workers in range(1, partitions + 1))
    return [place for place in found if set(share(place, partitions)) == set(held)]


def standbys(partition: int, partitions: int, workers: int, count: int) -> list[int]:
    """The ranks that keep a partition warm, the one first who gets it if its owner goes.

    The next one is who gets it if they both go, and so on: nobody is named twice, and never the owner.
    """
    left = list(range(workers))
    del left[owner(partition, partitions, workers)]
    found: list[int] = []
    while left and len(found) < count:
        found.append(left.pop(owner(partition, partitions, len(left))))
    return found


def kept_by(held: Collection[int], partitions: int, count: int) -> list[int] | None:
    """The partitions that a worker keeps warm beside those that it holds, the likeliest to come first.

    Args:
        held: what it holds.
        partitions: their number.
        count: how many standbys each has, where there are enough workers.

    Returns:
        None where what it holds is no share, as in a rebalance: then nothing is to change.
    """
    if not (possible := places(held, partitions)):
        return None
    nearest: dict[int, int] = {}
    for rank, workers in possible:
        for partition in range(partitions):
            heirs = standbys(partition, partitions, workers, count)
            if rank in heirs:
                nearest[partition] = min(heirs.index(rank), nearest.get(partition, count))
    return sorted(nearest, key=lambda partition: (nearest[partition], partition))
