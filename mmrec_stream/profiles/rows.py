"""The rows that hold the profiles of one partition's users, and what brings them back from a changelog."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.profiles.record import RECORD, Newer, Records, empty, parse, plain, put, take

FIRST_CAPACITY = 1_024
"""Rows a partition starts with: 1.1 MB of address space, of which only what is written takes memory."""

EXAMPLES = 5
"""Unreadable records that are described one by one; a log full of them says nothing more with a thousand."""

NOBODY = ""
"""The name on a row whose user was forgotten. No user has it: ids have at least one character."""

_NUMBERS: list[int] = []
"""Row numbers, the same objects for all partitions: each is 32 bytes, and every user's entry holds one."""

_NUMBERING = Lock()
"""Held while `_NUMBERS` grows: a partition may be restored beside the fold of others."""


class Unreadable(NamedTuple):
    """A changelog record that is no profile."""

    place: int
    """Its position in what was restored; its offset where `PartitionRows` tells it."""
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of changelog records. Every record is in exactly one of the first three counts."""

    rows: int = 0
    """Profiles taken, those included that a later record replaced."""
    tombstones: int = 0
    """Users forgotten, whether they had a row or not."""
    unreadable: int = 0
    """Records passed over."""
    newer: int = 0
    """Of `rows`, those that a newer version wrote."""
    examples: tuple[Unreadable, ...] = ()
    """The first `EXAMPLES` of the unreadable ones."""

    def __add__(self, other: "Restored") -> "Restored":
        return Restored(
            self.rows + other.rows,
            self.tombstones + other.tombstones,
            self.unreadable + other.unreadable,
            self.newer + other.newer,
            (self.examples + other.examples)[:EXAMPLES],
        )


class ProfileRows:
    """Profiles of one partition, one row a user.

    Rows are never moved, nor given to another user, while the partition is held: a forgotten user leaves an empty one.
    `records` is replaced when it grows: fetch it anew after `rows_of` and `restore`. All records are of this version;
    what a newer one has beyond is kept aside and added by `encode`.
    """

    def __init__(self) -> None:
        self.records: Records = empty(FIRST_CAPACITY)
        self._users: list[str] = []
        self._row_of: dict[str, int] = {}
        self._newer: dict[int, Newer] = {}

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, user: str) -> bool:
        return user in self._row_of

    def __iter__(self) -> Iterator[str]:
        """The users, in the order of their rows."""
        return iter(self._row_of)

    @property
    def given(self) -> Records:
        """The records of all rows that were ever given out, a view. Those of forgotten users are empty: no events."""
        return self.records[: len(self._users)]

    def live(self) -> NDArray[np.int64]:
        """The rows that have a user, ascending, shape (len(self),); in the order of iteration."""
        if len(self._row_of) == len(self._users):
            return np.arange(len(self._users), dtype=np.int64)
        return np.fromiter(self._row_of.values(), dtype=np.int64, count=len(self._row_of))

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

    def users_of(self, rows: NDArray[np.int64]) -> list[str]:
        """The user of each row, `NOBODY` where it was forgotten."""
        users = self._users
        return [users[row] for row in rows.tolist()]

    def unknown(self, users: Sequence[str]) -> set[str]:
        """Those of `users` that have no row."""
        return {user for user in users if user not in self._row_of}

    def forget(self, user: str) -> bool:
        """Empty the user's row for good; False if nothing was known. One who comes back gets a new row."""
        row = self._row_of.pop(user, None)
        if row is None:
            return False
        put(self.records, np.array([row]), empty(1))
        self._users[row] = NOBODY
        self._newer.pop(row, None)
        return True

    def restore(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Restored:
        """Take changelog records, in the changelog's order: a user's last one counts, whatever it says.

        A record without a value forgets its user. What is no profile is passed over and told.

        Args:
            keys: the users' ids as bytes.
            values: of the same length.
        """
        records = plain(values)
        users = _names(keys) if records is not None else None
        if records is None or users is None:
            return self._restore_each(keys, values)
        self._put(users, records)
        return Restored(rows=len(users))

    def encode(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The changelog values of some rows, whose users have folded something.

        A row that a newer version wrote goes back as one of that version, with what it had beyond ours.

        Raises:
            ValueError: a row holds no profile.
        """
        records = take(self.records, rows)
        if not records["version"].all():
            raise ValueError(f"row {rows[records['version'] == 0][0]} holds no profile: nothing was folded into it")
        block, width = records.tobytes(), RECORD.itemsize
        values = [block[start : start + width] for start in range(0, len(block), width)]
        if self._newer:
            for place, row in enumerate(rows.tolist()):
                if (newer := self._newer.get(row)) is not None:
                    values[place] = bytes([newer.version]) + values[place][1:] + newer.rest
        return values

    def reserve(self, count: int) -> None:
        """Make room for `count` rows in all, so that filling them copies none."""
        if count > len(self.records):
            self._grow(count)

    def _restore_each(self, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Restored:
        """As `restore`, record by record: some are tombstones, unreadable, or of another version."""
        newest: dict[str, tuple[bytes, Newer | None] | None] = {}
        taken = tombstones = newer = 0
        bad: list[Unreadable] = []
        for place, (key, value) in enumerate(zip(keys, values, strict=True)):
            try:
                user = _name(key)
                parsed = None if value is None else parse(value)
            except ValueError as error:
                bad.append(Unreadable(place, str(error)))
                continue
            newest[user] = parsed
            taken += parsed is not None
            tombstones += parsed is None
            newer += parsed is not None and parsed[1] is not None
        for user in [user for user, parsed in newest.items() if parsed is None]:
            del newest[user]
            self.forget(user)
        if newest:
            found = [parsed for parsed in newest.values() if parsed is not None]
            records = np.frombuffer(bytearray().join(prefix for prefix, _ in found), dtype=RECORD)
            rows = self._put(list(newest), records)
            self._newer.update(
                (row, beyond) for row, (_, beyond) in zip(rows.tolist(), found, strict=True) if beyond is not None
            )
        return Restored(taken, tombstones, len(bad), newer, tuple(bad[:EXAMPLES]))

    def _put(self, users: Sequence[str], records: Records) -> NDArray[np.int64]:
        """Overwrite the users' rows with records of this version, the last one of a user; return the rows."""
        rows = self.rows_of(users)
        put(self.records, rows, records)  # in order: of a row that comes twice the last one stays
        if self._newer:
            for row in rows.tolist():
                self._newer.pop(row, None)
        return rows

    def _admit(self, newcomers: Sequence[str]) -> None:
        """Give rows to users that have none."""
        first, end = len(self._users), len(self._users) + len(newcomers)
        if len(_NUMBERS) < end:
            with _NUMBERING:
                _NUMBERS.extend(range(len(_NUMBERS), end))
        self._row_of.update(zip(newcomers, _NUMBERS[first:end], strict=True))
        self._users.extend(newcomers)
        if len(self._users) > len(self.records):
            self._grow(max(len(self._users), 2 * len(self.records)))

    def _grow(self, capacity: int) -> None:
        # The pages beyond the copied rows are not touched, so they take no memory.
        grown = empty(capacity)
        grown[: len(self.records)] = self.records
        self.records = grown


def _names(keys: Sequence[bytes | None]) -> list[str] | None:
    """The users of keys; None if one of them is nobody's."""
    try:
        users = [key.decode() for key in keys]  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        return None
    return users if all(users) else None


def _name(key: bytes | None) -> str:
    if not key:
        raise ValueError("the record has no key")
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"the key is no UTF-8: {key[:64]!r}") from error
