"""From what the topics say to what a page shows: lists with cards, positions and reasons. Pure."""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from xxhash import xxh3_64_hexdigest

from mmrec_stream.contracts.recommendations import RecommendationList, Recommended
from mmrec_stream.storefront.api import Card, Place, ShownList, Why
from mmrec_stream.storefront.shelf import Shelf

POPULAR = "popular"

CLEAR = 0.6
"""Share of a score above which one half of the mix is named as the reason alone."""

Source = Callable[[str], str | None]
"""Which of the visitor's own latest items an item is associated with most, where it is with one."""


def personal_list(
    found: RecommendationList, shelf: Shelf, surface: str, count: int, source: Source | None = None
) -> ShownList:
    """A user's list as it is shown: what cannot be sold any more is left out, the others close up.

    Args:
        found: as the worker published it.
        shelf: the products.
        surface: where it is shown.
        count: most places.
        source: given where reasons are wanted.
    """
    by_id = {item.item_id: item for item in found.items}
    cards = _first(shelf.sellable(by_id), count)
    places = []
    for position, card in enumerate(cards):
        item = by_id[card.item_id]
        why = None
        if source is not None:
            why = reason(item, found.alpha, found.strategy, source(card.item_id), shelf)
        places.append(_place(card, position, item.score, why))
    return ShownList(
        list_id=found.list_id,
        surface=surface,
        release=found.release,
        strategy=found.strategy,
        personalised=found.strategy != POPULAR,
        generated=int(found.times.published),
        items=places,
    )


def made_list(
    name: str,
    cards: Iterable[Card],
    surface: str,
    count: int,
    *,
    release: str,
    generated: int,
    why: Callable[[str], Why] | None = None,
    owner: str | None = None,
) -> ShownList:
    """A list that the gateway makes itself; its id says what it is and is the same for the same items.

    Args:
        name: the strategy.
        cards: best first.
        surface: where it is shown.
        count: most places.
        release: what it was made with.
        generated: ms since 1970.
        why: the reason of an item, where reasons are wanted.
        owner: whose it is, where it is not the same for everybody.
    """
    chosen = _first(cards, count)
    digest = xxh3_64_hexdigest("\0".join([name, surface, owner or "", *(card.item_id for card in chosen)]).encode())
    return ShownList(
        list_id=f"{name}-{surface}-{digest}",
        surface=surface,
        release=release,
        strategy=name,
        personalised=owner is not None,
        generated=generated,
        items=[_place(card, position, 0.0, why(card.item_id) if why else None) for position, card in enumerate(chosen)],
    )


def extended(shown: ShownList, more: ShownList, count: int, without: Sequence[str]) -> ShownList:
    """A list with the places that it leaves open filled from another one.

    Args:
        shown: what comes first.
        more: what follows, as far as it is not there.
        count: most places.
        without: items that are not shown.
    """
    there = {*without, *shown.item_ids}
    further = [place for place in more.items if place.item_id not in there][: max(count - len(shown.items), 0)]
    if not further:
        return shown
    items = [
        msgspec.structs.replace(place, position=position) for position, place in enumerate([*shown.items, *further])
    ]
    digest = xxh3_64_hexdigest("\0".join(place.item_id for place in further).encode())
    return msgspec.structs.replace(shown, list_id=f"{shown.list_id}-{digest}", items=items)


def reason(item: Recommended, alpha: float, strategy: str, source: str | None, shelf: Shelf) -> Why:
    """Why an item has its place: by the halves of its score, α·p_user and (1 − α)·p_item.

    Args:
        item: with both halves.
        alpha: of the list.
        strategy: of the list.
        source: the visitor's own item that leads to it, if one does.
        shelf: the products, for titles.
    """
    if strategy == POPULAR:
        return Why(kind="popular", text="Popular with other shoppers right now")
    by_taste, by_items = alpha * item.p_user, (1 - alpha) * item.p_item
    share = by_taste / (by_taste + by_items) if by_taste + by_items > 0 else 0.5
    if source is not None and share <= CLEAR:
        card = shelf.get(source)
        return Why(
            kind="followed", text=f"Because you looked at {card.title if card else source}", source_item_id=source
        )
    if share > CLEAR:
        return Why(kind="taste", text="Matches what you have liked lately")
    if share < 1 - CLEAR:
        return Why(kind="followed", text="Often chosen after what you looked at")
    return Why(kind="both", text="Matches what you have liked, and others chose it too")


def etag(body: bytes) -> str:
    """A strong validator of an answer's bytes."""
    return f'"{xxh3_64_hexdigest(body)}"'


def _place(card: Card, position: int, score: float, why: Why | None) -> Place:
    return Place(
        item_id=card.item_id,
        position=position,
        score=score,
        title=card.title,
        price=card.price,
        currency=card.currency,
        image=card.image,
        url=card.url,
        brand=card.brand,
        category=card.category,
        in_stock=card.in_stock,
        why=why,
    )


def _first(cards: Iterable[Card], count: int) -> Sequence[Card]:
    return [card for card, _ in zip(cards, range(count), strict=False)]
