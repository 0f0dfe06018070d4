"""What users were shown lately, in bounded memory: rules may keep it out of their next lists.

It is no part of the profile, whose record it would make a third longer for everybody.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmrec_stream.contracts.identity import NO_KEY

LAST = 50
"""Impressions that are remembered of a user, the last ones: those of some five pages, 400 bytes."""

USERS = 100_000
"""Users of whom they are remembered, those who were shown something last: 60 MB when there are as many."""

LONG_AGO = 1_000_000
"""How many impressions ago a product was shown that is not among those remembered: more than any rule asks for."""


class Shown:
    """The last impressions of users, by item key. Any thread may note and ask."""

    def __init__(self, users: int = USERS) -> None:
        """None yet, of `users` users at most."""
        self._keys = np.zeros((users, LAST), dtype=np.uint64)  # takes no memory until it is written
        self._counts = np.zeros(users, dtype=np.int64)
        self._places: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(users - 1, -1, -1))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._places)

    def note(self, impressions: Iterable[tuple[str, int]]) -> None:
        """Users were shown items (`id_key`), in this order."""
        with self._lock:
            for user, item in impressions:
                place = self._places.get(user)
                if place is None:
                    if not self._free:
                        self._drop(next(iter(self._places)))
                    place = self._places[user] = self._free.pop()
                self._keys[place, self._counts[place] % LAST] = item
                self._counts[place] += 1
                self._places.move_to_end(user)

    def of(self, users: Sequence[str]) -> NDArray[np.uint64]:
        """Keys of what each was shown, the last one first, 0 where there is no more; (users, `LAST`)."""
        with self._lock:
            places = np.array([self._places.get(user, -1) for user in users], dtype=np.int64)
            turned = (self._counts[places][:, None] - 1 - np.arange(LAST)) % LAST
            found: NDArray[np.uint64] = self._keys[places[:, None], turned]
        found[places < 0] = NO_KEY
        return found

    def forget(self, user: str) -> None:
        """Know nothing of the user."""
        with self._lock:
            if user in self._places:
                self._drop(user)

    def clear(self) -> None:
        """Know nothing of anybody."""
        with self._lock:
            while self._places:
                self._drop(next(iter(self._places)))

    def _drop(self, user: str) -> None:
        place = self._places.pop(user)
        self._keys[place] = NO_KEY
        self._counts[place] = 0
        self._free.append(place)


def since_shown(shown: NDArray[np.uint64], keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many impressions ago each item was shown (0: it was the last one), and how often among those remembered.

    Args:
        shown: as `Shown.of` gives it, (users, `LAST`), or (`LAST`,) of one user.
        keys: of items, (users, n); (n,) or (1, n) where there is one user.

    Returns:
        Both of the shape of `keys`; `LONG_AGO` and 0 for what is not remembered.
    """
    ago, times = _since(np.atleast_2d(shown), np.atleast_2d(keys))
    return ago.reshape(keys.shape), times.reshape(keys.shape)


@njit(cache=True, nogil=True)
def _since(shown, keys):  # type: ignore[no-untyped-def]
    ago, times = np.full(keys.shape, LONG_AGO, dtype=np.int64), np.zeros(keys.shape, dtype=np.int64)
    for user in range(keys.shape[0]):
        for place in range(keys.shape[1]):
            for back in range(LAST - 1, -1, -1):
                if shown[user, back] == keys[user, place]:
                    ago[user, place] = back
                    times[user, place] += 1
    return ago, times
