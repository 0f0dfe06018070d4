"""The lists that went out in the last minutes, and which of them hold an item that can no longer be sold."""

from collections import OrderedDict
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

    A list of 20 takes some 3.5 KB, most of it in the index.
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
        self._holders: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, user: str, items: Iterable[str], known: T, now: float) -> None:
        """A list went out, and is the user's newest.

        Args:
            user: whose.
            items: the ids in it, in any order.
            known: what the caller wants to find again.
            now: s, of any clock that does not go back.
        """
        self.forget(user)
        kept = _Kept(now, tuple(items), known)
        self._kept[user] = kept
        for item in kept.items:
            holders = self._holders.get(item)
            if holders is None:
                self._holders[item] = {user}
            else:
                holders.add(user)
        while len(self._kept) > self._most:
            self.forget(next(iter(self._kept)))
        self._expire(now)

    def forget(self, user: str) -> None:
        """Know nothing of the user's list."""
        if (kept := self._kept.pop(user, None)) is None:
            return
        for item in kept.items:
            if (holders := self._holders.get(item)) is not None:
                holders.discard(user)
                if not holders:
                    del self._holders[item]

    def holding(self, items: Iterable[str], now: float) -> dict[str, T]:
        """The users whose newest list has one of these items, with what was noted of it."""
        self._expire(now)
        users: set[str] = set()
        for item in items:
            users |= self._holders.get(item, set())
        return {user: self._kept[user].known for user in users}

    def _expire(self, now: float) -> None:
        while self._kept:
            user, oldest = next(iter(self._kept.items()))
            if now - oldest.at <= self._age_s:
                return
            self.forget(user)
