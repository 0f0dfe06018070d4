"""Lists as pages get them: from the topic, at once, with cards; and what there is where nothing personal is."""

import asyncio
import json
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from mmrec_stream.contracts.behaviour import AddToCart, Click, Purchase
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.tokens import new_key_set
from mmrec_stream.topics import Topics
from tests.storefront.shop import JPEG, KEYS, NOW, bearer, open_shop, product, publish, recommended, token, until


@pytest.mark.usefixtures("topics")
class TestAPersonalList:
    async def test_it_has_cards_and_is_not_cached(self, settings: Settings) -> None:
        publish(settings, product("sofa", brand="Lune", thumbnail=JPEG), product("lamp"))
        publish(settings, recommended("alice", ["lamp", "sofa"], list_id="l-7"))
        async with open_shop(settings) as shop:
            answer = await shop.get("/v1/recommendations", bearer("alice"), surface="home")
            assert answer.items == ["lamp", "sofa"]
            assert answer.headers["Cache-Control"] == "private, no-store"
            found = answer.json
            assert (found["list_id"], found["strategy"], found["personalised"]) == ("l-7", "hybrid", True)
            sofa = found["items"][1]
            assert (sofa["title"], sofa["price"], sofa["currency"], sofa["brand"]) == ("The sofa", 10.0, "EUR", "Lune")
            assert (sofa["position"], sofa["in_stock"], sofa["url"]) == (1, True, "/shop/item/sofa")
            picture = await shop.get(sofa["image"])
            assert (picture.body, picture.headers["Content-Type"]) == (JPEG, "image/jpeg")
            assert "immutable" in picture.headers["Cache-Control"]

    async def test_the_newest_counts_and_what_is_sold_out_or_gone_is_left_out(self, settings: Settings) -> None:
        publish(settings, product("a"), product("b", stock=0), product("c"), product("d", available=False))
        publish(settings, recommended("alice", ["d"], list_id="old"))
        publish(settings, recommended("alice", ["a", "b", "c", "d", "never-published"], list_id="new"), "c")
        async with open_shop(settings) as shop:
            answer = await shop.get("/v1/recommendations", bearer("alice"))
            assert answer.json["list_id"] == "new"
            assert answer.items == ["a", "never-published"]
            assert [item["position"] for item in answer.json["items"]] == [0, 1]
            assert (await shop.get("/v1/recommendations", bearer("alice"), k="1")).items == ["a"]

    async def test_nobody_gets_anothers(self, settings: Settings) -> None:
        publish(settings, product("a"), product("b"), recommended("bob", ["b"], list_id="bobs"))
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/recommendations", bearer("alice"))).json["list_id"] != "bobs"
            assert (await shop.get("/v1/recommendations", bearer("alice"), user="bob")).code == "other_user"
            assert (await shop.get("/v1/recommendations", user="bob")).code == "no_token"

    async def test_it_says_why(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"]))
        async with open_shop(settings) as shop:
            answer = await shop.get("/v1/recommendations", bearer("alice"), why="1")
            assert answer.json["items"][0]["why"] == {"kind": "taste", "text": "Matches what you have liked lately"}


@pytest.mark.usefixtures("topics")
class TestTheListForEverybody:
    async def test_it_is_what_others_choose_and_may_be_cached(self, settings: Settings) -> None:
        publish(settings, *(product(name) for name in ("a", "b", "c")))
        publish(settings, *(Click(user_id=f"u{n}", item_id="c", ts=NOW) for n in range(3)))
        publish(settings, Click(user_id="u", item_id="b", ts=NOW))
        async with open_shop(settings) as shop:
            answer = await shop.get("/v1/recommendations", why="1")
            assert answer.items == ["c", "b", "a"]
            assert (answer.json["strategy"], answer.json["personalised"]) == ("popular", False)
            assert [item["why"]["kind"] for item in answer.json["items"]] == ["popular", "popular", "assortment"]
            assert answer.headers["Cache-Control"].startswith("public")
            again = await shop.get("/v1/recommendations", {"If-None-Match": answer.headers["ETag"]}, why="1")
            assert (again.status, again.body) == (304, b"")

    async def test_beside_the_cart_it_is_what_others_buy(self, settings: Settings) -> None:
        publish(settings, product("looked-at"), product("bought"))
        publish(settings, *(Click(user_id=f"u{n}", item_id="looked-at", ts=NOW) for n in range(50)))
        publish(settings, AddToCart(user_id="u", item_id="bought", ts=NOW))
        publish(settings, Purchase(user_id="u", item_id="bought", ts=NOW))
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/recommendations", surface="home")).items[0] == "looked-at"
            assert (await shop.get("/v1/recommendations", surface="cart")).items[0] == "bought"

    async def test_an_event_of_next_year_does_not_take_it_over(self, settings: Settings) -> None:
        publish(settings, product("a"), product("b"), Click(user_id="u", item_id="a", ts=NOW))
        publish(settings, Click(user_id="u", item_id="b", ts=NOW + 365 * 86_400_000))
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/recommendations")).items == ["a", "b"]

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            (lambda: bearer("alice"), {"personalised": "false"}),
            (lambda: bearer("alice", consent=False), {}),
            (lambda: bearer("alice") | {"Sec-GPC": "1"}, {}),
            (dict, {}),
        ],
        ids=["personalised=false", "no consent", "global privacy control", "no token"],
    )
    async def test_who_wants_nothing_personal_gets_it(
        self, settings: Settings, headers: Callable[[], dict[str, str]], query: dict[str, str]
    ) -> None:
        publish(settings, product("a"), product("b"), recommended("alice", ["b"], list_id="hers"))
        async with open_shop(settings) as shop:
            answer = await shop.get("/v1/recommendations", headers(), **query)
            assert answer.json["personalised"] is False
            assert answer.items == ["a", "b"]
            async with shop.stream(headers(), **query) as reader:
                assert (await reader.event("recommendations"))["list_id"] == answer.json["list_id"]

    async def test_privacy_control_counts_only_where_the_shop_says_so(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"], list_id="hers"))
        async with open_shop(settings, storefront_gpc=False) as shop:
            answer = await shop.get("/v1/recommendations", {**bearer("alice"), "Sec-GPC": "1"})
            assert answer.json["list_id"] == "hers"

    async def test_a_user_without_a_list_asks_again_each_time(self, settings: Settings) -> None:
        publish(settings, product("a"))
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/recommendations", bearer("alice"))).headers[
                "Cache-Control"
            ] == "private, no-cache"
            publish(settings, recommended("alice", ["a"], list_id="hers"))
            await until("her list", lambda: shop.gateway.lists.get("alice"))
            assert (await shop.get("/v1/recommendations", bearer("alice"))).json["list_id"] == "hers"

    async def test_a_list_that_cannot_be_read_is_as_none(self, settings: Settings, topics: Topics) -> None:
        from mmrec_stream.kafka.clients import BatchProducer

        publish(settings, product("a"))
        with BatchProducer(settings) as producer:
            producer.send(topics.recommendations, b'{"list_id": 7', key=b"alice")
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/recommendations", bearer("alice"))).items == ["a"]


