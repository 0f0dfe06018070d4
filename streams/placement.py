"""Which partitions a worker keeps warm: those that the range assignor would give it if their owner were gone.

Nothing is agreed between workers. Each sees the same members of the group and comes to the same answer.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A member of the group, as its coordinator tells it."""

    id: str
    name: str = ""
    """Its static name; empty without."""
    partitions: frozenset[int] = frozenset()
    """What it has been given."""

    @property
    def rank(self) -> str:
        """What the range assignor orders members by."""
        return self.name or self.id


def shares(members: Collection[Member], partitions: int) -> dict[int, Member]:
    """Who gets each partition from the range assignor; empty without members."""
    ordered = sorted(members, key=lambda member: member.rank)
    if not ordered:
        return {}
    least, more = divmod(partitions, len(ordered))
    given = (member for place, member in enumerate(ordered) for _ in range(least + (place < more)))
    return dict(enumerate(given))


def standbys(members: Collection[Member], partitions: int, count: int) -> dict[int, list[Member]]:
    """Who keeps each partition warm, the one first who gets it if its owner goes.

    The next one is who gets it if they both go, and so on: nobody is named twice, and never the owner.

    Args:
        members: of the group.
        partitions: their number.
        count: how many standbys each partition has, where there are enough workers.
    """
    assigned = {partition: member for member in members for partition in member.partitions}
    expected = shares(members, partitions)
    found: dict[int, list[Member]] = {}
    cache: dict[frozenset[Member], dict[int, Member]] = {}
    for partition in range(partitions if members else 0):
        left = frozenset(members) - {assigned.get(partition, expected[partition])}
        found[partition] = []
        while left and len(found[partition]) < count:
            if left not in cache:
                cache[left] = shares(left, partitions)
            heir = cache[left][partition]
            found[partition].append(heir)
            left -= {heir}
    return found


def kept_by(me: Member, members: Collection[Member], partitions: int, count: int) -> list[int]:
    """The partitions that a member keeps warm, the likeliest to come first."""
    ranked = [
        (heirs.index(me), partition) for partition, heirs in standbys(members, partitions, count).items() if me in heirs
    ]
    return [partition for _, partition in sorted(ranked)]


def expected_by(newcomer: Member, members: Sequence[Member], partitions: int) -> list[int]:
    """What somebody who is about to join reads before: what it will get, and everything if its rank is not known.

    Nothing where nobody is served meanwhile: without other members, or if the group keeps partitions for its name.
    """
    others = [member for member in members if member.rank != newcomer.rank]
    if not others or any(member.rank == newcomer.rank and member.partitions for member in members):
        return []
    if not newcomer.rank:
        return list(range(partitions))
    share = shares([*others, newcomer], partitions)
    return [partition for partition, member in share.items() if member is newcomer]
