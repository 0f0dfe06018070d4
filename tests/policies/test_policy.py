"""What rules do to a list: filters, boosts, pins, caps, diversity, and what is said where they are wrong."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.rules import Boost, Filter, Pin, RuleSet, decode_rules, encode_rules
from mmrec_stream.policies.policy import Policy, RulesError, Viewer, Viewers, Visit
from mmrec_stream.profiles.shown import LAST

ITEMS = [
    CatalogueItem(
        item_id=f"i-{n}",
        category=["shoes", "hats", "wine"][n % 3],
        brand=["Ember", "Frost"][n % 2],
        price=10.0 * n,
        numbers={"margin": 0.1 * n} if n % 2 else {},
    )
    for n in range(12)
]
IDS = [item.item_id for item in ITEMS]
KEYS = id_keys(IDS)
SCORES = np.linspace(1.0, 0.5, len(IDS), dtype=np.float32)


def policy_of(**rules: Any) -> Policy:
    policy, columns = Policy(RuleSet(id="shop", **rules)), ProductColumns()
    columns.update(ITEMS)
    policy.refresh(columns)
    return policy


ANYBODY = Viewer()


def chosen(policy: Policy, viewer: Viewer = ANYBODY, k: int = 12, **more: Any) -> list[str]:
    return [one.item_id or IDS[one.candidate] for one in policy.choose(viewer, KEYS, SCORES, k, **more)]


def test_without_rules_a_list_stays_as_it_is() -> None:
    assert chosen(policy_of()) == IDS
    assert not policy_of().chooses


def test_filters_and_bans_take_products_out() -> None:
    only = policy_of(filters=[Filter(id="f", only='item.category == "shoes"')], banned=["i-3"])
    assert chosen(only) == ["i-0", "i-6", "i-9"]
    exclude = policy_of(filters=[Filter(id="f", exclude="item.price > 20.0")])
    assert chosen(exclude) == ["i-0", "i-1", "i-2"]
    unknown = id_keys(["never published"])
    assert exclude.allowed("home", unknown).all()
    assert not policy_of(banned=["never published"]).allowed("home", unknown).any()


def test_a_filter_counts_on_its_surfaces_alone() -> None:
    policy = policy_of(filters=[Filter(id="f", only='item.brand == "Ember"', surfaces=["cart", "app"])])
    assert chosen(policy) == IDS
    for surface in ("cart", "app"):
        assert chosen(policy, Viewer(surface=surface)) == IDS[::2]


def test_a_filter_may_read_the_user() -> None:
    policy = policy_of(filters=[Filter(id="new", only='user.events > 5 || item.category == "hats"')])
    assert policy.chooses
    assert len(chosen(policy, Viewer(events=1))) == 4
    assert len(chosen(policy, Viewer(events=6))) == 12


def test_boosts_weigh_by_attribute_and_say_so() -> None:
    policy = policy_of(boosts=[Boost(id="margin", by='1.0 + 10.0 * item.numbers["margin"]')])
    found = policy.choose(Viewer(), KEYS, SCORES, 3)
    assert [IDS[one.candidate] for one in found] == ["i-11", "i-9", "i-7"]
    assert {one.rule for one in found} == {"margin"}
    assert found[0].score == pytest.approx(0.5 * 12.0)
    assert chosen(policy_of(boosts=[Boost(id="none", when='item.brand == "Frost"', by="-1.0")])) == IDS[::2]


def test_pins_have_their_place_unless_something_speaks_against() -> None:
    policy = policy_of(pins=[Pin(id="p", item_id="i-7", position=1)])
    assert chosen(policy, k=3) == ["i-0", "i-7", "i-1"]
    assert chosen(policy, k=3, held=frozenset(KEYS[7:8].tolist())) == IDS[:3]
    assert chosen(policy_of(pins=[Pin(id="p", item_id="i-7")], banned=["i-7"]), k=3) == IDS[:3]


@given(
    st.none() | st.integers(1, 4),
    st.none() | st.integers(1, 4),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(1, 12),
)
@settings(deadline=None)
def test_caps_hold_and_the_best_comes_first(category: int | None, brand: int | None, diversity: float, k: int) -> None:
    policy = policy_of(max_per_category=category, max_per_brand=brand, diversity=diversity)
    vectors = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    found = chosen(policy, k=k, vectors=vectors)
    items = [ITEMS[IDS.index(one)] for one in found]
    assert found[0] == "i-0"
    assert len(set(found)) == len(found) <= k
    for cap, values in ((category, [one.category for one in items]), (brand, [one.brand for one in items])):
        assert cap is None or max(map(values.count, values)) <= cap
    if category is None and brand is None and diversity == 0:
        assert found == IDS[:k]


def test_where_there_is_no_candidate_there_are_pins_alone() -> None:
    none = np.empty((2, 0), dtype=np.uint64)
    scores = np.empty((2, 0), dtype=np.float32)
    viewers = Viewers(["u1", "u2"], np.array([1, 2]))
    assert policy_of(max_per_brand=1).choose_all(viewers, none, scores, 5) == [[], []]
    pinned = policy_of(pins=[Pin(id="p", item_id="i-3")]).choose_all(viewers, none, scores, 5)
    assert [[one.item_id for one in found] for found in pinned] == [["i-3"], ["i-3"]]


def test_diversity_prefers_what_differs() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], *[[1, 0.1]] * 9], dtype=np.float32)
    assert chosen(policy_of(diversity=0.5), k=2, vectors=vectors) == ["i-0", "i-2"]
    assert chosen(policy_of(), k=2, vectors=vectors) == ["i-0", "i-1"]


def test_what_reads_the_visit_counts_where_the_visit_is_known() -> None:
    policy = policy_of(
        filters=[
            Filter(id="age", exclude='item.category == "wine" && !context.adult', required=True),
            Filter(id="swiss", exclude='item.brand == "Frost" && context.locale.startsWith("de-CH")'),
        ],
        boosts=[Boost(id="plain", when='!context.consent && item.id == "i-6"', by="9.0")],
    )
    assert policy.reads_visits
    assert chosen(policy) == IDS  # made beforehand
    assert chosen(policy, Viewer(visit=Visit(adult=True))) == IDS
    assert not [one for one in chosen(policy, Viewer(visit=Visit())) if ITEMS[IDS.index(one)].category == "wine"]
    assert chosen(policy, Viewer(visit=Visit("de-CH", adult=True))) == IDS[::2]
    assert chosen(policy, Viewer(visit=Visit(adult=True, consent=False)))[0] == "i-6"
    assert policy.passes(Viewer(visit=Visit()), KEYS, required=True).sum() == 8
    assert not policy_of(banned=["i-1"]).reads_visits


@given(st.lists(st.integers(0, 11), max_size=LAST), st.integers(1, LAST))
@settings(deadline=None)
def test_what_was_among_the_last_impressions_is_in_no_list(last_first: list[int], asked: int) -> None:
    policy = policy_of(filters=[Filter(id="fresh", exclude=f"shown.ago < {asked}")])
    shown = np.zeros(LAST, dtype=np.uint64)
    shown[: len(last_first)] = KEYS[last_first]
    assert policy.reads_shown
    assert policy.chooses
    assert chosen(policy, Viewer(shown=shown)) == [one for n, one in enumerate(IDS) if n not in last_first[:asked]]
    assert chosen(policy) == IDS  # where it is not known what was shown
    tired = policy_of(boosts=[Boost(id="tired", when="shown.times >= 2", by="0.01")])
    often = [one for n, one in enumerate(IDS) if last_first.count(n) >= 2]
    assert chosen(tired, Viewer(shown=shown)) == [one for one in IDS if one not in often] + often


def test_a_change_of_the_catalogue_counts_at_once() -> None:
    policy, columns = Policy(RuleSet(id="shop", filters=[Filter(id="f", only="item.price < 50.0")])), ProductColumns()
    columns.update(ITEMS)
    policy.refresh(columns)
    assert not policy.allowed("home", KEYS[9:10])[0]
    policy.refresh(columns, columns.update([CatalogueItem(item_id="i-9", price=1.0)]))
    assert policy.allowed("home", KEYS).tolist() == [True] * 5 + [False] * 4 + [True] + [False] * 2
    many = [CatalogueItem(item_id=f"n-{n}", price=float(n)) for n in range(5_000)]
    policy.refresh(columns, columns.update(many))
    assert policy.allowed("home", id_keys(["n-49", "n-50", "i-0"])).tolist() == [True, False, True]


def test_required_filters_count_when_others_give_way() -> None:
    soft, hard = Filter(id="s", only="false"), Filter(id="h", exclude='item.category == "wine"', required=True)
    policy = policy_of(filters=[soft, hard])
    assert chosen(policy) == []
    assert policy.passes(Viewer(), KEYS, required=True).sum() == 8
    columns = ProductColumns()
    columns.update(ITEMS)
    assert [(rule, out) for rule, out, _ in policy.emptied(columns)] == [("s", 12), ("h", 4)]


CONDITIONS = [
    "item.price < 60.0",
    'item.brand == "Ember"',
    "item.numbers.margin > 0.4",
    "user.events < 3",
    "user.share < 0.5 && item.price > 30.0",
    'user.id == "u1" || item.category.startsWith("h")',
    "user.id in item.tags",
    "size(user.id) > size(item.brand)",
    "item.numbers[user.id] > 0.1",
    'user.events > 2 ? item.category == "hats" : has(item.numbers.margin)',
    'context.surface == "home"',
    "shown.ago < 3",
    "shown.times > 1 && item.price > 30.0",
]
FACTORS = [
    "shown.ago < 5 ? 0.5 : 1.0",
    "1.5",
    "1.0 + item.numbers.margin",
    "double(user.events)",
    "user.share * item.price",
]
filters = st.builds(
    lambda n, e, out: Filter(id=f"f{n}", **{"exclude" if out else "only": e}),
    st.just(0),
    st.sampled_from(CONDITIONS),
    st.booleans(),
)
boosts = st.builds(
    lambda when, by: Boost(id="b", when=when, by=by), st.sampled_from(CONDITIONS), st.sampled_from(FACTORS)
)


def numbered(rules: list[Any]) -> list[Any]:
    return [msgspec.structs.replace(rule, id=f"{rule.id}{number}") for number, rule in enumerate(rules)]


@given(
    st.lists(filters, max_size=3),
    st.lists(boosts, max_size=3),
    st.none() | st.integers(1, 3),
    st.sampled_from([0.0, 0.4]),
    st.lists(st.integers(0, 6), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_lists_made_together_are_those_made_one_by_one(
    some: list[Filter], more: list[Boost], cap: int | None, diversity: float, events: list[int]
) -> None:
    policy = policy_of(
        filters=numbered(some),
        boosts=numbered(more),
        max_per_brand=cap,
        diversity=diversity,
        pins=[Pin(id="pin", item_id="i-4", position=1)],
    )
    rng = np.random.default_rng(sum(events))
    places = np.stack([rng.permutation(12)[:9] for _ in events])
    scores = np.tile(np.linspace(1.0, 0.0, 9, dtype=np.float32), (len(events), 1))
    vectors = rng.normal(size=(12, 4)).astype(np.float32)[places]
    users = [f"u{number}" for number in range(len(events))]
    held = [frozenset({int(KEYS[4])}) if number % 2 else frozenset[int]() for number in events]
    shown = np.zeros((len(events), LAST), dtype=np.uint64)
    shown[:, :6] = KEYS[rng.integers(0, 12, (len(events), 6))]
    viewers = Viewers(users, np.array(events), shown=shown)
    together = policy.choose_all(viewers, KEYS[places], scores, 5, vectors, held)
    for user, found in enumerate(together):
        viewer = Viewer(user_id=users[user], events=events[user], shown=shown[user])
        alone = policy.choose(viewer, KEYS[places[user]], scores[user], 5, vectors[user], held[user])
        assert [(one.candidate, one.rule, one.item_id) for one in found] == [
            (one.candidate, one.rule, one.item_id) for one in alone
        ]
        assert np.allclose([one.score for one in found], [one.score for one in alone])


@given(
    st.lists(filters, max_size=3),
    st.lists(boosts, max_size=3),
    st.lists(st.tuples(st.integers(0, 11), st.floats(0, 200), st.booleans()), max_size=6),
)
@settings(deadline=None, max_examples=60)
def test_changes_one_by_one_leave_what_reading_everything_anew_finds(
    some: list[Filter], more: list[Boost], changes: list[tuple[int, float, bool]]
) -> None:
    rules = RuleSet(id="shop", filters=numbered(some), boosts=numbered(more), banned=["i-2"])
    policy, columns = Policy(rules), ProductColumns()
    columns.update(ITEMS)
    policy.refresh(columns)
    for number, price, bare in changes:
        item = msgspec.structs.replace(ITEMS[number], price=price, numbers={} if bare else {"margin": 0.5})
        policy.refresh(columns, columns.update([item]))
    anew = Policy(rules)
    anew.refresh(columns)
    for viewer in (Viewer(user_id="u1", events=1), Viewer("cart", "u2", 5)):
        assert (policy.passes(viewer, KEYS) == anew.passes(viewer, KEYS)).all()
        assert np.array_equal(policy.factors(viewer, KEYS)[0], anew.factors(viewer, KEYS)[0], equal_nan=True)
        assert (policy.factors(viewer, KEYS)[1] == anew.factors(viewer, KEYS)[1]).all()


def test_every_mistake_is_named_with_its_place() -> None:
    rules = RuleSet(
        id="shop",
        filters=[Filter(id="a", only="item.prise < 2.0"), Filter(id="b", exclude="item.price")],
        boosts=[Boost(id="a", by="2")],
    )
    with pytest.raises(RulesError) as caught:
        Policy(rules)
    text = str(caught.value)
    assert "filters[0] a: only, line 1, column 5: undeclared reference" in text
    assert "  item.prise < 2.0\n      ^" in text
    assert "filters[1] b: exclude" in text
    assert "boosts[0] a: by" in text
    assert "two rules have this id" in text


def test_a_filter_has_one_direction() -> None:
    for wrong in ({}, {"only": "true", "exclude": "true"}):
        message = {"id": "shop", "filters": [{"id": "f", **wrong}]}
        with pytest.raises(msgspec.ValidationError, match="either `only` or `exclude`"):
            decode_rules(msgspec.json.encode(message))
    rules = RuleSet(id="shop", pins=[Pin(id="p", item_id="i")], diversity=0.5)
    assert decode_rules(encode_rules(rules)) == rules
