"""Lists of what goes with a product, or with what is in a cart: under the rules, and in the visitor's own order."""

import time
from collections.abc import Iterator, Sequence

from mmrec_stream.policies.policy import Viewer, Visit
from mmrec_stream.profiles.shown import Shown
from mmrec_stream.storefront.api import Card, ShownList, Why
from mmrec_stream.storefront.related import Kind, Related, Relations
from mmrec_stream.storefront.ruling import Rules
from mmrec_stream.storefront.shaping import made_list
from mmrec_stream.storefront.shelf import Shelf
from mmrec_stream.storefront.trails import Trails

TEXTS: dict[tuple[str, bool], str] = {
    ("similar", True): "Often looked at together with {}",
    ("similar", False): "Looks and reads like {}",
    ("complementary", True): "Often chosen together with {}",
    ("complementary", False): "Goes with {}",
    ("also_viewed", False): "Often chosen after {}",
}
"""Why an item is there, by kind and by whether visitors have done so."""


class Companions:
    """Makes such lists of what one release knows."""

    def __init__(self, relations: Relations, shelf: Shelf, rules: Rules, trails: Trails, shown: Shown) -> None:
        """See the class.

        Args:
            relations: of the release.
            shelf: the products.
            rules: the merchandiser's.
            trails: what visitors did last.
            shown: what they were shown last.
        """
        self._shown = shown
        self.relations = relations
        self._shelf = shelf
        self._rules = rules
        self._trails = trails

    def found(self, kind: Kind, item_id: str) -> list[Related]:
        """What goes with a product, most of all first. Where it has to be looked for it takes long: ask in a thread."""
        return self.relations.of(kind, item_id)

    def found_by_category(self, category: str | None) -> list[Related]:
        """What completes a product that the release does not know: what completes others of its category.

        Ask in a thread.
        """
        if not category:
            return []
        return self.relations.completing(category, self._category_of)

    def beside(
        self,
        kind: Kind,
        item_id: str,
        found: Sequence[Related],
        count: int,
        user_id: str | None,
        *,
        why: bool,
        visit: Visit,
    ) -> ShownList:
        """The list beside a product.

        Args:
            kind: of the relation.
            item_id: the product; it is not on the list.
            found: what goes with it.
            count: most places.
            user_id: the visitor, whose order it is; None: the same for everybody.
            why: whether reasons are wanted.
            visit: what rules may read of it.
        """
        own = [] if user_id is None else [one for one in self._trails.of(user_id) if one != item_id]
        places = self._chosen(self._viewer("product", user_id, visit), found, {item_id}, own, count)
        return self._list(kind, "product", places, user_id if own else None, {item_id: "this one"} if why else None)

    def for_cart(self, cart: Sequence[str], count: int, user_id: str | None, *, why: bool, visit: Visit) -> ShownList:
        """The list that completes a cart, without what is in it.

        Args:
            cart: what is in it.
            count: most places.
            user_id: whose it is; None: of somebody who is not to be known.
            why: whether reasons are wanted.
            visit: what rules may read of it.
        """
        own = [] if user_id is None else [one for one in self._trails.of(user_id) if one not in cart]
        viewer = self._viewer("cart", user_id, visit)
        places = self._chosen(viewer, self.relations.complementary(cart), set(cart), own, count)
        return self._list("complementary", "cart", places, user_id, {} if why else None)

    def _viewer(self, surface: str, user_id: str | None, visit: Visit) -> Viewer:
        shown = self._shown.of([user_id])[0] if user_id is not None and self._rules.read_shown else None
        return Viewer(surface, user_id or "", None, visit, shown)

    def _chosen(
        self,
        viewer: Viewer,
        found: Sequence[Related],
        without: set[str],
        own: Sequence[str],
        count: int,
    ) -> list[tuple[Related, Card]]:
        ranked = self.relations.by_taste(found, own) if own else found
        cards = {card.item_id: card for card in self._shelf.sellable(one.item_id for one in ranked)}
        sellable = [one for one in ranked if one.item_id in cards and one.item_id not in without]
        chosen = self._rules.choose(viewer, sellable, count)
        return list(self._with_cards(chosen, cards, without))

    def _with_cards(
        self, chosen: Sequence[Related], cards: dict[str, Card], without: set[str]
    ) -> Iterator[tuple[Related, Card]]:
        for one in chosen:
            if one.item_id in without:
                continue
            # What is pinned there is none of those that were found.
            card = cards.get(one.item_id) or next(self._shelf.sellable([one.item_id]), None)
            if card is not None:
                yield one, card

    def _list(
        self,
        kind: Kind,
        surface: str,
        places: Sequence[tuple[Related, Card]],
        owner: str | None,
        names: dict[str, str] | None,
    ) -> ShownList:
        by_id = {one.item_id: one for one, _ in places}

        def reason(item_id: str) -> Why:
            one = by_id[item_id]
            if one.rule:
                return Why(kind="rule", text="Chosen by the shop")
            if not one.source:
                return Why(kind=kind, text="Goes with products of this kind")
            card = self._shelf.get(one.source)
            name = (names or {}).get(one.source) or (card.title if card else one.source)
            return Why(kind=kind, text=TEXTS[kind, one.seen].format(name), source_item_id=one.source)

        return made_list(
            kind,
            [card for _, card in places],
            surface,
            len(places),
            release=self.relations.version,
            generated=self.relations.manifest.created if owner is None else int(time.time() * 1000),
            why=reason if names is not None else None,
            owner=owner,
        )

    def _category_of(self, item_id: str) -> str | None:
        card = self._shelf.get(item_id)
        return card.category if card is not None else None
