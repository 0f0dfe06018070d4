"""What the demo shop asks for beside the gateway's own addresses, in the development mode alone.

It browses the catalogue, publishes and sells out products, and shows what the pipeline knows of a visitor: things that
a shop has systems of its own for, and that no stranger's page should be told.
"""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
from confluent_kafka import Message
from msgspec import Meta, Struct

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType
from mmrec_stream.contracts.catalogue import CatalogueItem, decode_item, encode_item
from mmrec_stream.contracts.identity import short_key
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.reader import read
from mmrec_stream.profiles.record import from_bytes
from mmrec_stream.releases import Manifest
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.api import ApiError, Card
from mmrec_stream.storefront.modalities import modality_of
from mmrec_stream.storefront.shelf import Shelf
from mmrec_stream.storefront.speaking import Voices
from mmrec_stream.topics import Topics

Shares = list[dict[str, Any]]
"""Name and share of each modality, the largest first."""

EVENTS = 20
"""Events of a visitor that the panel shows."""

SPOKEN = 200
"""Lists of which is remembered which modality spoke for them: the panels that are open ask again every few seconds."""

VISITORS = 20_000
"""Visitors whose events and profiles are remembered, 4 KB each: a demo has some thousands."""

TASTES = 10

SHOPPERS = 6
"""Simulated shoppers that one may look over the shoulder of: those of whom most is known."""

MAX_PRODUCT = 512 * 1024
"""Bytes of a product with its picture, in base64."""

CAN = ("catalogue", "panel", "publish", "stock", "join", "why")
"""What the demo shop may offer here."""


class Action(Struct, kw_only=True, frozen=True):
    """Something that a visitor of the demo may have done to what runs behind the shop."""

    id: str
    title: str
    path: str


class Controls(Protocol):
    """Whoever runs what is behind the demo shop: `mmrec demo`. A gateway that others run has none."""

    @property
    def actions(self) -> Sequence[Action]:
        """What may be asked for."""

    def status(self) -> dict[str, Any]:
        """What runs, and what has happened, for the panel."""

    async def act(self, action: str) -> str:
        """Do it; a sentence to show.

        Raises:
            ApiError: it cannot be done, or not at the moment.
        """


class Stocking(Struct, kw_only=True, frozen=True):
    """What changes of a product; the rest stays."""

    stock: Annotated[int, Meta(ge=0)] | None = None
    available: bool = True


@dataclass(frozen=True, slots=True)
class Seen:
    """An event of a visitor."""

    type: str
    item_id: str
    ts: int


class Desk:
    """What the demo remembers of visitors: their last events and profiles. Changed on the event loop alone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.newest_ms = 0
        """Time of the newest event that has passed, ms since 1970."""
        self._events: OrderedDict[str, tuple[Seen, ...]] = OrderedDict()
        self._profiles: OrderedDict[str, bytes] = OrderedDict()
        self._voices: Voices | None = None
        self._spoken: OrderedDict[str, Shares] = OrderedDict()

    def saw(self, events: Iterable[BehaviourEvent]) -> None:
        """Events passed."""
        for event in events:
            self.newest_ms = max(self.newest_ms, event.ts)
            if event.CODE == EventType.IMPRESSION:
                continue
            seen = Seen(event.CODE.name.lower(), event.item_id, event.ts)
            before = self._events.pop(event.user_id, ())
            self._events[event.user_id] = (seen, *before[: EVENTS - 1])
        _bound(self._events)

    def folded(self, profiles: Iterable[tuple[str, bytes | None]]) -> None:
        """Profiles were written to the changelog; None is a deletion."""
        for user_id, value in profiles:
            self._profiles.pop(user_id, None)
            if value is None:
                self._events.pop(user_id, None)
            else:
                self._profiles[user_id] = value
        _bound(self._profiles)

    def events(self, user_id: str) -> Sequence[Seen]:
        """A visitor's last events, newest first."""
        return self._events.get(user_id, ())

    def tastes(self, user_id: str, shelf: Shelf) -> list[dict[str, Any]]:
        """A visitor's tastes, strongest first, by the weights in the profile; the strongest weighs 1."""
        value = self._profiles.get(user_id)
        return [] if value is None else tastes_of(value, shelf)

    async def spoke(
        self,
        list_id: str,
        announced: ReleaseAnnouncement,
        listed: Sequence[CatalogueItem],
        chosen: Sequence[CatalogueItem],
    ) -> Shares:
        """How much each modality spoke for a list, by the release that made it; empty where that cannot be told.

        Args:
            list_id: the list's id.
            announced: the release.
            listed: the list's products.
            chosen: what the visitor looked at last.
        """
        if (known := self._spoken.get(list_id)) is None:
            try:
                known = await asyncio.to_thread(self._shares, announced, listed, chosen)
            except UserError:
                return []
            self._spoken[list_id] = known
            while len(self._spoken) > SPOKEN:
                self._spoken.popitem(last=False)
        return known

    def _shares(
        self, announced: ReleaseAnnouncement, listed: Sequence[CatalogueItem], chosen: Sequence[CatalogueItem]
    ) -> Shares:
        # Two panels may load the same release at once, of which one stays.
        voices = self._voices
        if voices is None or voices.version != announced.version:
            voices = self._voices = Voices.announced(announced, self._settings)
        return shares_of(voices.shares(listed, chosen))

    def shoppers(self, shelf: Shelf) -> list[dict[str, str]]:
        """Those of whom most is known, with what they like."""
        latest = {user: value for user, value in self._profiles.items() if ":" not in user}
        if not latest:
            return []
        counts = from_bytes(list(latest.values()))["events"].tolist()
        best = sorted(zip(counts, latest, strict=True), reverse=True)[:SHOPPERS]
        return [
            {"user": user, "text": ", ".join(taste["name"] for taste in self.tastes(user, shelf)[:2])}
            for _, user in best
        ]


