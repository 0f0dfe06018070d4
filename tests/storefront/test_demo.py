"""What the demo shop asks for: the catalogue to browse, products to publish and sell out, and the visitor's panel."""

import asyncio
import base64

import msgspec
import pytest

from mmrec_stream.contracts.behaviour import Click, View
from mmrec_stream.contracts.catalogue import decode_item
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.releases import announcement
from mmrec_stream.settings import Settings
from mmrec_stream.simulator import make_shop
from mmrec_stream.topics import Topics
from tests.cli.folding import fold_log
from tests.storefront.shop import JPEG, NOW, open_shop, product, publish, recommended, until
from tests.tiny import tiny_release


@pytest.mark.usefixtures("topics")
class TestTheCatalogue:
    async def test_it_is_browsed_by_category_and_words(self, settings: Settings) -> None:
        publish(
            settings,
            product("red", title="Red retro dress", category="clothing.dresses", tags=["linen"], thumbnail=JPEG),
            product("gone", title="Blue dress", category="clothing.dresses", stock=0),
            product("shoe", title="Sneaker", category="clothing.shoes", brand="Fleet"),
            product("lamp", title="Lamp", category="home"),
        )
        async with open_shop(settings, dev=True) as shop:

            async def found(**query: str) -> list[str]:
                return (await shop.get("/v1/catalogue", None, **query)).items

            assert await found(category="clothing.dresses") == ["red", "gone"]
            assert sorted(await found(category="clothing")) == ["gone", "red", "shoe"]
            assert await found(category="cloth") == []
            assert await found(q="RETRO linen") == ["red"]
            assert await found(q="fleet") == ["shoe"]
            page = (await shop.get("/v1/catalogue", offset="1", limit="2")).json
            assert (page["total"], page["offset"], len(page["items"])) == (4, 1, 2)
            assert (await shop.get("/v1/catalogue", offset="x")).status == 400
            named = {one["id"]: one for one in (await shop.get("/v1/categories")).json["categories"]}
            assert (named["clothing.dresses"]["title"], named["clothing.dresses"]["count"]) == ("Dresses", 2)
            assert named["clothing.dresses"]["image"].startswith("/v1/items/red/image")
            assert (await shop.get("/v1/items/red")).json["stock"] == 5

    async def test_a_product_is_published_and_sold_out(self, settings: Settings) -> None:
        async with open_shop(settings, dev=True) as shop:
            picture = base64.b64encode(JPEG * 8_000).decode()
            body = {"title": "My own", "price": 12.0, "thumbnail": picture, "features": {"v": [0.5]}, "stock": 3}
            async with shop.session.put(f"{shop.url}/v1/items/mine", json=body) as response:
                assert (response.status, await response.json()) == (202, {"item_id": "mine"})
            await until("it is there", lambda: shop.gateway.shelf.get("mine"))
            async with shop.session.patch(f"{shop.url}/v1/items/mine", json={"stock": 0}) as response:
                assert response.status == 202
            await until("sold out", lambda: (card := shop.gateway.shelf.get("mine")) and not card.in_stock)
            # What else the product had stays.
            *_, last = [decode_item(m.value() or b"") for m in read(settings, Topics.of(settings).catalogue)]
            assert (last.title, last.stock, last.features, last.thumbnail) == ("My own", 0, {"v": [0.5]}, JPEG * 8_000)
            wrongs: list[object] = [{"price": -1}, {"stock": "many"}, []]
            for wrong in wrongs:
                async with shop.session.put(f"{shop.url}/v1/items/bad", json=wrong) as response:
                    assert response.status == 400
            async with shop.session.patch(f"{shop.url}/v1/items/unknown", json={"stock": 0}) as response:
                assert response.status == 404


class TestThePanel:
    async def test_it_shows_what_the_pipeline_knows(self, settings: Settings, topics: Topics) -> None:
        publish(settings, product("dress", category="clothing.dresses", brand="Lune"), product("lamp", category="home"))
        clicks = [
            Click(user_id="alice", item_id="dress", category="clothing.dresses", brand="Lune", ts=NOW + n)
            for n in range(3)
        ]
        publish(settings, View(user_id="alice", item_id="lamp", category="home", ts=NOW - 1), *clicks)
        publish(settings, recommended("alice", ["lamp"]))
        await asyncio.to_thread(fold_log, settings)
        async with open_shop(settings, dev=True) as shop:
            panel = (await shop.get("/v1/panel", user="alice")).json
            assert panel["events"][0] == {"type": "click", "item_id": "dress", "title": "The dress", "ts": NOW + 2}
            assert [taste["name"] for taste in panel["tastes"]][:3] == ["clothing.dresses", "Lune", "home"]
            assert panel["tastes"][0]["weight"] == 1.0
            assert 0 < panel["tastes"][2]["weight"] < 0.5
            assert (panel["alpha"], panel["strategy"]) == (0.5, "hybrid")
            assert panel["times"]["folded"] <= panel["times"]["published"]
            shoppers = (await shop.get("/v1/shop")).json["shoppers"]
            assert shoppers == [{"user": "alice", "text": "clothing.dresses, Lune"}]
            assert (await shop.get("/v1/panel", session="unknown")).json["events"] == []

    async def test_it_says_which_modality_spoke_for_the_list(self, settings: Settings, topics: Topics) -> None:
        shop_items = make_shop(60, seed=3)[:12]
        names = [item.item_id for item in shop_items]
        with BatchProducer(settings) as producer:
            producer.send(topics.releases, encode_release(announcement(tiny_release())), key=b"mmrec")
        made = [
            msgspec.structs.replace(recommended(user, names[:8], list_id=f"l-{user}"), release="tiny-1")
            for user in ("alice", "bob")
        ]
        publish(settings, *shop_items, *made, Click(user_id="alice", item_id=names[9], ts=NOW))
        async with open_shop(settings, dev=True) as shop:
            panel = (await shop.get("/v1/panel", user="alice")).json
            assert panel["modalities_of"] == "list"
            shares = {one["name"]: one["share"] for one in panel["modalities"]}
            assert shares.keys() == {"text", "picture", "attributes", "behaviour"}
            assert sum(shares.values()) == pytest.approx(1)
            assert (await shop.get("/v1/panel", user="alice")).json["modalities"] == panel["modalities"]
            # Of whom nothing is known, there are the release's own weights.
            other = (await shop.get("/v1/panel", user="bob")).json
            assert "modalities_of" not in other
            assert {one["name"] for one in other["modalities"]} == shares.keys()

    @pytest.mark.usefixtures("topics")
    async def test_a_list_on_the_stream_says_where_the_milliseconds_went(self, settings: Settings) -> None:
        publish(settings, product("a"))
        async with open_shop(settings, dev=True) as shop, shop.stream(user="alice") as reader:
            await reader.event("recommendations")
            publish(settings, recommended("alice", ["a"]))
            times = (await reader.event("recommendations"))["times"]
            assert times["published"] <= times["received"] <= times["sent"]


@pytest.mark.usefixtures("topics")
async def test_none_of_it_is_there_outside_the_development_mode(settings: Settings) -> None:
    publish(settings, product("a"), recommended("alice", ["a"]))
    async with open_shop(settings) as shop:
        for path in ("/v1/shop", "/v1/categories", "/v1/catalogue", "/v1/panel"):
            assert (await shop.get(path, user="alice")).status == 404
        async with shop.session.put(f"{shop.url}/v1/items/a", json={}) as response:
            assert response.status == 405
        assert "stock" not in (await shop.get("/v1/items/a")).json
