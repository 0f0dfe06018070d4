"""The gateway's state, and the threads that keep it up to date with the topics.

Everything a request sees is changed on the event loop: a follower decodes on its own thread and hands the change over.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import msgspec
from confluent_kafka import Message

from mmrec_stream.catalogue.windows import Windows
from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType, Forget
from mmrec_stream.contracts.catalogue import CatalogueItem, decode_item
from mmrec_stream.contracts.identity import id_key, partition_of
from mmrec_stream.contracts.recommendations import RecommendationList, decode_list
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.contracts.sessions import SessionJoin
from mmrec_stream.errors import NotNowError, UserError
from mmrec_stream.policies.book import RuleBook
from mmrec_stream.policies.policy import Viewer, Visit
from mmrec_stream.profiles.shown import Shown
from mmrec_stream.releases import rollout
from mmrec_stream.releases.access import AGAIN_S, check_access
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.api import MAX_PLACES, Card, ShownList, Why
from mmrec_stream.storefront.companions import Companions
from mmrec_stream.storefront.demo import Desk, profiles_in
from mmrec_stream.storefront.following import Bridge, Follower, Source
from mmrec_stream.storefront.hub import CART, Hub
from mmrec_stream.storefront.joining import JOINED, join
from mmrec_stream.storefront.limits import Limiter
from mmrec_stream.storefront.metrics import Metrics
from mmrec_stream.storefront.newest import NewestLists
from mmrec_stream.storefront.pictures import Pictures
from mmrec_stream.storefront.popular import Counts, Rankings
from mmrec_stream.storefront.publishing import Publisher
from mmrec_stream.storefront.related import Relations
from mmrec_stream.storefront.ruling import Rules
from mmrec_stream.storefront.shaping import POPULAR, extended, made_list, personal_list
from mmrec_stream.storefront.shelf import Addresses, Changes, Shelf, card_of
from mmrec_stream.storefront.tokens import SESSION_PREFIX, Denial, Keys, Visitor, check
from mmrec_stream.storefront.trails import CART_EVENTS, Carts, Sessions, Trails
from mmrec_stream.storefront.window import Window
from mmrec_stream.topics import Topics, changelog_topic

EVENT_ID = "id"
"""Header of a record that carries the page's own id of the event: every gateway learns it from the log."""

LIST_BYTES = 1_500
"""What a list of 20 takes, about: says how many of the newest are worth reading at the start."""

BEHAVIOUR_LOADED = 50_000
"""Records of each behaviour partition that are read at the start: what is popular does not change with more, and it is
a quarter of a second's reading."""

RANKED_S = 1.0
"""How old the popular lists may be: ranking a hundred thousand items takes milliseconds."""

POPULAR_KEPT = 1_000
"""Popular lists kept until something changes, for surfaces, lengths and categories; a list takes some 10 KB, and
everybody asks for the same few."""

JOINS = 4
"""Joins at a time: each reads a part of the log, with a client and a thread of its own."""

NO_RELEASE = "none"

UNKNOWN_VISIT = Visit()

log = logging.getLogger(__name__)


