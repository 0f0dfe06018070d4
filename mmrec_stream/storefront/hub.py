"""Open event streams: who watches what, and what each of them has yet to be told."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from mmrec_stream.storefront.api import Card

MAX_NEWS = 200
"""Changed products that a stream may owe its reader; a list has 100 places at most."""

CART = "cart"
"""The surface beside a cart: what is shown there depends on what is in it."""

PER_USER = 12
"""Streams that one user may hold open. Tabs share one a browser; a person has a few browsers."""


class Stream:
    """One reader, with what it has yet to be told: the newest list and the newest state of changed products, no more.

    A reader that is slow gets less, and costs no more.
    """

    def __init__(self, user_id: str | None, address: str, surface: str = "home") -> None:
        self.user_id = user_id
        self.address = address
        self.surface = surface
        self.shown: frozenset[str] = frozenset()
        """Items of the list that it was told last."""
        self.wake = asyncio.Event()
        self.ended = False
        """Whether the reader has gone, or we are about to."""
        self.received = 0.0
        """When its newest list came in, s since 1970."""
        self.again = False
        """Whether what it shows is to be made anew, though no list has come."""
        self._list: bytes | None = None
        self._news: dict[str, Card] = {}

    def offer_list(self, value: bytes) -> bool:
        """Take a newer list; says whether an older one has to make room that was never told."""
        replaced = self._list is not None
        self._list = value
        self.received = time.time()
        self.wake.set()
        return replaced

    def ask_again(self) -> None:
        """What it shows is not what it would be shown now."""
        self.again = True
        self.wake.set()

    def offer_news(self, cards: Mapping[str, Card]) -> None:
        """Take products' new states, where it shows them."""
        for item_id in self.shown & cards.keys():
            if item_id in self._news or len(self._news) < MAX_NEWS:
                self._news[item_id] = cards[item_id]
                self.wake.set()

    def end(self) -> None:
        """Nothing more is wanted."""
        self.ended = True
        self.wake.set()

    def take(self) -> tuple[bytes | None, list[Card]]:
        """What is to be told now."""
        told = self._list, list(self._news.values())
        self._list, self._news, self.again = None, {}, False
        self.wake.clear()
        if self.ended:
            self.wake.set()
        return told


class Hub:
    """All open streams, by user."""

    def __init__(self, most: int, per_address: int) -> None:
        self._most = most
        self._per_address = per_address
        self._by_user: defaultdict[str | None, set[Stream]] = defaultdict(set)
        self._addresses: Counter[str] = Counter()
        self._open = 0

    def __len__(self) -> int:
        return self._open

    def open(self, stream: Stream) -> str | None:
        """Let a reader in; or say which bound is reached: `streams`, `address` or `user`."""
        if self._open >= self._most:
            return "streams"
        if self._addresses[stream.address] >= self._per_address:
            return "address"
        if stream.user_id is not None and len(self._by_user.get(stream.user_id, ())) >= PER_USER:
            return "user"
        self._by_user[stream.user_id].add(stream)
        self._addresses[stream.address] += 1
        self._open += 1
        return None

    def close(self, stream: Stream) -> None:
        """Forget a reader."""
        watching = self._by_user[stream.user_id]
        watching.discard(stream)
        if not watching:
            del self._by_user[stream.user_id]
        self._open -= 1
        self._addresses[stream.address] -= 1
        if not self._addresses[stream.address]:
            del self._addresses[stream.address]

    def lists(self, lists: Iterable[tuple[str, bytes]]) -> int:
        """Hand lists to those who watch; returns how many replaced one that was never told."""
        replaced = 0
        for user_id, value in lists:
            for stream in self._by_user.get(user_id, ()):
                replaced += stream.offer_list(value)
        return replaced

    def cart(self, user_id: str) -> None:
        """The user's cart is another: lists beside it are to be made anew."""
        for stream in self._by_user.get(user_id, ()):
            if stream.surface == CART:
                stream.ask_again()

    def again(self) -> None:
        """What everybody is shown is to be made anew."""
        for watching in self._by_user.values():
            for stream in watching:
                stream.ask_again()

    def news(self, cards: Mapping[str, Card]) -> None:
        """Tell those who show them of products that have changed."""
        for watching in self._by_user.values():
            for stream in watching:
                stream.offer_news(cards)

    def end_all(self) -> None:
        """Have every stream end, as the gateway does."""
        for watching in list(self._by_user.values()):
            for stream in list(watching):
                stream.end()
