"""Re-ranking: what is known of candidates, the order made of it, and a release that has a re-ranker."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmrec_stream.errors import UserError
from mmrec_stream.policies.policy import POOL
from mmrec_stream.ranking.reranking import CANDIDATES, NAMES, Counts, candidate_features, reordered
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import Features, Lists, blank_features
from mmrec_stream.releases.folder import COUNTED
from tests.tiny import reranked_release, tiny_release

ITEMS, DIM, TRAINED = 30, 4, 25

COUNTS = [
    # of, item, users, after, before, next
    (0, 0, 9, 0, 0, 0),
    (0, 1, 4, 2.5, 0.5, 2),
    (0, 2, 1, 0, 1, 0),
    (1, 1, 4, 0, 0, 0),
    (1, 0, 4, 0.5, 2.5, 0),
    (2, 2, 16, 0, 0, 0),
]


def counts() -> Counts:
    return Counts(np.array(COUNTS, dtype=COUNTED), TRAINED)


def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)


def lists_of(rows: list[list[int]], seed: int = 0) -> Lists:
    """The mix of random halves, best first, at α = .5; the last place of each list is empty."""
    random, shape = np.random.default_rng(seed), np.shape(rows)
    p_user, p_item = random.dirichlet(np.ones(shape[1]), (2, shape[0])).astype(np.float32)
    p_item[:, 1::3] = 0
    scores = (p_user + p_item) / 2
    order = np.argsort(-scores, axis=1)
    scores, p_user, p_item = (np.take_along_axis(array, order, axis=1) for array in (scores, p_user, p_item))
    scores[:, -1] = -1e9
    return Lists(np.array(rows), scores, p_user, p_item, np.full(shape[0], 0.5, dtype=np.float32))


def history_of(*rows: int) -> Features:
    return replace(blank_features(1, len(rows)), history_rows=np.array([rows]))


def named(found: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return found[0, :, NAMES.index(name)]


def test_features_say_what_was_counted_of_each_event_and_candidate() -> None:
    lists = lists_of([[1, 2, 5, 28, 7]])
    found = candidate_features(history_of(3, 0), lists, vectors(), counts())
    assert named(found, "users' cosine, event 1").tolist() == pytest.approx([4 / (6 + 5), 1 / (12 + 5), 0, 0, 0])
    assert named(found, "ln after, event 1").tolist() == pytest.approx([np.log1p(2.5), 0, 0, 0, 0])
    assert named(found, "ln next, event 1").tolist() == pytest.approx([np.log1p(2), 0, 0, 0, 0])
    assert named(found, "ln before, event 1").tolist() == pytest.approx([np.log1p(0.5), np.log1p(1), 0, 0, 0])
    assert named(found, "ln likings").tolist() == pytest.approx([np.log1p(4), np.log1p(16), 0, 0, 0])
    assert named(found, "ln likings of newest").tolist()[:4] == pytest.approx([np.log1p(9)] * 4)
    assert named(found, "associated events, all").tolist() == [1, 1, 0, 0, 0]
    assert named(found, "followed events, all").tolist() == [1, 0, 0, 0, 0]
    assert not found[0, 4].any()  # an empty place
    unit = vectors() / np.linalg.norm(vectors(), axis=1, keepdims=True)
    for event, row in ((1, 0), (2, 3)):
        assert named(found, f"cosine, event {event}")[:4] == pytest.approx(unit[[1, 2, 5, 28]] @ unit[row], abs=1e-6)
    assert named(found, "cosine, largest")[:4] == pytest.approx((unit[[1, 2, 5, 28]] @ unit[[0, 3]].T).max(axis=1))


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(2, 20), st.integers(1, 4))
def test_features_of_a_user_are_the_same_alone_and_whatever_the_order_of_candidates(
    seed: int, length: int, candidates: int, users: int
) -> None:
    """And finite, also for items that training did not know and histories shorter or longer than what is compared."""
    random = np.random.default_rng(seed)
    rows = np.array([random.permutation(ITEMS)[:candidates] for _ in range(users)])
    lists = lists_of(rows.tolist(), seed)
    features = replace(
        blank_features(users, length),
        history_rows=random.integers(0, ITEMS, (users, length)),
        lengths=random.integers(1, length + 1, users),
    )
    together = candidate_features(features, lists, vectors(), counts())
    assert np.isfinite(together).all()
    for user in range(users):
        own = slice(user, user + 1)
        of_one = Lists(*(getattr(lists, name)[own] for name in ("rows", "scores", "p_user", "p_item", "alpha")))
        alone = candidate_features(features.part(own), of_one, vectors(), counts())
        assert np.array_equal(alone[0], together[user])
    # What is known of an item has nothing to do with its place, but for the places themselves.
    other = np.roll(lists.rows[:, :-1], 1, axis=1)
    moved = replace(lists, rows=np.concatenate([other, lists.rows[:, -1:]], axis=1))
    of_item = np.arange(NAMES.index("ln events"), len(NAMES))
    there = candidate_features(features, moved, vectors(), counts())[:, :-1, of_item]
    assert np.allclose(there, np.roll(together[:, :-1, of_item], 1, axis=1), atol=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(0.1, 100))
def test_a_new_order_keeps_items_halves_and_what_they_have_together(seed: int, head: int, spread: float) -> None:
    lists = lists_of([list(range(12)), list(range(12, 24))], seed)
    logits = np.random.default_rng(seed).normal(0, spread, (2, head)).astype(np.float32)
    found = reordered(lists, logits)
    assert (np.diff(found.scores, axis=1) <= 1e-7).all()
    assert np.array_equal(found.scores > 0, lists.scores > 0)
    for user in range(2):
        before = dict(
            zip(lists.rows[user].tolist(), zip(lists.p_user[user], lists.p_item[user], strict=True), strict=True)
        )
        after = dict(
            zip(found.rows[user].tolist(), zip(found.p_user[user], found.p_item[user], strict=True), strict=True)
        )
        assert before == after
        some = min(head, 11)
        assert found.scores[user, :some].sum() == pytest.approx(lists.scores[user, :some].sum(), rel=1e-4)
        assert set(found.rows[user, :some]) == set(lists.rows[user, :some])
        best = logits[user, :some].argmax()
        assert found.scores[user, 0] == found.scores[user][found.rows[user] == lists.rows[user, best]][0]


def crowd(scorer: Scorer, users: int) -> Features:
    random = np.random.default_rng(1)
    features = blank_features(users, 12)
    features.history_rows[:] = random.integers(0, len(scorer.table), features.history_rows.shape)
    features.lengths[:] = random.integers(1, 13, users)
    return features


def test_a_release_with_a_re_ranker_orders_the_mixs_own_candidates() -> None:
    scorer = Scorer.load(reranked_release(), provider="cpu", threads=1)
    features, items = crowd(scorer, 40), len(scorer.table)
    assert items < CANDIDATES
    found, mixed = scorer.run(features, items), scorer.without_reranker().run(features, items)
    assert (found.rows[:, 0] != mixed.rows[:, 0]).any()
    assert np.array_equal(np.sort(found.rows, axis=1), np.sort(mixed.rows, axis=1))
    assert np.allclose(found.scores.sum(axis=1), mixed.scores.sum(axis=1), rtol=1e-3)
    short = scorer.run(features, 5)
    assert np.array_equal(short.rows, found.rows[:, :5])
    assert np.allclose(short.scores, found.scores[:, :5])


def test_halves_and_releases_without_one_are_as_they_were() -> None:
    scorer, without = (Scorer.load(path, provider="cpu", threads=1) for path in (reranked_release(), tiny_release()))
    features = crowd(scorer, 20)
    for alpha in (0.0, 1.0):
        assert np.array_equal(
            scorer.at_alpha(alpha).run(features, 10).rows, without.at_alpha(alpha).run(features, 10).rows
        )
    assert np.array_equal(scorer.without_reranker().run(features, 10).rows, without.run(features, 10).rows)


@pytest.mark.parametrize("way", ["whole", "exact"])
def test_what_follows_the_candidates_stays_behind_them(way: Literal["whole", "exact"]) -> None:
    """Rules choose from more than are re-ranked, and a list's first places do not hang on how many are asked for."""
    scorer = Scorer.load(reranked_release(), provider="cpu", threads=1)
    scorer.retrieve(way)
    random = np.random.default_rng(3)
    scorer.table.add([f"more-{row}" for row in range(300)], random.normal(size=(300, 16)).astype(np.float32))
    features = crowd(scorer, 10)
    many, mixed = scorer.run(features, POOL), scorer.without_reranker().run(features, POOL)
    assert (many.rows != mixed.rows).any()
    assert np.array_equal(many.rows[:, CANDIDATES:], mixed.rows[:, CANDIDATES:])
    assert (np.diff(many.scores, axis=1) <= 1e-9).all()
    assert (many.scores > 0).all()
    if way == "whole":
        assert np.array_equal(scorer.run(features, 20).rows, many.rows[:, :20])


def test_a_re_ranker_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmrec_stream.ranking.reranking.Reranker.logits", lambda _, features: features[:, :, 0] + 1)
    with pytest.raises(UserError, match="logits of candidates"):
        Scorer.load(reranked_release(), provider="cpu", threads=1)
