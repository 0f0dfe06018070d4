"""Ranking in two stages gives the lists that ranking the whole catalogue gives."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec_stream.errors import UserError
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.retrieval import Method, Retrieval
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import Lists
from mmrec_stream.ranking.users import Users
from tests.ranking.test_scorer import users
from tests.tiny import tiny_release

ITEMS, D, PLACES = 5_000, 16, 20


def method(name: Method) -> Method:
    if name == "approximate":
        pytest.importorskip("faiss", reason="the approximate index needs the extra ann")
    return name


def table(items: int = ITEMS) -> ItemTable:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((items, D), dtype=np.float32)
    return ItemTable(
        [f"i{row}" for row in range(items)],
        vectors,
        np.full((items, 1), -1, dtype=np.int32),
        np.zeros((items, 1), dtype=np.float32),
    )


def asked(count: int, items: int = ITEMS, alpha: float = 0.5) -> tuple[Users, NDArray[np.int64]]:
    """Users whose associations have repeats and gaps, and rows that must not be listed though they would be."""
    random = np.random.default_rng(1)
    queries = random.standard_normal((count, D), dtype=np.float32)
    associated = random.integers(0, items, (count, 30))
    associated[:, 10:20] = associated[:, :10]
    weights = random.random((count, 30), dtype=np.float32) / np.float32(30)
    weights[:, 25:] = 0
    excluded = np.concatenate([associated[:, :1], np.full((count, 1), -1)], axis=1)
    return Users(queries, associated, weights, np.full(count, alpha, dtype=np.float32)), excluded


def whole(
    items: ItemTable, some: Users, excluded: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """p, p_user and p_item of every item by their definition; p is 0 of what must not be listed."""
    queries, associated, weights, alpha = some
    logits = (queries @ items.vectors.T).astype(np.float64)
    logits[:, ~items.available] = -np.inf
    p_user = np.exp(logits - logits.max(axis=1, keepdims=True))
    p_user /= p_user.sum(axis=1, keepdims=True)
    p_item = np.zeros_like(p_user)
    for user in range(len(queries)):
        np.add.at(p_item[user], associated[user], weights[user])
    p = alpha[:, None] * p_user + (1 - alpha[:, None]) * p_item
    p[:, ~items.available] = 0
    for user, rows in enumerate(excluded):
        p[user, rows[rows >= 0]] = 0
    return p, p_user, p_item


@pytest.mark.parametrize("name", ["exact", "approximate"])
@pytest.mark.parametrize("alpha", [0.01, 0.5, 0.99])
def test_the_best_of_the_candidates_are_the_best_of_all(name: Method, alpha: float) -> None:
    items, (some, excluded) = table(), asked(50, alpha=alpha)
    retrieval = Retrieval(items, method(name), threads=1, users=some.user_vectors, recall=1.0)
    lists = retrieval.lists(some, excluded, PLACES)
    p, p_user, p_item = whole(items, some, excluded)
    at = np.arange(50)[:, None]
    # The sum of p_user is estimated, by one factor for all items of a user.
    factor = lists.p_user / p_user[at, lists.rows]
    assert np.allclose(factor, factor[:, :1], rtol=1e-3)
    assert np.median(np.abs(factor - 1)) < 0.05
    assert np.allclose(lists.p_item, p_item[at, lists.rows], rtol=1e-4, atol=1e-8)
    assert np.allclose(lists.scores, alpha * lists.p_user + (1 - alpha) * lists.p_item, rtol=1e-4)
    best = np.argsort(-p, axis=1)[:, :PLACES]
    shared = [len(np.intersect1d(ours, theirs)) / PLACES for ours, theirs in zip(lists.rows, best, strict=True)]
    assert np.mean(shared) > 0.98
    assert (np.diff(lists.scores, axis=1) <= 0).all()


@pytest.mark.parametrize("name", ["exact", "approximate"])
def test_changes_of_the_catalogue_are_followed(name: Method) -> None:
    items, (some, _) = table(), asked(4, alpha=1.0)
    some = some._replace(association_weights=np.zeros_like(some.association_weights))
    retrieval = Retrieval(items, method(name), threads=1, users=some.user_vectors, recall=1.0)
    nothing = np.empty((4, 0), dtype=np.int64)
    best = retrieval.lists(some, nothing, 3).rows[:, 0]
    items.set_available(best, False)
    assert not np.isin(retrieval.lists(some, nothing, 3).rows, best).any()
    added = items.add(["new"], 3 * some.user_vectors[:1])
    assert retrieval.lists(some, nothing, 3).rows[0, 0] == added[0]
    items.set_available(best, True)
    assert retrieval.lists(some, nothing, 3).rows[1, 0] == best[1]


def test_a_list_is_shorter_where_nothing_is_left() -> None:
    items, (some, _) = table(6), asked(2, items=6)
    items.set_available(np.array([0, 1]), False)
    some.association_weights[np.isin(some.association_rows, [0, 1])] = 0
    retrieval = Retrieval(items, "exact", threads=1, users=some.user_vectors)
    lists = retrieval.lists(some, np.array([[2], [3]]), 5)
    assert [set(rows[scores > 0]) for rows, scores in zip(lists.rows, lists.scores, strict=True)] == [
        {3, 4, 5},
        {2, 4, 5},
    ]


def same(ours: Lists, theirs: Lists) -> bool:
    return bool(
        np.allclose(ours.scores, theirs.scores, rtol=1e-3, atol=1e-6)
        and np.allclose(ours.p_user, theirs.p_user, rtol=1e-3, atol=1e-6)
        and np.array_equal(ours.alpha, theirs.alpha)
    )


@pytest.mark.parametrize("name", ["exact", "approximate"])
def test_a_release_ranks_in_two_stages_as_it_does_in_one(name: Method) -> None:
    scorer = Scorer.load(tiny_release(), provider="cpu", threads=1)
    features = users(70)
    expected = scorer.run(features, 10)
    scorer.retrieve(method(name))
    assert same(scorer.run(features, 10), expected)
    scorer.retrieve("auto")
    assert same(scorer.run(features, 10), expected)


def test_a_user_encoder_that_gives_other_results_is_refused() -> None:
    scorer = Scorer.load(tiny_release(), provider="cpu", threads=1)
    golden = scorer.release.golden
    golden["user_encoder/out/user_vectors"] = np.zeros_like(golden["user_encoder/out/user_vectors"])
    with pytest.raises(UserError, match="MMREC_RETRIEVAL=whole"):
        scorer.retrieve("exact")
