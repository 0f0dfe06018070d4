"""Products: cards, pictures, and what goes with them by a real release."""

import asyncio
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import AddToCart, Click, Impression, RemoveFromCart
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.contracts.rules import Filter, RuleSet, encode_rules
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.releases import Release, announcement, load_release
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.pictures import SLACK, Pictures
from mmrec_stream.storefront.related import Kind, Relations
from mmrec_stream.topics import Topics
from tests.storefront.shop import JPEG, NOW, bearer, open_shop, product, publish, recommended, until
from tests.tiny import TINY_ALPHA, tiny_release, tiny_release_at, tiny_variant

PNG = b"\x89PNG\r\n\x1a\nanother"
ODD = "a/b?c#d é%2F"


@pytest.mark.usefixtures("topics")
class TestACard:
    async def test_it_says_what_the_catalogue_says(self, settings: Settings) -> None:
        publish(settings, product("sofa", description="Soft.", brand="Lune", tags=["blue"], stock=0), product(ODD))
        async with open_shop(
            settings, storefront_currency="SEK", storefront_item_url="https://s.example/p/{item_id}"
        ) as s:
            card = (await s.get("/v1/items/sofa")).json
            assert (card["title"], card["description"], card["in_stock"]) == ("The sofa", "Soft.", False)
            assert (card["currency"], card["url"], card["tags"]) == ("SEK", "https://s.example/p/sofa", ["blue"])
            assert (await s.get("/v1/items/a%2Fb%3Fc%23d%20%C3%A9%252F")).json["item_id"] == ODD
            assert (await s.get("/v1/items/unknown")).code == "unknown_item"

    async def test_a_change_is_seen_and_what_did_not_change_is_not_sent_again(self, settings: Settings) -> None:
        publish(settings, product("sofa"))
        async with open_shop(settings) as shop:
            first = await shop.get("/v1/items/sofa")
            tag = {"If-None-Match": first.headers["ETag"]}
            assert (await shop.get("/v1/items/sofa", tag)).status == 304
            publish(settings, product("sofa", price=8.0))
            await until("the change", lambda: (card := shop.gateway.shelf.get("sofa")) and card.price == 8.0)
            assert (await shop.get("/v1/items/sofa", tag)).json["price"] == 8.0
            publish(settings, "sofa")
            await until("it is gone", lambda: shop.gateway.shelf.get("sofa") is None)
            assert (await shop.get("/v1/items/sofa")).status == 404

    async def test_a_window_opens_and_closes_without_a_record(self, settings: Settings) -> None:
        soon = int(time.time() * 1000) + 1_000
        publish(settings, product("sofa", available_until=soon), product("rug", available_from=soon))
        async with open_shop(settings) as shop:

            def in_stock(item_id: str) -> bool:
                card = shop.gateway.shelf.get(item_id)
                return card is not None and card.in_stock

            await until("the rug's season", lambda: in_stock("rug"))
            assert not in_stock("sofa")
            assert (await shop.get("/v1/items/sofa")).json["in_stock"] is False
            assert time.time() * 1000 >= soon

    async def test_only_pictures_are_shown(self, settings: Settings) -> None:
        publish(settings, product("jpeg", thumbnail=JPEG), product("png", thumbnail=PNG), product("none"))
        publish(
            settings, product("page", thumbnail=b"<script>alert(1)</script>", image_url="https://cdn.example/x.jpg")
        )
        async with open_shop(settings) as shop:
            found = await shop.get("/v1/items/png/image")
            assert (found.headers["Content-Type"], found.body) == ("image/png", PNG)
            assert "immutable" not in found.headers["Cache-Control"]  # another picture may lie there tomorrow
            assert "sandbox" in found.headers["Content-Security-Policy"]
            for item_id in ("none", "page"):
                assert (await shop.get(f"/v1/items/{item_id}/image")).code == "no_image"
            assert (await shop.get("/v1/items/page")).json["image"] == "https://cdn.example/x.jpg"
            assert (await shop.get("/v1/items/none")).json["image"] is None


