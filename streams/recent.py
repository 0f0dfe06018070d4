"""The lists that went out in the last minutes, and which of them hold an item that can no longer be sold."""

import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class _Kept(Generic[T]):
    at: float
    items: tuple[str, ...]
    known: T


class RecentLists(Generic[T]):
    """Each user's newest list, the least recent ones forgotten first, with an index from items to users.

    The index says who may hold an item: nothing is taken out of it when a list is replaced or forgotten. It is made of
    two parts, of which the older one is dropped when every list that it knows must have gone.
    """

    def __init__(self, most: int, age_s: float) -> None:
        """None yet.

        Args:
            most: how many users are remembered.
            age_s: for how long.
        """
        self._most = most
        self._age_s = age_s
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._older: dict[str, set[str]] = {}
        self._users: set[str] = set()
        """In `_holders`."""
        self._since = -math.inf
        """When `_holders` was begun."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def indexed(self) -> int:
        """Items in the index."""
        return len(self._holders.keys() | self._older.keys())

    def note(self, user: str, items: Iterable[str], known: T, now: float) -> None:
        """A list went out, and is the user's newest.

        Args:
            user: whose.
            items: the ids in it, in any order.
            known: what the caller wants to find again.
            now: s, of any clock that does not go back.
        """
        # Who is in the older part alone has had no list for `age_s`, or since `most` others had one.
        if now - self._since > self._age_s or len(self._users) >= self._most:
            self._older, self._holders, self._users, self._since = self._holders, defaultdict(set), set(), now
        kept = _Kept(now, tuple(items), known)
        self._kept[user] = kept
        self._kept.move_to_end(user)
        self._users.add(user)
        holders = self._holders
        for item in kept.items:
            holders[item].add(user)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        self._expire(now)

    def forget(self, user: str) -> None:
        """Know nothing of the user's list."""
        self._kept.pop(user, None)

    def holding(self, items: Iterable[str], now: float) -> dict[str, T]:
        """The users whose newest list has one of these items, with what was noted of it."""
        self._expire(now)
        found: dict[str, T] = {}
        for item in items:
            for user in self._holders.get(item, _NOBODY) | self._older.get(item, _NOBODY):
                if (kept := self._kept.get(user)) is not None and item in kept.items:
                    found[user] = kept.known
        return found

    def _expire(self, now: float) -> None:
        while self._kept:
            user, oldest = next(iter(self._kept.items()))
            if now - oldest.at <= self._age_s:
                return
            del self._kept[user]


_NOBODY: frozenset[str] = frozenset()
