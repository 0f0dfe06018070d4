"""What the gateway remembers of users' last steps, in bounded memory: for reasons, and for joining sessions."""

from collections import OrderedDict
from collections.abc import Sequence

STEPS = 5
"""A user's latest items that a list may be explained by: as many as the model's item half looks back by default."""

TRAILS = 100_000
"""Users whose steps are remembered, 400 bytes each."""

SESSIONS = 200_000
"""Sessions whose first records are remembered, 400 bytes each; of an older one, the log's newest part is searched."""


class Trails:
    """The latest items of the users who did something last."""

    def __init__(self, capacity: int = TRAILS) -> None:
        self._capacity = capacity
        self._items: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def step(self, user_id: str, item_id: str) -> None:
        """The user did something with an item."""
        before = self._items.pop(user_id, ())
        self._items[user_id] = (*before[1 - STEPS :], item_id)
        if len(self._items) > self._capacity:
            self._items.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Nothing is known of the user any more."""
        self._items.pop(user_id, None)

    def of(self, user_id: str) -> Sequence[str]:
        """The user's latest items, the last one last."""
        return self._items.get(user_id, ())


class Sessions:
    """Where a session's records begin in each topic, in the session's partition: a join need not search for them."""

    def __init__(self, capacity: int = SESSIONS) -> None:
        self._capacity = capacity
        self._first: OrderedDict[str, dict[str, int]] = OrderedDict()

    def saw(self, session_user: str, topic: str, offset: int) -> None:
        """A record of the session passed."""
        first = self._first.get(session_user)
        if first is None:
            self._first[session_user] = {topic: offset}
            if len(self._first) > self._capacity:
                self._first.popitem(last=False)
        else:
            first.setdefault(topic, offset)

    def first(self, session_user: str) -> dict[str, int] | None:
        """The offset of its first record by topic; None where the session is not remembered."""
        return self._first.get(session_user)
