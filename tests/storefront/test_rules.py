"""The rules in force, as pages see them: at once, in every list, and by what is known of the visit."""

import pytest

from mmrec_stream.contracts.rules import Boost, Filter, RuleSet, encode_rules
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.storefront.shop import bearer, open_shop, product, publish, recommended, until

pytestmark = pytest.mark.usefixtures("topics")

AGE = Filter(id="age", exclude='"wine" in item.tags && !context.adult', required=True)


def tell(settings: Settings, rules: RuleSet | None, *before: RuleSet) -> None:
    """Publish rules, and take those before back."""
    with BatchProducer(settings) as producer:
        topic = Topics.of(settings).rules
        if rules is not None:
            producer.send(topic, encode_rules(rules), key=rules.key)
        for one in before:
            producer.send(topic, None, key=one.key)


async def test_what_is_banned_is_gone_from_open_pages_and_from_every_list(settings: Settings) -> None:
    publish(settings, *(product(name) for name in ("a", "b", "c")))
    publish(settings, recommended("alice", ["b", "a", "c"]))
    async with open_shop(settings) as shop, shop.stream(bearer("alice")) as alice, shop.stream() as nobody:
        for reader in (alice, nobody):
            assert "b" in {item["item_id"] for item in (await reader.event("recommendations"))["items"]}
        rules = RuleSet(id="shop", version=1, banned=["b"])
        tell(settings, rules)
        # Nothing else happens: no list is published, and no page is loaded again.
        for reader in (alice, nobody):
            shown = await reader.event("recommendations")
            assert {item["item_id"] for item in shown["items"]} == {"a", "c"}
        assert (await shop.get("/v1/recommendations", bearer("alice"))).items == ["a", "c"]
        assert set((await shop.get("/v1/recommendations")).items) == {"a", "c"}
        assert set((await shop.get("/v1/recommendations", bearer("bob"))).items) == {"a", "c"}
        with BatchProducer(settings) as producer:  # broken ones change nothing
            producer.send(Topics.of(settings).rules, b'{"id":"shop","banned":7}', key=b"shop/2")
        tell(settings, None, rules)
        assert {item["item_id"] for item in (await alice.event("recommendations"))["items"]} == {"a", "b", "c"}


async def test_popular_lists_are_filtered_boosted_and_capped(settings: Settings) -> None:
    publish(settings, *(product(f"i{n}", brand="Ember" if n < 4 else f"brand {n}") for n in range(8)))
    publish(settings, product("best", brand="Ember", tags=["best"]), product("out", tags=["out"]))
    rules = RuleSet(
        id="shop",
        filters=[Filter(id="f", exclude='"out" in item.tags')],
        boosts=[Boost(id="b", when='"best" in item.tags', by="100.0")],
        max_per_brand=2,
    )
    tell(settings, rules)
    async with open_shop(settings) as shop:
        items = (await shop.get("/v1/recommendations", k="10")).items
        assert items[0] == "best"
        assert "out" not in items
        assert len(set(items) & {"best", "i0", "i1", "i2", "i3"}) == 2
        assert len(items) == 6


async def test_where_nothing_passes_filters_give_way_but_for_those_that_are_required(settings: Settings) -> None:
    publish(settings, product("a"), product("b", tags=["wine"]))
    tell(settings, RuleSet(id="shop", filters=[Filter(id="none", only="false"), AGE]))
    async with open_shop(settings) as shop:
        assert (await shop.get("/v1/recommendations")).items == ["a"]


async def test_what_reads_the_visit_counts_for_the_visit(settings: Settings) -> None:
    publish(settings, product("a"), product("b", tags=["wine"]), product("c", tags=["swiss"]))
    publish(settings, *(recommended(user, ["b", "a", "c"]) for user in ("alice", "bob")))
    swiss = Filter(id="swiss", exclude='"swiss" in item.tags && !context.locale.endsWith("-CH")')
    tell(settings, RuleSet(id="shop", filters=[AGE, swiss]))
    async with open_shop(settings) as shop:
        await until("the rules", lambda: shop.gateway.rules.policy)
        assert (await shop.get("/v1/recommendations", bearer("alice", adult=True))).items == ["b", "a"]
        assert (await shop.get("/v1/recommendations", bearer("bob", locale="de-CH"))).items == ["a", "c"]
        everybody = await shop.get("/v1/recommendations")
        assert everybody.items == ["a"]
        assert everybody.headers["Cache-Control"] == "private, no-cache"
        adult = await shop.get("/v1/recommendations", bearer("alice", adult=True), personalised="false")
        assert set(adult.items) == {"a", "b"}