@pytest.mark.usefixtures("topics")
class TestAStream:
    async def test_a_list_comes_the_moment_it_is_published(self, settings: Settings) -> None:
        publish(settings, product("a"), product("b"), recommended("alice", ["a"], list_id="l-1"))
        async with open_shop(settings) as shop, shop.stream(bearer("alice")) as reader:
            assert (await reader.event("recommendations"))["list_id"] == "l-1"
            publish(settings, recommended("bob", ["a"], list_id="bobs"), recommended("alice", ["b"], list_id="l-2"))
            second = await reader.event("recommendations")
            assert (second["list_id"], [item["item_id"] for item in second["items"]]) == ("l-2", ["b"])

    async def test_who_comes_back_gets_only_what_is_new(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"], list_id="l-1"))
        async with open_shop(settings) as shop:
            async with shop.stream(bearer("alice")) as reader:
                while (frame := await reader.frame()).get("event") != "recommendations":
                    assert "retry" in frame
                assert frame["id"] == "l-1"
            async with shop.stream({**bearer("alice"), "Last-Event-ID": "l-1"}) as reader:
                publish(settings, recommended("alice", ["a"], list_id="l-2"))
                assert (await reader.event("recommendations"))["list_id"] == "l-2"
            async with shop.stream({**bearer("alice"), "Last-Event-ID": "l-1"}) as reader:
                assert (await reader.event("recommendations"))["list_id"] == "l-2"

    async def test_a_shown_product_that_sells_out_is_told(self, settings: Settings) -> None:
        publish(settings, product("a"), product("b"), product("c"), recommended("alice", ["a", "b"]))
        async with open_shop(settings) as shop, shop.stream(bearer("alice")) as reader:
            await reader.event("recommendations")
            publish(settings, product("c", stock=0), product("b", stock=0))
            assert await reader.event("item") == {"item_id": "b", "in_stock": False, "price": 10.0}
            publish(settings, "a")
            assert await reader.event("item") == {"item_id": "a", "in_stock": False, "price": None}

    async def test_it_ends_with_its_token(self, settings: Settings) -> None:
        async with open_shop(settings) as shop:
            # The leeway for clocks is 30 s.
            async with shop.stream(token=token(sub="alice", lasts_s=-28)) as reader:
                await reader.event("expired")
                assert await reader.frame() == {}
            await until("the stream is closed", lambda: len(shop.gateway.hub) == 0)

    async def test_it_goes_on_with_a_token_of_the_next_key(self, settings: Settings) -> None:
        old, new = json.loads(KEYS)["keys"][0], json.loads(new_key_set("next"))["keys"][0]
        keys = SecretStr(json.dumps({"keys": [old, new]}))
        publish(settings, product("a"), recommended("alice", ["a"], list_id="l-1"))
        async with open_shop(settings, storefront_keys=keys) as shop:
            async with shop.stream(token=token(sub="alice", lasts_s=-28)) as reader:
                assert (await reader.event("recommendations"))["list_id"] == "l-1"
                await reader.event("expired")
            publish(settings, recommended("alice", ["a"], list_id="l-2"))
            fresh = {"Authorization": f"Bearer {token(sub='alice', key=new['k'], kid='next')}"}
            async with shop.stream({**fresh, "Last-Event-ID": "l-1"}) as reader:
                assert (await reader.event("recommendations"))["list_id"] == "l-2"

    async def test_a_reader_that_has_gone_is_noticed_at_once(self, settings: Settings) -> None:
        async with open_shop(settings) as shop:
            async with shop.stream(bearer("alice")):
                assert len(shop.gateway.hub) == 1
            await until("the stream is closed", lambda: len(shop.gateway.hub) == 0, timeout_s=5)

    async def test_streams_are_bounded(self, settings: Settings) -> None:
        async with open_shop(settings, storefront_streams=2) as shop, shop.stream(), shop.stream():
            refused = await shop.get("/v1/stream")
            assert (refused.status, refused.code) == (429, "too_many_streams")
            assert int(refused.headers["Retry-After"]) >= 5
        async with open_shop(settings, storefront_streams_per_address=1) as shop, shop.stream():
            assert (await shop.get("/v1/stream")).status == 429

    async def test_the_gateway_ends_while_streams_are_open(self, settings: Settings) -> None:
        async with asyncio.timeout(30):
            async with open_shop(settings) as shop:
                response = await shop.session.get(f"{shop.url}/v1/stream", headers=bearer("alice"))
                assert response.status == 200
