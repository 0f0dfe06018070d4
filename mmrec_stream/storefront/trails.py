"""What the gateway remembers of users' last steps, in bounded memory: for reasons, carts, and for joining sessions."""

from collections import OrderedDict
from collections.abc import Sequence

from mmrec_stream.contracts.behaviour import EventType

STEPS = 5
"""A user's latest items that a list may be explained by: as many as the model's item half looks back by default."""

TRAILS = 100_000
"""Users whose steps are remembered, 400 bytes each."""

IN_CART = 50
"""Products of a cart that are remembered, the last ones: a list has no room to complete more."""

CART_EVENTS = (EventType.ADD_TO_CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE)
"""What changes a cart."""

CARTS = 100_000
"""Carts that are remembered, those that changed last: half a kilobyte each."""

SESSIONS = 200_000
"""Sessions whose first records are remembered, 400 bytes each; of an older one, the log's newest part is searched."""


class _Latest:
    """Items by user, of the users whose changed last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    def forget(self, user_id: str) -> None:
        """Nothing is known of the user any more."""
        self._items.pop(user_id, None)

    def of(self, user_id: str) -> Sequence[str]:
        """The user's items, the last one last."""
        return self._items.get(user_id, ())

    def _keep(self, user_id: str, items: tuple[str, ...]) -> None:
        self.forget(user_id)
        if items:
            self._items[user_id] = items
            if len(self._items) > self._capacity:
                self._items.popitem(last=False)


class Trails(_Latest):
    """The latest items of the users who did something last."""

    def __init__(self, capacity: int = TRAILS) -> None:
        super().__init__(capacity)

    def step(self, user_id: str, item_id: str) -> None:
        """The user did something with an item."""
        self._keep(user_id, (*self.of(user_id)[1 - STEPS :], item_id))


class Carts(_Latest):
    """What is in the carts of the users who changed theirs last."""

    def __init__(self, capacity: int = CARTS) -> None:
        super().__init__(capacity)

    def step(self, user_id: str, code: EventType, item_id: str) -> bool:
        """The user did something with an item; says whether it changed the cart."""
        before = self.of(user_id)
        if code == EventType.ADD_TO_CART:
            after = (*(one for one in before if one != item_id), item_id)[-IN_CART:]
        elif code in (EventType.REMOVE_FROM_CART, EventType.PURCHASE) and item_id in before:
            after = tuple(one for one in before if one != item_id)
        else:
            return False
        self._keep(user_id, after)
        return after != before


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
