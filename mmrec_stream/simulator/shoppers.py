"""Shoppers with tastes: an endless, ordered stream of behaviour events about a synthetic shop.

A shopper likes styles, colours, uses, brands and a price level, shares much of that with a circle of friends, and
drifts. A session starts in a category and goes from item to item: to alike ones, to an item's usual successors, after
something went into the cart to what goes with it. Whether a look turns into a click, a click into a purchase, and a
purchase into a return depends on how much the shopper likes the item. What is sold out is passed by and not bought.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    Cancel,
    Click,
    EventType,
    Follow,
    Impression,
    Purchase,
    Rating,
    RemoveFromCart,
    Return,
    View,
)
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.simulator.shop import Shop
from mmrec_stream.simulator.stock import Stock
from mmrec_stream.simulator.words import BRANDS, CATEGORIES, COLOURS, STYLES, USES

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SECOND_MS = 1000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

LONGEST_SESSION = 24
"""Items looked at in one session at most; the median is 4."""

CONTINUE = 0.82
"""Probability of looking at a further item: a mean of 5 items a session, as in published click logs."""

CIRCLES = 10
"""Circles of friends, each with a taste of its own that its members share half of."""

FRIENDS = 5
"""Users that a user comes to follow, most of them of the same circle."""

FAVOURITE_BRANDS = 2
"""Brands that a user comes to follow."""

NEWCOMERS_LEFT = 0.2
"""Share of the users who have not come yet when the log begins."""

NEWCOMERS = 0.02
"""Share of sessions that are a newcomer's first."""

CANDIDATES = 10
"""Items in view when the next one is chosen: a screenful."""

DRIFT = 0.05
"""Standard deviation of a day's change of taste, in units of taste: half of a taste is new after three months."""

EXAMINED_ON = 0.85
"""Probability that the place after an examined one is examined too: of twenty, one shopper in twenty sees the last."""

MOST_ATTRACTIVE = 0.5
"""Probability of a click on an examined item that is liked without bound: nobody clicks everything."""

ATTRACTS_FROM = 1.0
"""Liking of an item that is clicked half as often as the most attractive one: somewhat above indifference."""

LAUNCH_EVERY_MS = 15 * SECOND_MS
"""While live a new product comes in this often, so that even a short demo sees some."""

WARM_UP_MS = 10 * 60 * SECOND_MS
"""Sessions under way when the live stream begins started up to this long before: nearly all end sooner."""

FIRST_GUESS = (4700.0, 500.0)
"""Events and sessions counted before there are any: what most seeds come to within a tenth."""

LIVE_SPAN_MS = 5 * SECOND_MS
"""Live sessions are generated for this much time ahead: often enough for a drawn rate to feel even."""

NEVER = np.iinfo(np.int64).max
"""Launch time of an item that waits for its log to begin."""

_BLOCK_SESSIONS = 4096
"""Sessions generated at a time: enough for numpy's cost per call to vanish, 20 MB of candidates at most."""

_STYLE, _CATEGORY, _COLOUR, _USE, _BRAND, _PRICE = 1.3, 1.0, 0.7, 0.6, 0.7, 0.8
"""How much each side of taste weighs in liking an item: style most, and no side alone decides."""


@dataclass
class _Columns:
    """Events as columns, each of shape (events,)."""

    ts: Ints
    code: Ints
    user: Ints
    session: Ints
    item: Ints
    """Item row; -1 for follows."""
    extra: Ints
    """Quantity, tenths of a rating, or for follows the user's row, or -1 - the brand's."""
    order: Ints
    """Number of the order, -1 without."""

    @classmethod
    def join(cls, parts: Sequence["_Columns"]) -> "_Columns":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__))

    @classmethod
    def empty(cls) -> "_Columns":
        return cls(*(np.empty(0, np.int64) for _ in cls.__annotations__))

    def pick(self, which: Bools | Ints) -> "_Columns":
        return _Columns(*(getattr(self, name)[which] for name in self.__annotations__))


class _About(TypedDict):
    """What all events about an item say."""

    user_id: str
    session_id: str
    item_id: str
    category: str | None
    brand: str | None
    price: float | None


