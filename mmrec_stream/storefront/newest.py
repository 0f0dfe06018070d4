"""The newest list of each user, in bounded memory."""

from collections import OrderedDict

OVERHEAD = 300
"""Bytes that an entry takes beside the list itself: the two objects, the id, its share of the table."""


class NewestLists:
    """The newest list of each user as the bytes of its record; decoded when somebody looks at it.

    Users whose lists are the least recent make room.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._lists: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0
        """What the lists take."""

    def __len__(self) -> int:
        return len(self._lists)

    def get(self, user_id: str) -> bytes | None:
        """The user's newest list, if it is in memory."""
        return self._lists.get(user_id)

    def put(self, user_id: str, value: bytes | None) -> None:
        """Take a record of the recommendations topic; without a value, the user has no list any more."""
        old = self._lists.pop(user_id, None)
        if old is not None:
            self.bytes -= len(old) + OVERHEAD
        if value is None:
            return
        self._lists[user_id] = value
        self.bytes += len(value) + OVERHEAD
        while self.bytes > self._max_bytes and self._lists:
            self.bytes -= len(self._lists.popitem(last=False)[1]) + OVERHEAD
