"""The merchandiser's rules where the gateway makes a list itself."""

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.rules import Boost, Filter, Pin, RuleSet
from mmrec_stream.policies.policy import Policy, Viewer
from mmrec_stream.storefront.related import Related
from mmrec_stream.storefront.ruling import Rules

VIEWER = Viewer("product", "alice", 2)
FOUND = [Related(item_id, weight, "sofa") for item_id, weight in (("a", 0.5), ("b", 0.3), ("c", 0.2), ("new", 0.1))]


def rules(**more: object) -> Rules:
    """Over three products; of `new` the catalogue does not know."""
    made = Rules()
    made.update([CatalogueItem(item_id="a", category="x"), CatalogueItem(item_id="b", category="x", tags=["adult"])])
    made.update([CatalogueItem(item_id="c", category="y")])
    if more:
        made.obey(Policy(RuleSet(id="r", **more)))  # type: ignore[arg-type]
    return made


def ids(found: list[Related]) -> list[str]:
    return [one.item_id for one in found]


def test_without_rules_the_first_places_are_shown() -> None:
    assert rules().choose(VIEWER, FOUND, 2) == FOUND[:2]
    assert rules().permitted(VIEWER, ["b", "new"]) == ["b", "new"]


def test_what_is_banned_or_filtered_is_in_no_list() -> None:
    adult = Filter(id="adult", exclude='"adult" in item.tags')
    made = rules(banned=["c"], filters=[adult])
    assert ids(made.choose(VIEWER, FOUND, 5)) == ["a", "new"]
    assert made.permitted(VIEWER, ["c", "b", "a", "new"]) == ["a", "new"]
    # A worker's list for which filters gave way is not emptied here; bans never give way.
    assert made.permitted(VIEWER, ["c", "b", "a"], "r/1/fallback") == ["b", "a"]


def test_boosts_caps_and_pins_choose() -> None:
    assert ids(rules(boosts=[Boost(id="y", when='item.category == "y"', by="5.0")]).choose(VIEWER, FOUND, 5))[0] == "c"
    assert ids(rules(max_per_category=1).choose(VIEWER, FOUND, 5)) == ["a", "c", "new"]
    first, *others = rules(pins=[Pin(id="campaign", item_id="lamp")]).choose(VIEWER, FOUND, 3)
    assert (first.item_id, first.rule) == ("lamp", "campaign")
    assert ids(others) == ["a", "b"]


def test_a_rule_of_another_surface_does_not_count_here() -> None:
    home = Filter(id="home", exclude="true", surfaces=["home"])
    assert rules(filters=[home]).choose(VIEWER, FOUND, 5) == FOUND


def test_where_nothing_goes_with_it_nothing_is_shown() -> None:
    assert rules(max_per_brand=1, pins=[Pin(id="campaign", item_id="lamp")]).choose(VIEWER, [], 5) == []
    assert rules(filters=[Filter(id="all", exclude="true")]).choose(VIEWER, FOUND, 5) == []


def test_a_product_that_changes_is_read_anew() -> None:
    made = rules(filters=[Filter(id="adult", exclude='"adult" in item.tags')])
    made.update([CatalogueItem(item_id="a", category="x", tags=["adult"])])
    assert ids(made.choose(VIEWER, FOUND, 5)) == ["c", "new"]
    made.obey(None)
    assert made.choose(VIEWER, FOUND, 5) == FOUND