def tastes_of(profile: bytes, shelf: Shelf) -> list[dict[str, Any]]:
    """The categories and brands of a profile's affinities that the catalogue has, as the panel shows them. Pure.

    Args:
        profile: a changelog row.
        shelf: the products.
    """
    (record,) = from_bytes([profile])
    names = {
        short_key(name): (kind, name)
        for card in shelf
        for kind, name in (("category", card.category), ("brand", card.brand))
        if name
    }
    found = []
    for kind in ("category", "brand"):
        for key, weight in zip(record[f"{kind}_keys"].tolist(), record[f"{kind}_weights"].tolist(), strict=True):
            if key in names and weight > 0:
                found.append({"kind": kind, "name": names[key][1], "weight": weight})
    found.sort(key=lambda taste: -taste["weight"])
    strongest = found[0]["weight"] if found else 1.0
    return [taste | {"weight": taste["weight"] / strongest} for taste in found[:TASTES]]


def modalities_of(manifest: Manifest | None) -> Shares:
    """How much each modality says of the products, by the release's own weights."""
    weights = manifest.modality_weights if manifest is not None else {}
    return shares_of({modality_of(encoder): share for encoder, share in weights.items()})


def shares_of(shares: Mapping[str, float]) -> Shares:
    """Shares by name as the panel shows them, the largest first."""
    return [{"name": name, "share": share} for name, share in sorted(shares.items(), key=lambda pair: -pair[1])]


def categories(shelf: Shelf) -> list[dict[str, Any]]:
    """The categories that there are, by name, with how many products each has, and the picture of one."""
    counts = Counter(card.category for card in shelf if card.category)
    images = {card.category: card.image for card in shelf if card.image and card.in_stock}
    return [
        {
            "id": name,
            "title": name.rsplit(".", 1)[-1].replace("_", " ").capitalize(),
            "count": count,
            "image": images.get(name),
        }
        for name, count in sorted(counts.items())
    ]


def search(shelf: Shelf, category: str | None, words: str) -> list[Card]:
    """Products of a category or of one below it that have every word somewhere; what is sold out comes last."""
    wanted = words.casefold().split()

    def fits(card: Card) -> bool:
        if category and card.category != category and not (card.category or "").startswith(f"{category}."):
            return False
        text = " ".join([card.title, card.brand or "", card.category or "", *card.tags, card.description]).casefold()
        return all(word in text for word in wanted)

    return sorted(filter(fits, shelf), key=lambda card: not card.in_stock)


def product_of(body: bytes, item_id: str) -> CatalogueItem:
    """A product as a page publishes it.

    Raises:
        ApiError: 400; says what is wrong.
    """
    try:
        found = msgspec.json.decode(body)
        if not isinstance(found, dict):
            raise msgspec.ValidationError("Expected `object`")
        now = int(time.time() * 1000)
        item: CatalogueItem = msgspec.convert(found | {"item_id": item_id, "updated": now}, CatalogueItem)
    except UNREADABLE as error:
        raise ApiError(400, "invalid_item", str(error)) from None
    return item


def restocked(item: CatalogueItem, body: bytes) -> CatalogueItem:
    """A product with another stock.

    Raises:
        ApiError: 400; says what is wrong.
    """
    try:
        change = msgspec.json.decode(body, type=Stocking)
    except UNREADABLE as error:
        raise ApiError(400, "invalid_item", str(error)) from None
    now = int(time.time() * 1000)
    return msgspec.structs.replace(item, stock=change.stock, available=change.available, updated=now)


async def newest_record(settings: Settings, item_id: str) -> CatalogueItem | None:
    """A product as the catalogue's topic has it, whole; None where it has none.

    Raises:
        UserError: the topic or the broker is not there.
    """
    return await asyncio.to_thread(_newest_record, settings, item_id.encode())


def _newest_record(settings: Settings, key: bytes) -> CatalogueItem | None:
    found: bytes | None = None
    for message in read(settings, Topics.of(settings).catalogue):
        if message.key() == key:
            found = message.value()
    try:
        return None if found is None else decode_item(found)
    except UNREADABLE:
        return None


def record_of(item: CatalogueItem) -> tuple[bytes, bytes]:
    """Key and value of a product's record."""
    return item.item_id.encode(), encode_item(item)


def profiles_in(messages: Sequence[Message]) -> list[tuple[str, bytes | None]]:
    """Users and rows of changelog records."""
    return [((message.key() or b"").decode(errors="replace"), message.value()) for message in messages]


def _bound(known: OrderedDict[str, Any]) -> None:
    while len(known) > VISITORS:
        known.popitem(last=False)