class Shoppers:
    """The users of a shop, with their state: tastes, what they saw last, orders on their way.

    One object is one history: `past` and `live` go on where the last call stopped.

    Args:
        shop: the assortment.
        users: how many users there can be; a fifth of them comes in as the log goes on.
        seed: what everything is drawn from; the same calls give the same events.
        sessions_per_day: mean number of a user's sessions in a day of the past log.
    """

    def __init__(self, shop: Shop, users: int = 2000, seed: int = 7, *, sessions_per_day: float = 0.5) -> None:
        if users < 1:
            raise ValueError(f"there must be at least one user; got {users}")
        self.shop = shop
        self.users = users
        self.sessions_per_day = sessions_per_day
        width = len(str(users - 1))
        self.user_ids = [f"user-{user:0{width}d}" for user in range(users)]
        self._rows = {user_id: row for row, user_id in enumerate(self.user_ids)}
        self._item_rows = {item.item_id: row for row, item in enumerate(shop.items)}
        self._rng = rng = np.random.default_rng([seed, 3])
        self._circle = rng.integers(CIRCLES, size=users)
        self._tastes = {
            "style": self._taste(len(STYLES)),
            "category": self._taste(len(CATEGORIES)),
            "colour": self._taste(len(COLOURS)),
            "use": self._taste(len(USES)),
            "brand": self._taste(len(BRANDS)),
        }
        self._budget = rng.normal(0, 0.4, users)
        self._activity = rng.pareto(2.5, users) + 0.3
        self._friends = self._make_friends()
        self._favourites = np.argsort(-self._tastes["brand"], axis=1)[:, :FAVOURITE_BRANDS]
        self._followed = np.zeros(users, np.int64)
        self._arrived = max(1, round(users * (1 - NEWCOMERS_LEFT)))
        self._last_seen = np.full(users, -1)
        self._last_bought = np.full(users, -1)
        self._launch = np.where(shop.tranche == 0, np.iinfo(np.int64).min, NEVER)
        self._announced = shop.tranche == 0
        self._stock = Stock(len(shop), np.random.default_rng([seed, 7]))
        self._told_sold_out = np.zeros(len(shop), bool)
        self._history: str | None = None
        self._sessions = self._orders = 0
        self._counted = np.array(FIRST_GUESS)
        self._drifted: int | None = None
        self._pending = _Columns.empty()
        by_category = np.argsort(shop.category, kind="stable")
        self._by_category = by_category
        self._category_start = np.searchsorted(shop.category[by_category], np.arange(len(CATEGORIES) + 1))

    # What is known of everybody -------------------------------------------------------------------

    def __contains__(self, user_id: str) -> bool:
        """Whether a shopper has this id."""
        return user_id in self._rows

    def friends(self, user_id: str) -> list[str]:
        """Those whom the user follows or will follow."""
        return [self.user_ids[friend] for friend in self._friends[self._row(user_id)]]

    def affinity(self, user_id: str) -> Floats:
        """How much the user likes each item now, shape (items,): the truth a recommender tries to find.

        The scale is that of a logit; about 0 is indifference.
        """
        row = np.array([self._row(user_id)])
        return np.asarray(self._liking(row, np.arange(len(self.shop))[None, :])[0])

    def attraction(self, user_id: str) -> Floats:
        """Probability that the user clicks each item when they examine it in a list, shape (items,)."""
        return MOST_ATTRACTIVE * _sigmoid(self.affinity(user_id) - ATTRACTS_FROM)

    def on_sale(self, now_ms: int) -> Bools:
        """Which items can be bought at `now_ms`, shape (items,): they have come in and are not sold out."""
        return self._there(np.arange(len(self.shop)), now_ms)

    def sold_out(self, now_ms: int) -> Bools:
        """Which items have come in and are sold out at `now_ms`, shape (items,)."""
        return np.asarray((self._launch <= now_ms) & ~self.on_sale(now_ms))

    def change_tastes(self, user_ids: Sequence[str], seed: int) -> None:
        """From the next generated session on these users like something else: every taste is drawn anew.

        Friends and price level stay. The history's own draws do not depend on it.
        """
        rows = np.array([self._row(user_id) for user_id in user_ids], dtype=np.int64)
        rng = np.random.default_rng([seed, 6])
        for taste in self._tastes.values():
            taste[rows] = rng.normal(0, 1, (len(rows), taste.shape[1]))

    @property
    def first_items(self) -> list[CatalogueItem]:
        """The items that are there from the start; `with_catalogue` brings the others, and what sells out."""
        return [self.shop[int(row)] for row in np.flatnonzero(self.shop.tranche == 0)]

    # Behaviour ------------------------------------------------------------------------------------

    def past(self, days: float, end_ms: int) -> Iterator[BehaviourEvent]:
        """The log of the `days` before `end_ms`, in time order; visits follow the hours of the day (UTC).

        A twelfth of the items comes in on the way; some sell out and come back. What is under way at `end_ms`, like a
        return of a late purchase, comes later, in `live`.
        """
        start_ms = end_ms - round(days * DAY_MS)
        waiting = np.flatnonzero((self.shop.tranche == 1) & (self._launch == NEVER))
        self._launch[waiting] = self._rng.integers(start_ms, max(end_ms, start_ms + 1), len(waiting))
        self._stock.deliver(waiting, self._launch[waiting])
        self._begin(start_ms)
        return self._past(start_ms, end_ms)

    def live(self, rate: float, start_ms: int) -> Iterator[BehaviourEvent]:
        """Events from `start_ms` on without end, in time order, about `rate` of them in a second of event time.

        Every `LAUNCH_EVERY_MS` an item comes in, as long as there are any, and items sell out and come back more often
        than in the past log (see `with_catalogue`).
        """
        if rate <= 0:
            raise ValueError(f"a live rate must be above 0 events a second; got {rate}")
        self._stock.go_live(start_ms)
        waiting = np.flatnonzero(self.shop.tranche == 2)
        self._launch[waiting] = start_ms + LAUNCH_EVERY_MS * np.arange(1, len(waiting) + 1)
        self._stock.deliver(waiting, self._launch[waiting])
        self._begin(start_ms)
        return self._live(rate, start_ms)

    def with_catalogue(self, events: Iterable[BehaviourEvent]) -> Iterator[BehaviourEvent | CatalogueItem]:
        """`events` in time order, and before the first one after it each change of the catalogue.

        A change is an item that comes in, once, and one that sells out (`stock` 0) or comes back.
        """
        coming: list[tuple[int, int]] | None = None
        for event in events:
            if coming is None:
                known = np.flatnonzero(self._launch < NEVER)
                first = np.maximum(self._launch[known], event.ts)
                coming = list(zip(first.tolist(), known.tolist(), strict=True))
                heapify(coming)
            while coming and coming[0][0] <= event.ts:
                now, row = coming[0]
                which = np.array([row])
                heapreplace(coming, (int(self._stock.next_change(which, now)[0]), row))
                sold_out = bool(self._stock.sold_out(which, now)[0])
                if self._announced[row] and self._told_sold_out[row] == sold_out:
                    continue
                self._announced[row], self._told_sold_out[row] = True, sold_out
                yield msgspec.structs.replace(self.shop[row], stock=0) if sold_out else self.shop[row]
            yield event

    def react(
        self, user_id: str, item_ids: Sequence[str], rng: np.random.Generator, *, ts: int, list_id: str
    ) -> list[BehaviourEvent]:
        """What the user does with a list: sees it from the top, tires, clicks what is liked, may buy. In time order.

        What is sold out at `ts` is not shown, as on a page.

        Clicks follow the position-based model (Richardson et al., WWW 2007): the probability of a click is that of
        examining the place times the item's `attraction`; `truth` computes with both. Nothing of the shoppers' state
        changes, so a reaction may be drawn twice, or never be published.

        Args:
            user_id: who.
            item_ids: the list, best first; items the shop does not know are passed over.
            rng: what the reaction is drawn from.
            ts: when the list is shown, ms.
            list_id: the list's id, which impressions and clicks carry.
        """
        user = self._row(user_id)
        seen = min(len(item_ids), int(rng.geometric(1 - EXAMINED_ON)))
        known = [(at, self._item_rows[name]) for at, name in enumerate(item_ids[:seen]) if name in self._item_rows]
        there = self._there(np.array([row for _, row in known], dtype=np.int64), ts)
        shown = [one for one, still in zip(known, there.tolist(), strict=True) if still]
        if not shown:
            return []
        liking = self._liking(np.array([user]), np.array([[row for _, row in shown]]))[0]
        session = f"list-{list_id}"
        events: list[BehaviourEvent] = []
        for at, row in shown:
            events.append(Impression(ts=ts, list_id=list_id, position=at, **self._about(user, row, session)))
        for (at, row), like in zip(shown, liking, strict=True):
            ts += int(rng.integers(500, 2500))
            if rng.random() >= MOST_ATTRACTIVE * _sigmoid(like - ATTRACTS_FROM):
                continue
            about = self._about(user, row, session)
            events.append(Click(ts=ts, list_id=list_id, position=at, **about))
            events.append(View(ts=ts + 300, **about))
            if rng.random() < 0.3 * _sigmoid(like - 1.0):
                ts += int(rng.integers(5_000, 20_000))
                events.append(AddToCart(ts=ts, **about))
                if rng.random() < 0.5:
                    ts += int(rng.integers(10_000, 60_000))
                    events.append(Purchase(ts=ts, order_id=f"order-{list_id}-{at}", **about))
        return events

    # How it comes about ---------------------------------------------------------------------------

    def _row(self, user_id: str) -> int:
        try:
            return self._rows[user_id]
        except KeyError:
            raise KeyError(f"no shopper is called {user_id!r}") from None

    def _about(self, user: int, row: int, session: str) -> _About:
        item = self.shop[row]
        return {
            "user_id": self.user_ids[user],
            "session_id": session,
            "item_id": item.item_id,
            "category": item.category,
            "brand": item.brand,
            "price": item.price,
        }

    def _taste(self, values: int) -> Floats:
        """Standard normal tastes for `values` things, shape (users, values), half of the variance a circle's."""
        circles = self._rng.normal(0, 1, (CIRCLES, values))
        own = self._rng.normal(0, 1, (self.users, values))
        return np.asarray(np.sqrt(0.5) * (circles[self._circle] + own))

    def _make_friends(self) -> Ints:
        """Whom each user follows, shape (users, FRIENDS): six of seven out of the same circle."""
        order = np.argsort(self._circle, kind="stable")
        starts = np.searchsorted(self._circle[order], np.arange(CIRCLES + 1))
        shape = (self.users, FRIENDS)
        circle = np.where(
            self._rng.random(shape) < 6 / 7, self._circle[:, None], self._rng.integers(CIRCLES, size=shape)
        )
        size = starts[circle + 1] - starts[circle]
        inside = order[np.minimum(starts[circle] + (self._rng.random(shape) * size).astype(int), self.users - 1)]
        return np.asarray(np.where(inside == np.arange(self.users)[:, None], (inside + 1) % self.users, inside))

    def _liking(self, users: Ints, items: Ints) -> Floats:
        """Logit-like liking of `items` (users, k) by `users` (users,), shape (users, k)."""
        shop, column = self.shop, users[:, None]
        return np.asarray(
            _STYLE * self._tastes["style"][column, shop.style[items]]
            + _CATEGORY * self._tastes["category"][column, shop.category[items]]
            + _COLOUR * self._tastes["colour"][column, shop.colour[items]]
            + _USE * self._tastes["use"][column, shop.use[items]]
            + _BRAND * self._tastes["brand"][column, shop.brand[items]]
            - _PRICE * np.abs(shop.level[items] - self._budget[column])
            + 0.5 * shop.quality[items]
        )

    def _begin(self, start_ms: int) -> None:
        """Name the history by its beginning: ids of sessions and orders are not used again by one begun later."""
        self._history = self._history or f"{start_ms // SECOND_MS:x}"

    def _past(self, start_ms: int, end_ms: int) -> Iterator[BehaviourEvent]:
        rate = self.sessions_per_day * self.users / DAY_MS
        span = max(SECOND_MS, round(min(6 * HOUR_MS, _BLOCK_SESSIONS / (2 * rate))))
        for begin in range(start_ms, end_ms, span):
            end = min(begin + span, end_ms)
            busy = 1 - 0.8 * np.cos(2 * np.pi * ((begin + end) / 2 / HOUR_MS - 2) / 24)
            yield from self._span(begin, end, rate * busy)

    def _live(self, rate: float, start_ms: int) -> Iterator[BehaviourEvent]:
        self._generate(start_ms - WARM_UP_MS, start_ms, self._sessions_for(rate))
        self._pending = self._pending.pick(self._pending.ts >= start_ms)
        begin = start_ms
        while True:
            yield from self._span(begin, begin + LIVE_SPAN_MS, self._sessions_for(rate))
            begin += LIVE_SPAN_MS

    def _sessions_for(self, rate: float) -> float:
        """Sessions a millisecond that make `rate` events a second, going by those so far."""
        events, sessions = self._counted
        return float(rate / SECOND_MS * sessions / events)

    def _span(self, begin: int, end: int, sessions_per_ms: float) -> Iterator[BehaviourEvent]:
        self._generate(begin, end, sessions_per_ms)
        due = self._pending.ts < end
        ready, self._pending = self._pending.pick(due), self._pending.pick(~due)
        yield from self._events(ready.pick(np.argsort(ready.ts, kind="stable")))

    def _generate(self, begin: int, end: int, sessions_per_ms: float) -> None:
        """Add to what is pending the sessions that start from `begin` to `end`."""
        self._drift(begin)
        count = int(self._rng.poisson(sessions_per_ms * (end - begin)))
        for size in [_BLOCK_SESSIONS] * (count // _BLOCK_SESSIONS) + [count % _BLOCK_SESSIONS]:
            if size:
                self._add_sessions(np.sort(self._rng.integers(begin, end, size)))

    def _drift(self, now: int) -> None:
        day = now // DAY_MS
        days = 0 if self._drifted is None else max(0, min(day - self._drifted, 365))
        self._drifted = day
        if days:
            for taste in self._tastes.values():
                keep = np.sqrt(1 - DRIFT**2) ** days
                taste *= keep
                taste += np.sqrt(1 - keep**2) * self._rng.normal(0, 1, taste.shape)

    def _add_sessions(self, start: Ints) -> None:
        rng, sessions = self._rng, len(start)
        users = self._visitors(sessions)
        number = self._sessions + np.arange(sessions)
        self._sessions += sessions
        length = np.minimum(rng.geometric(1 - CONTINUE, sessions), LONGEST_SESSION)
        weights = self._weights(start)
        clock = start.copy()
        item = np.full(sessions, -1)
        in_cart = np.zeros(sessions, bool)
        cart_session: list[Ints] = []
        cart_item: list[Ints] = []
        parts: list[_Columns] = []
        for step in range(int(length.max())):
            on = np.flatnonzero(length > step)
            chosen, liking = self._next(users[on], item[on], in_cart[on], weights, first=step == 0, now=clock[on])
            item[on] = chosen
            clock[on] += rng.integers(2_000, 15_000, len(on)) if step else 0
            parts.append(_columns(EventType.VIEW, clock[on], users[on], number[on], chosen))
            clicks = rng.random(len(on)) < 0.7 * _sigmoid(liking - 0.5)
            self._act(parts, EventType.CLICK, on[clicks], clock, users, number, item, 1_000, 6_000)
            carts = clicks & (rng.random(len(on)) < 0.3 * _sigmoid(liking - 2.0))
            # Whoever is in a category that is sold out looks at what there was.
            carts &= self._there(chosen, clock[on])
            self._act(parts, EventType.ADD_TO_CART, on[carts], clock, users, number, item, 2_000, 12_000)
            in_cart[on] = carts
            cart_session.append(on[carts])
            cart_item.append(chosen[carts])
        self._last_seen[users] = item
        self._check_out(parts, np.concatenate(cart_session), np.concatenate(cart_item), clock, users, number)
        self._follow(parts, clock, users, number)
        self._counted += (sum(len(part.ts) for part in parts), sessions)
        self._pending = _Columns.join([self._pending, *parts])

    def _act(
        self,
        parts: list[_Columns],
        code: EventType,
        which: Ints,
        clock: Ints,
        users: Ints,
        number: Ints,
        item: Ints,
        soonest: int,
        latest: int,
    ) -> None:
        """Let the sessions `which` do something with their item, after `soonest` to `latest` ms of their clocks."""
        clock[which] += self._rng.integers(soonest, latest, len(which))
        parts.append(_columns(code, clock[which], users[which], number[which], item[which]))

    def _visitors(self, sessions: int) -> Ints:
        """Whose sessions these are: the active more often, and now and then somebody new."""
        rng = self._rng
        activity = self._activity[: self._arrived].cumsum()
        users = np.searchsorted(activity, rng.random(sessions) * activity[-1], side="right")
        new = np.flatnonzero(rng.random(sessions) < NEWCOMERS)[: self.users - self._arrived]
        users[new] = self._arrived + np.arange(len(new))
        self._arrived += len(new)
        return np.asarray(users)

    def _weights(self, start: Ints) -> Floats:
        """Cumulated popularity of the items on sale, by category; newest items stand in the window."""
        now = int(start[0])
        fresh = self._launch > now - 3 * DAY_MS
        weights = self.shop.popularity * np.where(fresh, 3.0, 1.0) * self.on_sale(now)
        return np.concatenate([[0.0], weights[self._by_category].cumsum()])

    def _next(
        self, users: Ints, current: Ints, in_cart: Bools, weights: Floats, *, first: bool, now: Ints
    ) -> tuple[Ints, Floats]:
        """The items that sessions go to, and how much they are liked; both of shape (sessions,)."""
        rng, shop, sessions = self._rng, self.shop, len(users)
        way = rng.random(sessions)
        if first:
            category = self._intent(users, weights)
            back, hint = (
                self._last_seen[users],
                self._last_bought[self._friends[users, rng.integers(FRIENDS, size=sessions)]],
            )
            given = np.where(way < 0.2, back, np.where(way < 0.3, hint, -1))
            related = np.broadcast_to(given[:, None], (sessions, 1))
            direct = given >= 0
        else:
            category = shop.category[current]
            wander = ~in_cart & (way > 0.85)
            category = np.where(wander, self._intent(users, weights), category)
            to_complement, to_successor = in_cart & (way < 0.7), way < 0.4
            related = np.where(to_complement[:, None], shop.complements[current], shop.successors[current][:, :3])
            direct = to_complement | to_successor
        low, high = weights[self._category_start[category]], weights[self._category_start[category + 1]]
        draw = low[:, None] + rng.random((sessions, CANDIDATES)) * (high - low)[:, None]
        at = np.clip(
            np.searchsorted(weights, draw, side="right") - 1,
            self._category_start[category][:, None],
            self._category_start[category + 1][:, None] - 1,
        )
        candidates = self._by_category[at]
        score = self._liking(users, candidates) + rng.gumbel(0, 1, candidates.shape)
        score = np.where(self._there(candidates, now[:, None]), score, -np.inf)
        if not first:
            score += 1.2 * (shop.style[candidates] == shop.style[current][:, None])
            score += 0.8 * (shop.colour[candidates] == shop.colour[current][:, None])
            score -= 3.0 * (candidates == current[:, None])
        best = np.argmax(score, axis=1)
        rows = np.arange(sessions)
        chosen = candidates[rows, best]
        there = direct[:, None] & self._there(related, now[:, None])
        close = np.where(there, self._liking(users, related) + rng.gumbel(0, 1, related.shape), -np.inf)
        best = np.argmax(close, axis=1)
        taken = close[rows, best] > -np.inf
        chosen = np.where(taken, related[rows, best], chosen)
        return chosen, self._liking(users, chosen[:, None])[:, 0]

    def _there(self, items: Ints, now: Ints | int) -> Bools:
        """Whether items have come in and are not sold out; items and times are broadcast against each other."""
        return np.asarray((self._launch[items] <= now) & ~self._stock.sold_out(items, now))

    def _intent(self, users: Ints, weights: Floats) -> Ints:
        """The category each session starts in: by taste, among those that have items."""
        stocked = np.diff(weights[self._category_start]) > 0
        score = 1.2 * self._tastes["category"][users] + self._rng.gumbel(0, 1, (len(users), len(CATEGORIES)))
        return np.asarray(np.argmax(np.where(stocked, score, -np.inf), axis=1))

    def _check_out(
        self, parts: list[_Columns], session: Ints, item: Ints, clock: Ints, users: Ints, number: Ints
    ) -> None:
        """What becomes of the carts: lines are removed, orders bought, and later cancelled, returned or rated."""
        rng = self._rng
        order = np.argsort(session, kind="stable")
        session, item = session[order], item[order]
        # An item twice in one cart is one line.
        _, first = np.unique(session * len(self.shop) + item, return_index=True)
        session, item = session[first], item[first]
        removed = rng.random(len(session)) < 0.15
        gone, goods = session[removed], item[removed]
        when = clock[gone] + rng.integers(2_000, 20_000, len(gone))
        parts.append(_columns(EventType.REMOVE_FROM_CART, when, users[gone], number[gone], goods))
        paid = clock + rng.integers(30_000, 180_000, len(clock))
        bought = ~removed & (rng.random(len(clock)) < 0.6)[session] & self._there(item, paid[session])
        session, item = session[bought], item[bought]
        basket, place = np.unique(session, return_inverse=True)
        orders = self._orders + place
        self._orders += len(basket)
        user, ts = users[session], paid[session]
        quantity = np.minimum(rng.geometric(0.85, len(session)), 5)
        parts.append(_columns(EventType.PURCHASE, ts, user, number[session], item, quantity, orders))
        self._last_bought[user] = item
        liking = self._liking(user, item[:, None])[:, 0]
        fate = rng.random(len(session))
        cancelled = fate < 0.03
        returned = ~cancelled & (fate < 0.03 + 0.25 * _sigmoid(-liking))
        rated = ~cancelled & (rng.random(len(session)) < 0.2)
        rating = np.clip(np.round(30 + 7 * (liking - 2) + rng.normal(0, 6, len(session)), -1), 0, 50).astype(np.int64)
        for code, lines, soonest, latest, extra in (
            (EventType.CANCEL, cancelled, HOUR_MS // 12, HOUR_MS, quantity),
            (EventType.RETURN, returned, 2 * DAY_MS, 10 * DAY_MS, quantity),
            (EventType.RATING, rated, DAY_MS // 2, 3 * DAY_MS, rating),
        ):
            when = ts[lines] + rng.integers(soonest, latest, int(lines.sum()))
            after = _columns(code, when, user[lines], number[session][lines], item[lines], extra[lines], orders[lines])
            parts.append(after)

    def _follow(self, parts: list[_Columns], clock: Ints, users: Ints, number: Ints) -> None:
        """Now and then a user follows the next of their friends and favourite brands."""
        _, first = np.unique(users, return_index=True)
        which = first[
            (self._rng.random(len(first)) < 0.15) & (self._followed[users[first]] < FRIENDS + FAVOURITE_BRANDS)
        ]
        user = users[which]
        whom = np.concatenate([self._friends[user], -1 - self._favourites[user]], axis=1)
        whom = whom[np.arange(len(user)), self._followed[user]]
        self._followed[user] += 1
        when = clock[which] + self._rng.integers(1_000, 30_000, len(which))
        parts.append(_columns(EventType.FOLLOW, when, user, number[which], np.full(len(which), -1), whom))

    def _events(self, columns: _Columns) -> Iterator[BehaviourEvent]:
        """The columns as contract events, in their order."""
        items, names, history = self.shop.items, self.user_ids, self._history
        rows = zip(
            columns.ts.tolist(),
            columns.code.tolist(),
            columns.user.tolist(),
            columns.session.tolist(),
            columns.item.tolist(),
            columns.extra.tolist(),
            columns.order.tolist(),
            strict=True,
        )
        for ts, code, user, session, row, extra, order in rows:
            user_id, session_id = names[user], f"{history}-{session}"
            if code == EventType.FOLLOW:
                friend, brand = (names[extra], None) if extra >= 0 else (None, BRANDS[-1 - extra])
                yield Follow(user_id=user_id, ts=ts, session_id=session_id, followed_user_id=friend, brand=brand)
                continue
            item = items[row]
            make = _PLAIN.get(code)
            if make is not None:
                yield make(
                    user_id=user_id,
                    ts=ts,
                    session_id=session_id,
                    item_id=item.item_id,
                    category=item.category,
                    brand=item.brand,
                    price=item.price,
                )
                continue
            about = self._about(user, row, session_id)
            if code == EventType.RATING:
                yield Rating(ts=ts, rating=extra / 10, **about)
            else:
                yield _ORDERED[code](ts=ts, quantity=extra, order_id=f"{history}-{order}", **about)


_PLAIN: dict[int, type[View] | type[Click] | type[AddToCart] | type[RemoveFromCart]] = {
    EventType.VIEW: View,
    EventType.CLICK: Click,
    EventType.ADD_TO_CART: AddToCart,
    EventType.REMOVE_FROM_CART: RemoveFromCart,
}
_ORDERED: dict[int, type[Purchase] | type[Cancel] | type[Return]] = {
    EventType.PURCHASE: Purchase,
    EventType.CANCEL: Cancel,
    EventType.RETURN: Return,
}


def _columns(
    code: EventType,
    ts: Ints,
    user: Ints,
    session: Ints,
    item: Ints,
    extra: Ints | None = None,
    order: Ints | None = None,
) -> _Columns:
    count = len(ts)
    return _Columns(
        ts=ts.copy(),
        code=np.full(count, int(code)),
        user=user,
        session=session,
        item=item,
        extra=np.ones(count, np.int64) if extra is None else extra,
        order=np.full(count, -1) if order is None else order,
    )


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))