class Gateway:
    """One gateway: its state, its followers and its producer. `start` and `stop` run on the event loop."""

    def __init__(self, settings: Settings, keys: Keys | None, *, dev: bool = False) -> None:
        """Prepare; `keys` may be missing in the development mode alone, where tokens are not asked for."""
        if keys is None and not dev:
            raise UserError("no keys: set MMREC_STOREFRONT_KEYS, or use the development mode")
        check_access(settings)
        self.settings = settings
        self.keys = keys
        self.dev = dev
        self.topics = Topics.of(settings)
        self.metrics = Metrics()
        self.shelf = Shelf(Addresses(settings.storefront_item_url, settings.storefront_currency, stock=dev))
        self.desk = Desk(settings)
        self.pictures = Pictures()
        self._windows = Windows()
        self.lists = NewestLists(settings.storefront_lists_mb * 1e6)
        self.rankings = Rankings()
        self.ranked_ms = int(time.time() * 1000)
        """When `rankings` last changed."""
        self.companions: Companions | None = None
        self.rules = Rules()
        self._rule_book = RuleBook()
        self._releases = rollout.EMPTY
        self._taking = ThreadPoolExecutor(1, thread_name_prefix="release")
        self._stopping = threading.Event()
        self.trails = Trails()
        self.carts = Carts()
        self._seen = Shown()
        self.sessions = Sessions()
        self.window = Window()
        self.hub = Hub(settings.storefront_streams, settings.storefront_streams_per_address)
        self.joining = asyncio.Semaphore(JOINS)
        self.by_user = Limiter(settings.storefront_rate)
        self.by_address = Limiter(settings.storefront_address_rate)
        self.publisher: Publisher | None = None
        self._popular: dict[tuple[str, int, bool, Visit, str | None, str | None], ShownList] = {}
        self._counts = Counts()
        self._ranked = float("-inf")
        self._unranked = False
        self.filled = asyncio.Event()
        """Set once everything that was there at the start is loaded."""
        self._loaded = 0
        self._followers: list[Follower] = []
        self._bridge: Bridge | None = None

    async def start(self) -> None:
        """Begin to load and follow; requests are answered meanwhile, and `ready` says when everything is there."""
        loop = asyncio.get_running_loop()
        self._bridge = Bridge(loop)
        self.publisher = Publisher(self.settings, loop)
        self.publisher.start()
        topics, settings = self.topics, self.settings
        newest = int(settings.storefront_lists_mb * 1e6 / LIST_BYTES / settings.partitions) + 1
        plans = {
            # Lists have a thread of their own: a catalogue that is published anew must not hold them up.
            "lists": [Source(topics.recommendations, self._on_lists, newest)],
            "shop": [
                Source(topics.catalogue, self._on_catalogue),
                Source(topics.rules, self._on_rules),
                Source(topics.rollouts, self._on_rollouts),
                Source(topics.releases, self._on_releases),
                *(Source(topic, self._on_behaviour, BEHAVIOUR_LOADED) for topic in topics.behaviour),
            ],
        }
        if self.dev:  # the demo's panel shows profiles
            plans["profiles"] = [Source(changelog_topic(settings), self._on_profiles)]
        turns = {"shop": self._turn}
        self._followers = [
            Follower(settings, name, sources, self._on_loaded, turns.get(name)) for name, sources in plans.items()
        ]
        for follower in self._followers:
            follower.start()

    async def stop(self) -> None:
        """End the threads, once what waits is delivered."""
        self._stopping.set()
        self._taking.shutdown(wait=False, cancel_futures=True)
        self.hub.end_all()
        if self._bridge is not None:
            self._bridge.close()
        for follower in self._followers:
            follower.stop()
        for follower in self._followers:
            await asyncio.to_thread(follower.join, 2.0)
        if self.publisher is not None:
            await asyncio.to_thread(self.publisher.stop)
        self.pictures.close()

    @property
    def ready(self) -> bool:
        """Whether everything that was there at the start is loaded. It stays so when Kafka goes away."""
        return bool(self._followers) and self._loaded == len(self._followers)

    @property
    def well(self) -> bool:
        """Whether the threads make progress."""
        return all(follower.well for follower in self._followers) and self.publisher is not None and self.publisher.well

    @property
    def relations(self) -> Relations | None:
        """What goes together by the release that serves, if there is one."""
        return None if self.companions is None else self.companions.relations

    @property
    def release(self) -> str:
        """Version of the release that related items come from."""
        return self.relations.version if self.relations is not None else NO_RELEASE

    @property
    def announced(self) -> ReleaseAnnouncement | None:
        """The release that serves, as it was announced."""
        live = self._releases.live
        return None if live is None else live.announcement

    def checked(self, token: str) -> Visitor | Denial:
        """Who a token stands for, or why it is not good."""
        if self.keys is None:
            return Denial("unknown_key", "no key is in use here")
        found = check(token, self.keys, time.time(), self.settings.storefront_token_minutes * 60)
        if isinstance(found, Denial):
            self.metrics.denied.labels(reason=found.reason).inc()
        return found

    def list_of(self, user_id: str) -> RecommendationList | None:
        """A user's newest list, if there is one in memory that can be read."""
        value = self.lists.get(user_id)
        return None if value is None else self.decoded(value)

    def decoded(self, value: bytes) -> RecommendationList | None:
        """A record of the recommendations topic as a list, if it is one."""
        try:
            found: RecommendationList = decode_list(value)
        except UNREADABLE as error:
            log.warning("%s: no list: %s", self.topics.recommendations, error)
            self.metrics.unreadable.labels(topic="recommendations").inc()
            return None
        return found

    def timed(self, shown: ShownList, found: RecommendationList, **more: float) -> ShownList:
        """A list with α and the times of its way, where the panel of the development mode wants them."""
        if not self.dev:
            return shown
        return msgspec.structs.replace(shown, alpha=found.alpha, times=msgspec.structs.asdict(found.times) | more)

    def shown(
        self,
        found: RecommendationList,
        surface: str,
        count: int,
        why: bool,
        cart: Sequence[str] | None = None,
        visit: Visit = UNKNOWN_VISIT,
    ) -> ShownList:
        """A user's list as a page shows it: beside a cart what completes it first.

        Args:
            found: as the worker published it.
            surface: where it is shown.
            count: most places.
            why: whether reasons are wanted.
            cart: what the page says is in the cart; None: what the user's events say.
            visit: what rules may read of it.
        """
        cart = self.carts.of(found.user_id) if cart is None else cart
        if (completed := self._completed(found.user_id, surface, count, why, cart, visit)) is not None:
            return extended(completed, self._personal(found, surface, MAX_PLACES, why, visit), count, without=cart)
        return self._personal(found, surface, count, why, visit)

    def _personal(self, found: RecommendationList, surface: str, count: int, why: bool, visit: Visit) -> ShownList:
        viewer = Viewer(surface, found.user_id, None, visit)
        by_id = {item.item_id: item for item in found.items}
        permitted = self.rules.permitted(viewer, list(by_id), found.policy)
        if len(permitted) < len(by_id):
            found = msgspec.structs.replace(found, items=[by_id[item_id] for item_id in permitted])
        if not why:
            return personal_list(found, self.shelf, surface, count)
        own, relations = self.trails.of(found.user_id), self.relations

        def source(item_id: str) -> str | None:
            return relations.source_of(item_id, own) if relations is not None else None

        return personal_list(found, self.shelf, surface, count, source)

    def _completed(
        self, user_id: str | None, surface: str, count: int, why: bool, cart: Sequence[str], visit: Visit
    ) -> ShownList | None:
        """What completes a cart, beside it; None elsewhere, and where nothing is known to."""
        if surface != CART or self.companions is None or not cart:
            return None
        completed = self.companions.for_cart(cart, count, user_id, why=why, visit=visit)
        return completed if completed.items else None

    def best(
        self,
        user_id: str | None,
        surface: str,
        count: int,
        why: bool,
        cart: Sequence[str] | None = None,
        visit: Visit = UNKNOWN_VISIT,
    ) -> ShownList:
        """The user's own list where there is one that has something to show, what is popular otherwise.

        Arguments are those of `shown`; without a user the list is the same for everybody.
        """
        if user_id is not None and (found := self.list_of(user_id)) is not None:
            shown = self.shown(found, surface, count, why, cart, visit)
            if shown.items:
                return self.timed(shown, found)
        if cart is None:
            cart = () if user_id is None else self.carts.of(user_id)
        if (completed := self._completed(user_id, surface, count, why, cart, visit)) is not None:
            return extended(completed, self.popular(surface, MAX_PLACES, why, visit), count, without=cart)
        return self.popular(surface, count, why, visit)

    def popular(
        self,
        surface: str,
        count: int,
        why: bool,
        visit: Visit = UNKNOWN_VISIT,
        *,
        category: str | None = None,
        but: str | None = None,
    ) -> ShownList:
        """The list that is the same for everybody: what is popular, then what else there is, by the rules.

        Args:
            surface: which ranking.
            count: most places.
            why: whether reasons are wanted.
            visit: what rules may read of it.
            category: where given, only items of it.
            but: an item that is left out.
        """
        key = surface, count, why, visit if self.rules.read_visits else UNKNOWN_VISIT, category, but
        if (kept := self._popular.get(key)) is None:
            if len(self._popular) >= POPULAR_KEPT:
                self._popular.clear()
            kept = self._popular[key] = self._popular_list(*key)
        return kept

    def _popular_list(
        self, surface: str, count: int, why: bool, visit: Visit, category: str | None, but: str | None
    ) -> ShownList:
        ranked = self.rankings.of(surface)
        known = set(ranked)

        def fits(card: Card) -> bool:
            return card.item_id != but and (category is None or card.category == category)

        def cards() -> Iterator[Card]:
            yield from filter(fits, self.shelf.sellable(ranked))
            yield from (card for card in self.shelf if card.in_stock and card.item_id not in known and fits(card))

        def reason(item_id: str) -> Why:
            if item_id in known:
                return Why(kind="popular", text="Popular with other shoppers right now")
            return Why(kind="assortment", text="From the shop's assortment")

        chosen = self.rules.popular(
            Viewer(surface, events=None, visit=visit), (card.item_id for card in cards()), count
        )
        return made_list(
            POPULAR,
            filter(fits, self.shelf.sellable(chosen)),
            surface,
            count,
            release=self.release,
            generated=self.ranked_ms,
            why=reason if why else None,
        )

    async def join(self, session: str, user_id: str) -> tuple[SessionJoin, int]:
        """Make a session's events a user's; what has been taken over in all, and how many events this call added.

        Raises:
            As `joining.join`.
        """
        session_user = f"{SESSION_PREFIX}{session}"
        # How far the topics are followed first: what passes meanwhile is then remembered, or not looked for too late.
        passed = {topic: self._passed(topic, session_user) for topic in self.topics.behaviour}
        first = self.sessions.first(session_user)
        hints = {}
        if first is not None:
            hints = {topic: first.get(topic, upto) for topic, upto in passed.items() if upto is not None}
        return await asyncio.to_thread(join, self.settings, session, user_id, hints)

    def _passed(self, topic: str, user_id: str) -> int | None:
        """The offset up to which a topic's partition of a user was followed; None where it is not loaded yet."""
        for follower in self._followers:
            if positions := follower.positions(topic):
                return positions[partition_of(user_id.encode(), len(positions))]
        return None

    def status(self) -> dict[str, object]:
        """What is there, for people who look."""
        return {
            "well": self.well,
            "products": len(self.shelf),
            "lists": len(self.lists),
            "streams": len(self.hub),
            "events_waiting": len(self.publisher) if self.publisher is not None else 0,
            "release": self.release,
        }

    def observe(self) -> None:
        """Bring the gauges up to date."""
        metrics = self.metrics
        metrics.streams.set(len(self.hub))
        metrics.lists_held.set(len(self.lists))
        metrics.list_bytes.set(self.lists.bytes)
        metrics.products.set(len(self.shelf))
        metrics.waiting.set(len(self.publisher) if self.publisher is not None else 0)

    # What follows runs on the followers' threads; only what `_apply` is given runs on the loop.

    def _apply(self, change: Callable[[], None]) -> None:
        assert self._bridge is not None  # noqa: S101 - followers start after it is there
        self._bridge.apply(change)

    def _on_loaded(self) -> None:
        self._rank()

        def count() -> None:
            self._loaded += 1
            if self.ready:
                self.filled.set()
                log.info("ready: %d products, lists of %d users", len(self.shelf), len(self.lists))

        self._apply(count)

    def _on_lists(self, messages: Sequence[Message]) -> None:
        lists = [((message.key() or b"").decode(errors="replace"), message.value()) for message in messages]

        def take() -> None:
            for user_id, value in lists:
                self.lists.put(user_id, value)
            self.metrics.lists_received.inc(len(lists))
            there = [(user_id, value) for user_id, value in lists if value is not None]
            self.metrics.lists_replaced.inc(self.hub.lists(there))

        self._apply(take)

    def _on_catalogue(self, messages: Sequence[Message]) -> None:
        changes: dict[str, Card | None] = {}
        items: list[CatalogueItem] = []
        now_ms = int(time.time() * 1000)
        for message in messages:
            key, value = message.key(), message.value()
            if value is None:
                if key:
                    item_id = key.decode(errors="replace")
                    self.pictures.remove(item_id)
                    changes[item_id] = None
                continue
            try:
                item = decode_item(value)
            except UNREADABLE as error:
                log.warning("%s[%d]@%d: no item: %s", message.topic(), message.partition(), message.offset(), error)
                self.metrics.unreadable.labels(topic="catalogue").inc()
                continue
            picture = self.pictures.put(item.item_id, item.thumbnail or b"")
            items.append(item)
            changes[item.item_id] = card_of(item, picture, self.shelf.addresses, now_ms)
        self.rules.update(list({item.item_id: item for item in items}.values()))
        self._windows.remove(changes)
        self._windows.update((item for item in items if changes[item.item_id] is not None), now_ms)
        self._apply(lambda: self._put_on_shelf(changes))

    def _put_on_shelf(self, changes: Changes) -> None:
        if different := self.shelf.update(changes):
            self._popular.clear()
            self.hub.news(different)

    def _turn(self) -> None:
        """What time brings: availability windows that open and close, and other popular products."""
        if self._windows.next_ms <= (now_ms := int(time.time() * 1000)):
            changed = self._windows.turn(now_ms)
            self._apply(lambda: self._put_on_shelf(self.shelf.offered(changed)))
        self._rank()

    def _on_rules(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if (fault := self._rule_book.take(message.key(), message.value())) is not None:
                log.error("%s@%d: rules are not used, those before stay: %s", message.topic(), message.offset(), fault)
                self.metrics.unreadable.labels(topic="rules").inc()
        if self._rule_book.in_force is self.rules.policy:
            return
        self.rules.obey(self._rule_book.in_force)
        if not self.rules.read_shown:
            self._seen.clear()

        def take() -> None:
            self._popular.clear()
            self.hub.again()

        self._apply(take)

    def _on_releases(self, messages: Sequence[Message]) -> None:
        self._fold("releases", messages)

    def _on_rollouts(self, messages: Sequence[Message]) -> None:
        self._fold("rollouts", messages)

    def _fold(self, topic: Literal["releases", "rollouts"], messages: Sequence[Message]) -> None:
        self._releases, bad = rollout.fold(self._releases, topic, messages)
        for fault in bad:
            log.warning("%s", fault)
        self._relate()

    def _relate(self) -> None:
        """Take related items from the live release: here while everything is loaded, later beside what goes on."""
        live = self._releases.live
        if live is None or live.version == self.release:
            return
        if self.ready:
            self._beside(self._take)
        else:
            self._take()

    def _beside(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # nothing is begun when the gateway ends
            self._taking.submit(work)

    def _take(self) -> None:
        live = self._releases.live
        if live is None or live.version == self.release:
            return
        try:
            relations = Relations.announced(live.announcement, self.settings, self._stopping.is_set)
        except NotNowError as error:
            log.warning("release %s cannot be had yet, %s stays: %s", live.version, self.release, error)
            self._beside(self._take_later)
            return
        except UserError as error:
            log.error("release %s is not used, %s stays: %s", live.version, self.release, error)
            return

        companions = Companions(relations, self.shelf, self.rules, self.trails, self._seen)

        def serve() -> None:
            self.companions = companions
            self._popular.clear()

        self._apply(serve)
        log.info("related items come from release %s", relations.version)

    def _take_later(self) -> None:
        if not self._stopping.wait(AGAIN_S):
            self._take()

    def _on_behaviour(self, messages: Sequence[Message]) -> None:
        latest_ms = int((time.time() + self.settings.max_future_s) * 1000)
        counted: list[BehaviourEvent] = []
        passed: list[BehaviourEvent] = []
        ids: list[tuple[str, str]] = []
        steps: list[tuple[str, str]] = []
        carts: list[tuple[str, EventType, str]] = []
        seen: list[tuple[str, int]] = []
        sessions: list[tuple[str, str, int]] = []
        forgotten: list[str] = []
        for message in messages:
            event = accept(message.value(), self.settings.max_event_bytes)
            if isinstance(event, Refusal) or event.ts > latest_ms:
                continue
            if isinstance(event, Forget):
                forgotten.append(event.user_id)
                steps = [(user_id, item_id) for user_id, item_id in steps if user_id != event.user_id]
                carts = [step for step in carts if step[0] != event.user_id]
                seen = [one for one in seen if one[0] != event.user_id]
                continue
            passed.append(event)
            headers = dict(message.headers() or ())
            if (event_id := headers.get(EVENT_ID)) is not None:
                ids.append((event.user_id, event_id.decode(errors="replace")))
            if JOINED not in headers:  # else it was counted as the session's
                counted.append(event)
            if event.CODE != EventType.IMPRESSION and event.item_id:
                steps.append((event.user_id, event.item_id))
            if event.CODE == EventType.IMPRESSION and self.rules.read_shown:
                seen.append((event.user_id, id_key(event.item_id)))
            if event.CODE in CART_EVENTS:
                carts.append((event.user_id, event.CODE, event.item_id))
            if event.user_id.startswith(SESSION_PREFIX):
                sessions.append((event.user_id, message.topic(), message.offset()))
        self._counts.count(counted)

        def learn() -> None:
            for user_id in forgotten:
                self.trails.forget(user_id)
                self.carts.forget(user_id)
                self._seen.forget(user_id)
            if self.dev:
                self.desk.saw(passed)
            for key in ids:
                self.window.confirm(key)
            for user_id, item_id in steps:
                self.trails.step(user_id, item_id)
            self._seen.note(seen)
            for user_id in {step[0] for step in carts if self.carts.step(*step)}:
                self.hub.cart(user_id)
            for user_id, topic, offset in sessions:
                self.sessions.saw(user_id, topic, offset)

        self._unranked = True
        self._apply(learn)

    def _on_profiles(self, messages: Sequence[Message]) -> None:
        profiles = profiles_in(messages)
        self._apply(lambda: self.desk.folded(profiles))

    def _rank(self) -> None:
        now = time.monotonic()
        if not self._unranked or now - self._ranked < RANKED_S:
            return
        self._ranked, self._unranked = now, False
        if (rankings := self._counts.rankings()) == self.rankings:
            return

        def take() -> None:
            self.rankings, self.ranked_ms = rankings, int(time.time() * 1000)
            self._popular.clear()

        self._apply(take)
