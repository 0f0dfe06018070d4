"""Ids of events that were taken lately, so that a page may send an event again and it still counts once."""

import asyncio
from collections import OrderedDict

WINDOW = 500_000
"""Ids remembered, 250 bytes each. At 1,000 events a second they reach eight minutes back; a page repeats within
seconds, and one that was offline keeps its events until they are confirmed."""

Key = tuple[str, str]
"""User and event id: nobody can keep another's event out by taking its id."""

Delivery = asyncio.Future[str | None]
"""What became of a record: None once the broker has confirmed it, or why it was given up."""


class Window:
    """The newest ids, with the delivery of those that are still under way."""

    def __init__(self, capacity: int = WINDOW) -> None:
        self._capacity = capacity
        self._known: OrderedDict[Key, Delivery | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: Key) -> bool:
        return key in self._known

    def delivery(self, key: Key) -> Delivery | None:
        """The delivery of a known event; None where it is confirmed."""
        return self._known[key]

    def begin(self, key: Key, delivery: Delivery) -> None:
        """Remember an event that is under way. One that is given up is forgotten, so that it may come again."""
        self._remember(key, delivery)
        delivery.add_done_callback(lambda done: self._finish(key, done))

    def confirm(self, key: Key) -> None:
        """Remember an event that the log has, whoever took it."""
        self._remember(key, None)

    def _finish(self, key: Key, done: Delivery) -> None:
        if self._known.get(key) is not done:
            return
        if done.cancelled() or done.result() is not None:
            del self._known[key]
        else:
            self._known[key] = None

    def _remember(self, key: Key, delivery: Delivery | None) -> None:
        self._known[key] = delivery
        self._known.move_to_end(key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
