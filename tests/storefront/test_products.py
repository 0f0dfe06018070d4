"""Products: cards, pictures, and what goes with them by a real release."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from mmrec_stream.contracts.behaviour import Click
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.releases import announcement, load_release
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.pictures import SLACK, Pictures
from mmrec_stream.storefront.related import Relations
from mmrec_stream.topics import Topics
from tests.storefront.shop import JPEG, NOW, bearer, open_shop, product, publish, recommended, until
from tests.tiny import tiny_release, tiny_variant

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

    def test_similar_ones_are_the_nearest_by_cosine(self, relations: Relations) -> None:
        release = load_release(tiny_release())
        vectors = np.asarray(release.item_vectors, dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        row = 7
        cosine = vectors @ vectors[row]
        cosine[row] = -np.inf
        expected = [release.item_ids[place] for place in np.argsort(-cosine, kind="stable")[:10]]
        assert relations.similar(release.item_ids[row])[:10] == expected
        assert release.item_ids[row] not in relations.similar(release.item_ids[row])

    def test_also_viewed_are_the_releases_associations(self, relations: Relations) -> None:
        release = load_release(tiny_release())
        expected = [release.item_ids[n] for n in release.neighbours[3].tolist() if n >= 0 and n != 3]
        assert relations.also_viewed(release.item_ids[3])[: len(expected)] == expected[: len(expected)]

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
        assert similar.items == relations.similar(a)[:5]
        assert (similar.json["surface"], similar.json["release"]) == ("product", "tiny-1")
        assert similar.json["items"][0]["why"]["source_item_id"] == a
        assert similar.headers["Cache-Control"].startswith("public")
        # One that sells out is not shown.
        publish(settings, product(similar.items[0], stock=0))
        await until("sold out", lambda: not shop.gateway.shelf.get(similar.items[0]).in_stock)  # type: ignore[union-attr]
        assert similar.items[0] not in (await shop.get(f"/v1/items/{a}/related", kind="similar", k="5")).items
        viewed = await shop.get(f"/v1/items/{a}/related", kind="also_viewed")
        assert viewed.items[0] in relations.also_viewed(a)
        # Newer than the release: what else there is of its kind, without itself.
        assert (await shop.get("/v1/items/brand-new/related")).items == ["lamp"]
        assert (await shop.get(f"/v1/items/{b}/related", kind="complementary")).code == "no_complements"
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
            type(gone)(**{f: getattr(gone, f) for f in gone.__struct_fields__} | {"path": str(tmp_path)})
        )
        producer.send(topics.releases, value, key=b"mmrec")
    async with open_shop(settings) as shop:
        assert (await shop.get("/readyz")).json["release"] == "none"
