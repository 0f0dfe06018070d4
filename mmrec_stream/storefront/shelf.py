"""The catalogue as pages need it: a card a product, and whether it can be sold."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec
from msgspec import UNSET

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.storefront.api import Card
from mmrec_stream.storefront.pictures import Picture

Changes = Mapping[str, Card | None]
"""Cards by item id; None where a product was taken out."""


@dataclass(frozen=True)
class Addresses:
    """Where things are, what prices are in, and what else cards say."""

    item_url: str
    """With `{item_id}`; empty where items have no page."""
    currency: str
    stock: bool = False
    """Whether cards say how many are left."""


def card_of(item: CatalogueItem, picture: Picture | None, addresses: Addresses, now_ms: int) -> Card:
    """The card of a product as of a moment. Its picture is the catalogue's thumbnail, or else the address it gives."""
    quoted = quote(item.item_id, safe="")
    return Card(
        item_id=item.item_id,
        title=item.title or item.item_id,
        description=item.description,
        price=item.price,
        currency=addresses.currency,
        image=f"/v1/items/{quoted}/image?v={picture.digest}" if picture else item.image_url,
        url=addresses.item_url.replace("{item_id}", quoted) or None,
        brand=item.brand,
        category=item.category,
        tags=item.tags,
        in_stock=item.sellable_at(now_ms),
        stock=item.stock if addresses.stock else UNSET,
    )


@dataclass
class Shelf:
    """The newest card of every product."""

    addresses: Addresses
    _cards: dict[str, Card] = field(default_factory=dict)
    _removed: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._cards)

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards.values())

    def update(self, changes: Changes) -> dict[str, Card]:
        """Take changes; returns those products that look otherwise than before, as they are now."""
        different = {}
        for item_id, card in changes.items():
            before = self._cards.get(item_id)
            if card is None:
                self._removed.add(item_id)
                if before is not None:
                    del self._cards[item_id]
                    different[item_id] = _gone(before)
            else:
                self._removed.discard(item_id)
                self._cards[item_id] = card
                if card != before:
                    different[item_id] = card
        return different

    def offered(self, sellable: Mapping[str, bool]) -> Changes:
        """The change of products that can be sold from this moment on, or no longer."""
        return {
            item_id: msgspec.structs.replace(card, in_stock=now)
            for item_id, now in sellable.items()
            if (card := self._cards.get(item_id)) is not None
        }

    def get(self, item_id: str) -> Card | None:
        """The card of a product that the catalogue has."""
        return self._cards.get(item_id)

    def sellable(self, item_ids: Iterable[str]) -> Iterator[Card]:
        """Cards of those items that may be shown now.

        One that the catalogue never had gets a card with its id alone: a shop may run on behaviour.
        """
        for item_id in item_ids:
            card = self._cards.get(item_id)
            if card is None and item_id not in self._removed:
                card = card_of(CatalogueItem(item_id=item_id), None, self.addresses, 0)
            if card is not None and card.in_stock:
                yield card


def _gone(card: Card) -> Card:
    return Card(item_id=card.item_id, title=card.title, currency=card.currency, in_stock=False)