def test_pictures_that_are_replaced_give_their_space_back() -> None:
    pictures = Pictures()
    kept = pictures.put("kept", JPEG)
    size = 1 << 20
    for version in range(3 * SLACK // size):
        pictures.put("changing", JPEG + bytes([version]) * size)
    assert os.fstat(pictures._file.fileno()).st_size < 2 * SLACK
    assert kept is not None
    found = pictures.get("kept")
    assert found is not None
    assert (found[0].digest, found[1]) == (kept.digest, JPEG)
    assert (last := pictures.get("changing")) is not None
    assert last[1] == JPEG + bytes([version]) * size
    pictures.remove("kept")
    assert pictures.get("kept") is None
    pictures.close()


class TestRelatives:
    @pytest.fixture
    def relations(self) -> Relations:
        return Relations(tiny_release())

    @pytest.fixture
    def release(self) -> Release:
        return load_release(tiny_release())

    def test_both_kinds_are_the_releases_tables(self, relations: Relations, release: Release) -> None:
        kinds: dict[Kind, NDArray[np.void] | None] = {
            "similar": release.similar,
            "complementary": release.complementary,
        }
        for kind, table in kinds.items():
            assert table is not None
            row = int(np.argmax((table["item"] >= 0).sum(axis=1)))
            places = [(release.item_ids[item], count > 0) for item, _, count in table[row].tolist() if item >= 0]
            found = relations.of(kind, release.item_ids[row])
            assert [(one.item_id, one.seen) for one in found] == places
            assert {one.source for one in found} == {release.item_ids[row]}

    def test_what_completes_several_is_what_completes_them_together_without_themselves(
        self, relations: Relations, release: Release
    ) -> None:
        table = release.complementary
        assert table is not None
        first = int(np.argmax((table["item"] >= 0).sum(axis=1)))
        second = int(table["item"][first, 0])
        sums: dict[str, float] = defaultdict(float)
        for row in (first, second):
            for item, weight, _ in table[row].tolist():
                if item >= 0 and item not in (first, second):
                    sums[release.item_ids[item]] += weight
        found = relations.complementary([release.item_ids[first], release.item_ids[second], "unknown"])
        assert {one.item_id: one.weight for one in found} == pytest.approx(dict(sums))
        assert [one.weight for one in found] == sorted((one.weight for one in found), reverse=True)

    def test_what_a_visitor_looked_at_brings_what_is_near_it_forward(
        self, relations: Relations, release: Release
    ) -> None:
        found = relations.similar(release.item_ids[0])
        liked = found[-1].item_id
        mine = relations.by_taste(found, [liked])
        assert {one.item_id for one in mine} == {one.item_id for one in found}
        assert [one.item_id for one in mine].index(liked) < len(found) - 1
        assert relations.by_taste(found, ["unknown"]) == found

    def test_what_completes_a_category_is_for_those_that_the_release_does_not_know(
        self, relations: Relations, release: Release
    ) -> None:
        table = release.complementary
        assert table is not None
        named = {release.item_ids[row]: "new" for row in (0, 1)}
        found = relations.completing("new", named.get)
        assert {one.item_id for one in found} == {
            release.item_ids[item] for row in (0, 1) for item in table["item"][row].tolist() if item >= 0
        }
        assert not any(one.seen or one.source for one in found)

    def test_an_older_release_has_no_complements_and_finds_similar_ones_by_cosine(self) -> None:
        older = tiny_release_at(TINY_ALPHA)
        relations, release = Relations(older), load_release(older)
        assert not relations.complements
        assert relations.complementary([release.item_ids[0]]) == []
        vectors = np.asarray(release.item_vectors, dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        row = 7
        cosine = vectors @ vectors[row]
        cosine[row] = -np.inf
        expected = [release.item_ids[place] for place in np.argsort(-cosine, kind="stable")[:10]]
        found = [one.item_id for one in relations.similar(release.item_ids[row])]
        assert found[:10] == expected
        assert release.item_ids[row] not in found

    def test_also_viewed_are_the_releases_associations(self, relations: Relations) -> None:
        release = load_release(tiny_release())
        expected = [release.item_ids[n] for n in release.neighbours[3].tolist() if n >= 0 and n != 3]
        found = [one.item_id for one in relations.also_viewed(release.item_ids[3])]
        assert found
        assert found == expected[: len(found)]

    def test_the_source_is_the_item_that_leads_there_most(self, relations: Relations) -> None:
        release = load_release(tiny_release())
        target = int(release.neighbours[3][0])
        weights = {
            item_id: float(release.neighbour_weights[row][release.neighbours[row] == target].sum())
            for row, item_id in enumerate(release.item_ids)
            if row != target
        }
        own = release.item_ids
        best = relations.source_of(release.item_ids[target], own)
        assert best is not None
        assert weights[best] == max(weights.values())
        assert relations.source_of(release.item_ids[target], []) is None
        assert relations.source_of("unknown", own) is None


async def test_related_items_come_from_the_release_that_is_announced(settings: Settings, topics: Topics) -> None:
    release = load_release(tiny_release())
    a, b = release.item_ids[:2]
    publish(settings, *(product(item_id) for item_id in release.item_ids), product("brand-new", category="lamps"))
    publish(settings, product("lamp", category="lamps"))
    async with open_shop(settings) as shop:
        before = await shop.get(f"/v1/items/{a}/related", kind="similar")
        assert before.json["strategy"] == "popular"
        with BatchProducer(settings) as producer:
            producer.send(topics.releases, encode_release(announcement(tiny_release())), key=b"mmrec")
        await until("the release", lambda: shop.gateway.relations is not None)
        relations = shop.gateway.relations
        assert relations is not None
        similar = await shop.get(f"/v1/items/{a}/related", kind="similar", k="5", why="1")
        assert similar.items == [one.item_id for one in relations.similar(a)[:5]]
        assert (similar.json["surface"], similar.json["release"]) == ("product", "tiny-1")
        assert similar.json["items"][0]["why"]["source_item_id"] == a
        assert similar.headers["Cache-Control"].startswith("public")
        # One that sells out is not shown.
        publish(settings, product(similar.items[0], stock=0))
        await until("sold out", lambda: not shop.gateway.shelf.get(similar.items[0]).in_stock)  # type: ignore[union-attr]
        assert similar.items[0] not in (await shop.get(f"/v1/items/{a}/related", kind="similar", k="5")).items
        viewed = await shop.get(f"/v1/items/{a}/related", kind="also_viewed")
        assert viewed.items[0] in [one.item_id for one in relations.also_viewed(a)]
        # Newer than the release: what else there is of its kind, without itself.
        assert (await shop.get("/v1/items/brand-new/related")).items == ["lamp"]
        completing = await shop.get(f"/v1/items/{b}/related", kind="complementary", k="6", why="1")
        found = relations.complementary([b])
        assert completing.items == [one.item_id for one in found if one.item_id != similar.items[0]][:6]
        assert {place["why"]["kind"] for place in completing.json["items"]} == {"complementary"}
        assert {place["why"]["source_item_id"] for place in completing.json["items"]} == {b}
        assert (await shop.get(f"/v1/items/{b}/related", kind="other")).status == 400
        assert (await shop.get("/v1/items/nowhere/related")).code == "unknown_item"
        why = (await shop.get("/v1/why")).json
        assert why["release"] == "tiny-1"
        shares = [one["weight"] for one in why["parameters"] if one["name"].startswith("product_")]
        assert sum(shares) == pytest.approx(1, abs=0.01)


async def test_the_reason_names_the_item_that_led_there(settings: Settings, topics: Topics) -> None:
    release = load_release(tiny_release())
    source, target = release.item_ids[3], release.item_ids[int(release.neighbours[3][0])]
    with BatchProducer(settings) as producer:
        producer.send(topics.releases, encode_release(announcement(tiny_release())), key=b"mmrec")
    publish(settings, product(source), product(target), Click(user_id="alice", item_id=source, ts=NOW))
    by_items = recommended("alice", [target])
    items = [type(item)(item_id=item.item_id, score=0.5, p_user=0.1, p_item=0.9) for item in by_items.items]
    publish(
        settings, type(by_items)(**{f: getattr(by_items, f) for f in by_items.__struct_fields__} | {"items": items})
    )
    async with open_shop(settings) as shop:
        (place,) = (await shop.get("/v1/recommendations", bearer("alice"), why="1")).json["items"]
        assert place["why"] == {
            "kind": "followed",
            "text": f"Because you looked at The {source}",
            "source_item_id": source,
        }


async def test_an_announcement_that_is_deleted_counts_no_longer(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    with BatchProducer(settings) as producer:
        for path in (tiny_release(), tiny_variant(tmp_path, "second")):
            told = announcement(path)
            producer.send(topics.releases, encode_release(told), key=told.version.encode())
    async with open_shop(settings) as shop:
        assert (await shop.get("/readyz")).json["release"] == "second"
        with BatchProducer(settings) as producer:
            producer.send(topics.releases, None, key=b"second")
        await until("the one before", lambda: shop.gateway.release == "tiny-1")


async def test_a_release_that_is_not_as_announced_is_not_used(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    gone = announcement(tiny_release())
    with BatchProducer(settings) as producer:
        value = encode_release(
            type(gone)(**{f: getattr(gone, f) for f in gone.__struct_fields__} | {"uri": tmp_path.as_uri()})
        )
        producer.send(topics.releases, value, key=b"mmrec")
    async with open_shop(settings) as shop:
        assert (await shop.get("/readyz")).json["release"] == "none"


def tell(settings: Settings, topics: Topics, release: Path | None = None, rules: RuleSet | None = None) -> None:
    """Announce a release, and publish rules."""
    with BatchProducer(settings) as producer:
        producer.send(topics.releases, encode_release(announcement(release or tiny_release())), key=b"mmrec")
        if rules is not None:
            producer.send(topics.rules, encode_rules(rules), key=rules.key)


def completed_item() -> tuple[str, list[str]]:
    """An item of the tiny release with many complements, and these."""
    relations = Relations(tiny_release())
    found = {item_id: relations.complementary([item_id]) for item_id in load_release(tiny_release()).item_ids}
    item_id = max(found, key=lambda one: len(found[one]))
    return item_id, [one.item_id for one in found[item_id]]


async def test_an_older_release_says_that_it_has_no_complements(settings: Settings, topics: Topics) -> None:
    older = tiny_release_at(TINY_ALPHA)
    item_id = load_release(older).item_ids[0]
    tell(settings, topics, older)
    async with open_shop(settings) as shop:
        assert (await shop.get(f"/v1/items/{item_id}/related", kind="complementary")).code == "no_complements"


async def test_rules_hold_for_what_goes_with_a_product(settings: Settings, topics: Topics) -> None:
    item_id, found = completed_item()
    banned, ruled_out, sold_out = found[:3]
    publish(settings, *(product(one) for one in found[3:]), product(item_id), product(banned))
    publish(settings, product(ruled_out, tags=["adult"]), product(sold_out, stock=0))
    rule = Filter(id="adult", exclude='"adult" in item.tags', surfaces=["product"])
    tell(settings, topics, rules=RuleSet(id="r", banned=[banned], filters=[rule]))
    publish(settings, recommended("alice", [banned, ruled_out, found[3]]))
    async with open_shop(settings) as shop:
        beside = await shop.get(f"/v1/items/{item_id}/related", kind="complementary", k="100")
        assert beside.items == found[3:]
        # A list that was made before the rules were is shown by them all the same.
        assert (await shop.get("/v1/recommendations", bearer("alice"))).items == [ruled_out, found[3]]


async def test_what_a_visitor_was_shown_lately_may_be_kept_out_of_what_goes_with_a_product(
    settings: Settings, topics: Topics
) -> None:
    item_id, found = completed_item()
    publish(settings, *(product(one) for one in (item_id, *found)))
    publish(settings, Impression(user_id="alice", item_id=found[0], ts=NOW, list_id="l", position=0))
    fresh = Filter(id="fresh", exclude="shown.ago < 10")
    tell(settings, topics, rules=RuleSet(id="r", filters=[fresh]))
    publish(settings, recommended("alice", found[:2]))
    path = f"/v1/items/{item_id}/related"
    async with open_shop(settings) as shop:
        assert set((await shop.get(path, bearer("alice"), kind="complementary", k="100")).items) == set(found[1:])
        assert set((await shop.get(path, bearer("bob"), kind="complementary", k="100")).items) == set(found)
        assert (await shop.get(path, kind="complementary", k="100")).items == found
        # The worker has seen to her own list, which stays on the page while it is looked at.
        assert (await shop.get("/v1/recommendations", bearer("alice"))).items == found[:2]
        publish(settings, Impression(user_id="alice", item_id=found[1], ts=NOW, list_id="l", position=1))

        async def gone() -> bool:
            return found[1] not in (await shop.get(path, bearer("alice"), kind="complementary", k="100")).items

        while not await gone():
            await asyncio.sleep(0.05)


async def test_a_known_visitor_has_an_order_of_their_own(settings: Settings, topics: Topics) -> None:
    item_id, found = completed_item()
    relations = Relations(tiny_release())

    def order(liked: str) -> list[str]:
        return [one.item_id for one in relations.by_taste(relations.complementary([item_id]), [liked])]

    liked = next(one for one in load_release(tiny_release()).item_ids if one != item_id and order(one) != found)
    publish(settings, *(product(one) for one in (item_id, *found)))
    publish(settings, Click(user_id="alice", item_id=liked, ts=NOW))
    tell(settings, topics)
    async with open_shop(settings) as shop:
        path = f"/v1/items/{item_id}/related"
        mine = await shop.get(path, bearer("alice"), kind="complementary", k="100")
        common = await shop.get(path, kind="complementary", k="100")
        assert common.items == found
        assert mine.items == order(liked)
        assert (mine.json["personalised"], common.json["personalised"]) == (True, False)
        assert mine.headers["Cache-Control"] == "private, no-store"
        for same in (
            await shop.get(path, bearer("alice"), kind="complementary", k="100", personalised="false"),
            await shop.get(path, bearer("bob"), kind="complementary", k="100"),
            await shop.get(path, bearer("alice", consent=False), kind="complementary", k="100"),
        ):
            assert same.items == found


class TestBesideACart:
    async def test_is_what_completes_it_and_nothing_that_is_in_it(self, settings: Settings, topics: Topics) -> None:
        item_id, found = completed_item()
        publish(settings, *(product(one) for one in (item_id, *found, "taste")))
        publish(settings, AddToCart(user_id="alice", item_id=found[0], ts=NOW))
        publish(settings, AddToCart(user_id="alice", item_id=item_id, ts=NOW))
        publish(settings, recommended("alice", [item_id, "taste"], list_id="home"))
        tell(settings, topics)
        async with open_shop(settings) as shop:
            ask = {"surface": "cart", "k": "100", "why": "1"}
            answer = await shop.get("/v1/recommendations", bearer("alice"), **ask)
            places = {place["item_id"]: place["why"]["kind"] for place in answer.json["items"]}
            assert not {item_id, found[0]} & set(places)
            assert set(found[1:]) <= {one for one, kind in places.items() if kind == "complementary"}
            assert (answer.items[-1], places["taste"]) == ("taste", "taste")
            assert (answer.json["strategy"], answer.json["personalised"]) == ("complementary", True)
            assert answer.headers["Cache-Control"] == "private, no-store"
            # Elsewhere, and once the cart is empty, the list is the visitor's own.
            assert (await shop.get("/v1/recommendations", bearer("alice"))).json["list_id"] == "home"
            publish(settings, *(RemoveFromCart(user_id="alice", item_id=one, ts=NOW) for one in (found[0], item_id)))
            await until("the cart is empty", lambda: not shop.gateway.carts.of("alice"))
            assert (await shop.get("/v1/recommendations", bearer("alice"), **ask)).json["list_id"] == "home"

    async def test_an_open_page_is_told_when_the_cart_changes(self, settings: Settings, topics: Topics) -> None:
        item_id, found = completed_item()
        publish(settings, *(product(one) for one in (item_id, *found)))
        tell(settings, topics)
        async with (
            open_shop(settings) as shop,
            shop.stream(bearer("alice"), surface="cart", k="5") as cart,
            shop.stream(bearer("alice"), surface="home", k="5") as home,
        ):
            for reader in (cart, home):
                assert (await reader.event("recommendations"))["strategy"] == "popular"
            await shop.post("/v1/events", {"type": "add_to_cart", "item_id": item_id, "id": "1"}, bearer("alice"))
            completed = await cart.event("recommendations")
            assert completed["strategy"] == "complementary"
            assert [place["item_id"] for place in completed["items"]] == found[:5]
            publish(settings, recommended("alice", [found[0]], list_id="next"))
            assert (await home.event("recommendations"))["list_id"] == "next"

    async def test_a_page_may_say_what_is_in_the_cart_and_needs_nobodys_leave(
        self, settings: Settings, topics: Topics
    ) -> None:
        item_id, found = completed_item()
        publish(settings, *(product(one) for one in (item_id, *found)))
        publish(settings, AddToCart(user_id="alice", item_id=found[0], ts=NOW))
        tell(settings, topics)
        ask = {"surface": "cart", "k": str(len(found)), "items": f"{item_id},,{item_id}"}
        async with open_shop(settings) as shop:
            for who in (None, bearer("bob"), bearer("bob", consent=False)):
                answer = await shop.get("/v1/recommendations", who, **ask)
                assert answer.items == found
                assert answer.json["strategy"] == "complementary"
            # What the page says counts, and not what the visitor's events do.
            assert set((await shop.get("/v1/recommendations", bearer("alice"), **ask)).items) == set(found)
            empty = await shop.get("/v1/recommendations", bearer("alice"), surface="cart", items="")
            assert empty.json["strategy"] == "popular"
            wrong = await shop.get("/v1/recommendations", surface="cart", items="x" * 1_000)
            assert (wrong.status, wrong.json["error"]["field"]) == (400, "items")
