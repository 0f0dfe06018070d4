import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmrec_stream.ranking.exact import CHUNK, GRAPH, ExactIndex
from model_export.retrieval_graph import retrieval_graph

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def table(items: int, *, d: int = 16, seed: int = 0) -> tuple[F32, NDArray[np.bool_]]:
    """Vectors whose lengths and dimensions differ, as a trained table's do, a tenth of them unavailable."""
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((items, d), dtype=np.float32)
    vectors *= np.exp(0.4 * random.standard_normal((items, 1))) * np.linspace(0.2, 2.0, d)
    return np.ascontiguousarray(vectors, dtype=np.float32), random.random(items) < 0.9


def queries(users: int, *, d: int = 16, seed: int = 1) -> F32:
    return np.random.default_rng(seed).standard_normal((users, d), dtype=np.float32)


def by_numpy(vectors: F32, available: NDArray[np.bool_], users: F32, k: int, excluded: Ints | None = None) -> F32:
    """The k best scores of each user, from the full matrix product."""
    scores = users @ vectors.T
    scores[:, ~available] = -np.inf
    if excluded is not None:
        for user, rows in enumerate(excluded):
            scores[user, rows[rows >= 0]] = -np.inf
    return -np.sort(-scores, axis=1)[:, :k]


@pytest.mark.parametrize("items", [1, 15, 300, CHUNK, CHUNK + 1, 3 * CHUNK - 7])
def test_finds_what_the_whole_product_finds(items: int) -> None:
    vectors, available = table(items)
    users = queries(5)
    k = min(50, items)
    rows, scores = ExactIndex(vectors, available).search(users, k)
    np.testing.assert_allclose(scores, by_numpy(vectors, available, users, k), rtol=1e-4, atol=1e-5)
    found = np.isfinite(scores)
    assert available[rows[found]].all()
    np.testing.assert_allclose(
        np.einsum("bkd,bd->bk", vectors[rows], users)[found], scores[found], rtol=1e-4, atol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(
    items=st.integers(1, 2000),
    users=st.integers(1, 4),
    k=st.integers(1, 60),
    width=st.integers(0, 40),
    seed=st.integers(0, 2**16),
)
def test_excluded_rows_never_come_and_displace_nobody_else(
    items: int, users: int, k: int, width: int, seed: int
) -> None:
    vectors, available = table(items, seed=seed)
    k = min(k, items)
    asked = queries(users, seed=seed + 1)
    best = np.argsort(-(asked @ vectors.T), axis=1)[:, :width].astype(np.int64)
    excluded = np.full((users, width), -1, dtype=np.int64)
    excluded[:, : best.shape[1]] = best
    rows, scores = ExactIndex(vectors, available).search(asked, k, excluded)
    np.testing.assert_allclose(scores, by_numpy(vectors, available, asked, k, excluded), rtol=1e-4, atol=1e-5)
    for user in range(users):
        named = rows[user][np.isfinite(scores[user])]
        assert not set(named.tolist()) & set(excluded[user].tolist())
        assert len(set(named.tolist())) == len(named)


def test_recall_at_a_hundred_thousand_items() -> None:
    vectors, available = table(100_000, d=64)
    users = queries(32, d=64)
    _, scores = ExactIndex(vectors, available).search(users, 100)
    worst = by_numpy(vectors, available, users, 100)[:, -1:]
    assert (scores >= worst - 1e-4).mean() >= 0.999


def test_changed_and_added_items_are_found_at_once() -> None:
    vectors, available = table(1_000)
    index = ExactIndex(vectors[:900], available[:900])
    users = queries(3)
    available[10] = True
    vectors[10] = vectors.max() * users[0] / np.abs(users[0]).max()
    index.update(vectors[:900], available[:900], np.array([10]))
    assert index.search(users[:1], 1)[0] == 10
    index.update(vectors, available, np.arange(900, 1_000))
    _, scores = index.search(users, 40)
    np.testing.assert_allclose(scores, by_numpy(vectors, available, users, 40), rtol=1e-4, atol=1e-5)


def test_a_vector_beyond_the_range_so_far_is_kept_whole() -> None:
    vectors, available = table(5_000)
    index = ExactIndex(vectors, available)
    users = queries(3)
    available[7] = True
    vectors[7] = 40 * users[0]
    index.update(vectors, available, np.array([7]))
    rows, scores = index.search(users, 30)
    assert rows[0, 0] == 7
    np.testing.assert_allclose(scores, by_numpy(vectors, available, users, 30), rtol=1e-4, atol=1e-4)


def test_an_item_that_sold_out_goes_and_comes_back() -> None:
    vectors, available = table(5_000)
    index = ExactIndex(vectors, available)
    users = queries(1)
    best = index.search(users, 1)[0][0]
    available[best] = False
    index.update(vectors, available, best)
    assert index.search(users, 1)[0][0, 0] != best[0]
    available[best] = True
    index.update(vectors, available, best)
    assert index.search(users, 1)[0][0, 0] == best[0]


def test_the_packaged_graph_is_what_its_source_builds() -> None:
    assert GRAPH.read_bytes() == retrieval_graph().SerializeToString(deterministic=True)
