"""The rows that hold the profiles of one partition's users, and what brings them back from a changelog."""

from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.profiles.record import Records, empty, from_bytes, put, take

FIRST_CAPACITY = 1_024
"""Rows a partition starts with: 1.1 MB of address space, of which only what is written takes memory."""


_NUMBERS: list[int] = []
"""Row numbers, the same objects for all partitions: each is 32 bytes, and every user's entry holds one."""

_NUMBERING = Lock()
"""Held while `_NUMBERS` grows: a partition may be restored beside the fold of others."""


class ProfileRows:
    """Profiles of one partition, one row a user.

    Rows are never moved or given away while the partition is held. `records` is replaced when it grows: fetch it
    anew after `rows_of`.
    """

    def __init__(self) -> None:
        self.records: Records = empty(FIRST_CAPACITY)
        self.users: list[str] = []
        self._row_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.users)

    def __contains__(self, user: str) -> bool:
        return user in self._row_of

    def __iter__(self) -> Iterator[str]:
        return iter(self.users)

    def find(self, users: Sequence[str]) -> NDArray[np.int64] | None:
        """The row of each user, shape (users,); None if one of them has none."""
        row_of = self._row_of
        try:
            return np.array([row_of[user] for user in users], dtype=np.int64)
        except KeyError:
            return None

    def rows_of(self, users: Sequence[str]) -> NDArray[np.int64]:
        """The row of each user, shape (users,); users nobody knows get an empty one."""
        rows = self.find(users)
        if rows is None:
            row_of = self._row_of
            self._admit([user for user in dict.fromkeys(users) if user not in row_of])
            rows = np.array([row_of[user] for user in users], dtype=np.int64)
        return rows

    def row(self, user: str) -> int | None:
        """The user's row, None if nothing is known."""
        return self._row_of.get(user)

    def unknown(self, users: Sequence[str]) -> set[str]:
        """Those of `users` that have no row."""
        return {user for user in users if user not in self._row_of}

    def restore(self, users: Sequence[str], values: Sequence[bytes]) -> None:
        """Take rows from changelog values, in the changelog's order.

        Of two values of a user the one that has folded more events stays, the later one if they are equal: a late
        write of a worker that had lost the partition does no harm.

        Raises:
            ValueError: a value is no profile.
        """
        records = from_bytes(values)
        rows = self.rows_of(users)
        if len(np.unique(rows)) < len(rows):
            # The last of the fullest values of each row: sort by (row, events, position) and take each row's end.
            order = np.lexsort((np.arange(len(rows)), records["events"], rows))
            ends = np.append(np.flatnonzero(np.diff(rows[order])), len(rows) - 1)
            rows, records = rows[order][ends], take(records, order[ends])
        newer = np.flatnonzero(records["events"] >= self.records["events"][rows])
        put(self.records, rows[newer], take(records, newer))

    def reserve(self, count: int) -> None:
        """Make room for `count` users in all, so that filling the rows copies none of them."""
        if count > len(self.records):
            self._grow(count)

    def _admit(self, newcomers: Sequence[str]) -> None:
        """Give rows to users that have none."""
        first, end = len(self.users), len(self.users) + len(newcomers)
        if len(_NUMBERS) < end:
            with _NUMBERING:
                _NUMBERS.extend(range(len(_NUMBERS), end))
        self._row_of.update(zip(newcomers, _NUMBERS[first:end], strict=True))
        self.users.extend(newcomers)
        if len(self.users) > len(self.records):
            self._grow(max(len(self.users), 2 * len(self.records)))

    def _grow(self, capacity: int) -> None:
        # The pages beyond the copied rows are not touched, so they take no memory.
        grown = empty(capacity)
        grown[: len(self.records)] = self.records
        self.records = grown
