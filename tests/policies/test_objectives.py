"""Objectives beside what users like: by rank, whatever the unit, as a share of the score."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_stream.catalogue.columns import ProductColumns
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.rules import Boost, Filter, Objective, RuleSet, decode_rules
from mmrec_stream.policies.policy import Policy, RulesError, Viewer

COUNT = 10
IDS = [f"i-{n}" for n in range(COUNT)]
KEYS = id_keys(IDS)
EQUAL = np.full(COUNT, 0.5, dtype=np.float32)

values = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=COUNT, max_size=COUNT)
scores = st.lists(st.just(0.0) | st.floats(0.0078125, 100.0, width=32), min_size=COUNT, max_size=COUNT)


def items(margins: list[float | None]) -> list[CatalogueItem]:
    numbers = [{} if margin is None else {"margin": margin} for margin in margins]
    return [CatalogueItem(item_id=one, numbers=given) for one, given in zip(IDS, numbers, strict=True)]


def policy_of(margins: list[float | None], weight: float = 0.3, **more: Any) -> Policy:
    objective = Objective(id="margin", of="item.numbers.margin", weight=weight, **more)
    policy, columns = Policy(RuleSet(id="shop", objectives=[objective])), ProductColumns()
    columns.update(items(margins))
    policy.refresh(columns)
    return policy


def chosen(policy: Policy, worth: np.ndarray[Any, Any], surface: str = "home") -> list[tuple[str, float]]:
    return [(IDS[one.candidate], one.score) for one in policy.choose(Viewer(surface), KEYS, worth, COUNT)]


def test_of_what_is_liked_alike_the_better_comes_first_and_the_unknown_last() -> None:
    margins = [3.0, None, 1.0, 10.0, None, 2.0, 9.0, 4.0, 5.0, 6.0]
    found = [one for one, _ in chosen(policy_of(margins), EQUAL)]
    assert found[:8] == ["i-3", "i-6", "i-9", "i-8", "i-7", "i-0", "i-5", "i-2"]
    assert set(found[8:]) == {"i-1", "i-4"}


def test_the_share_of_the_score_is_what_is_said() -> None:
    """Of ten products the best has rank .95: nine and a half of ten are below it."""
    margins: list[float | None] = [float(n) for n in range(COUNT)]
    worth = np.linspace(1.0, 0.1, COUNT).astype(np.float32)
    assert dict(chosen(policy_of(margins, 0.4), worth)) == pytest.approx(
        {f"i-{n}": 0.6 * (1 - n / 10) + 0.4 * (n + 0.5) / 10 for n in range(COUNT)}, abs=1e-6
    )


@given(values, scores, st.floats(0.01, 0.99))
@settings(deadline=None)
def test_what_is_no_candidate_stays_none_and_scores_keep_their_scale(
    margins: list[float | None], given_scores: list[float], weight: float
) -> None:
    worth = np.array(given_scores, dtype=np.float32)
    found = dict(chosen(policy_of(margins, weight), worth))
    assert set(found) <= {IDS[place] for place in np.flatnonzero(worth > 0)}
    assert all(0 <= score <= worth.max() * (1 + 1e-5) for score in found.values())


@given(values, scores, st.sampled_from([1e-3, 7.0, 1e4]))
@settings(deadline=None)
def test_neither_the_unit_of_the_attribute_nor_the_scale_of_scores_matters(
    margins: list[float | None], given_scores: list[float], scale: float
) -> None:
    worth = np.array(given_scores, dtype=np.float32)
    plain = dict(chosen(policy_of(margins), worth))
    ranks = np.unique([one for one in margins if one is not None])
    by_rank = [None if one is None else float(np.searchsorted(ranks, one)) for one in margins]
    assert dict(chosen(policy_of(by_rank), worth)) == pytest.approx(plain)
    scaled = dict(chosen(policy_of(margins), (worth * scale).astype(np.float32)))
    assert {one: score / scale for one, score in scaled.items()} == pytest.approx(plain, rel=1e-4, abs=1e-30)


@given(values, scores, st.integers(0, COUNT - 1), st.floats(0, 1e6))
@settings(deadline=None)
def test_more_of_it_never_costs_a_place(
    margins: list[float | None], given_scores: list[float], which: int, more: float
) -> None:
    worth = np.array(given_scores, dtype=np.float32)
    if margins[which] is None or worth[which] <= 0:
        return
    better = list(margins)
    better[which] = (margins[which] or 0.0) + more

    def behind(given_margins: list[float | None]) -> set[str]:
        found = chosen(policy_of(given_margins), worth)
        mine = dict(found).get(IDS[which], 0.0)
        return {one for one, score in found if score < mine * (1 - 1e-5)}

    assert behind(margins) <= behind(better) | {IDS[which]}


def test_it_counts_on_its_surfaces_and_before_boosts() -> None:
    margins: list[float | None] = [float(n) for n in range(COUNT)]
    policy = policy_of(margins, surfaces=["cart"])
    assert [one for one, _ in chosen(policy, EQUAL)] == IDS
    assert [one for one, _ in chosen(policy, EQUAL, "cart")] == IDS[::-1]
    objective = Objective(id="margin", of="item.numbers.margin", weight=0.3)
    boosted = Policy(
        RuleSet(id="shop", objectives=[objective], boosts=[Boost(id="b", when='item.id == "i-0"', by="9.0")])
    )
    columns = ProductColumns()
    columns.update(items(margins))
    boosted.refresh(columns)
    first, score = chosen(boosted, EQUAL)[0]
    assert first == "i-0"
    assert score == pytest.approx(9 * (0.7 * 0.5 + 0.5 * 0.3 * 0.05))


def test_what_comes_later_has_its_rank_among_the_others() -> None:
    policy, columns = (
        Policy(RuleSet(id="shop", objectives=[Objective(id="m", of="item.numbers.margin", weight=0.5)])),
        ProductColumns(),
    )
    policy.refresh(columns)
    for item in items([float(n) for n in range(COUNT)]):
        policy.refresh(columns, columns.update([item]))
    assert [one for one, _ in chosen(policy, EQUAL)] == IDS[::-1]
    policy.refresh(columns, columns.update([CatalogueItem(item_id="i-0", numbers={"margin": 99.0})]))
    assert chosen(policy, EQUAL)[0][0] == "i-0"
    assert policy.objectives.found(columns) == [("m", COUNT, 1.0, 5.5, 99.0)]


def test_mistakes_are_told() -> None:
    with pytest.raises(RulesError, match=r"objectives\[0\] m: of.*: it may read the product alone"):
        Policy(RuleSet(id="s", objectives=[Objective(id="m", of="double(user.events)", weight=0.5)]))
    with pytest.raises(RulesError, match="two rules have this id"):
        Policy(
            RuleSet(
                id="s",
                filters=[Filter(id="m", only="true")],
                objectives=[Objective(id="m", of="item.price", weight=0.5)],
            )
        )
    two = [{"id": name, "of": "item.price", "weight": 0.5} for name in ("a", "b")]
    with pytest.raises(msgspec.ValidationError, match="weights come to 1: less than 1"):
        decode_rules(msgspec.json.encode({"id": "s", "objectives": two}))
