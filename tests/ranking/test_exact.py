from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mmrec_stream.ranking.exact import CHUNK, GRAPH, SLICE, ExactIndex
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


def test_nothing_is_missed_at_a_hundred_thousand_items() -> None:
    vectors, available = table(100_000, d=64)
    users = queries(32, d=64)
    rows, scores = ExactIndex(vectors, available).search(users, 100)
    nothing_better_is_left(vectors, available, users, rows, scores)


def nothing_better_is_left(
    vectors: F32, available: NDArray[np.bool_], users: F32, rows: Ints, scores: F32, excluded: Ints | None = None
) -> None:
    """Scores are right, and nothing outside is above the last, both to what float32 can differ by when it sums."""
    allowed = np.tile(available, (len(users), 1))
    if excluded is not None:
        for user, barred in enumerate(excluded):
            allowed[user, barred[barred >= 0]] = False
    wide_users, wide = users.astype(np.float64), vectors.astype(np.float64)
    exact = wide_users @ wide.T
    unsure = vectors.shape[1] * 2.0**-24 * 1.01 * (np.abs(wide_users) @ np.abs(wide).T)
    for user in range(len(users)):
        found = np.isfinite(scores[user])
        named = rows[user, found]
        assert len(named) == min(len(scores[user]), allowed[user].sum())
        assert len(set(named.tolist())) == len(named)
        assert allowed[user, named].all()
        assert (np.diff(scores[user, found]) <= 0).all()
        assert (np.abs(scores[user, found] - exact[user, named]) <= unsure[user, named]).all()
        outside = allowed[user].copy()
        outside[named] = False
        if outside.any():
            # In float32, summed in whatever order, it would be at least `exact - unsure`.
            assert (exact[user, outside] - unsure[user, outside] <= scores[user, -1]).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_the_largest_codes_there_are_keep_their_order(batch: int, sign: int) -> None:
    """All products are nearly as large as can be, where with eight bits on both sides pairs are cut off in 16 bits.

    The scores are whole numbers that float32 adds up exactly, so that they have to be the same ones.
    """
    items, d = 3 * CHUNK, 64
    vectors = np.full((items, d), 127 * sign, dtype=np.float32)
    vectors[:, :16] -= sign * np.random.default_rng(0).integers(0, 30, (items, 16))
    users = np.ones((batch, d), dtype=np.float32)
    users[1::2, d // 2 :] = -1
    available = np.ones(items, dtype=np.bool_)
    rows, scores = ExactIndex(vectors, available).search(users, 50)
    np.testing.assert_array_equal(scores, by_numpy(vectors, available, users, 50))
    np.testing.assert_array_equal(scores, np.einsum("bkd,bd->bk", vectors[rows], users))


KINDS: dict[str, Callable[[np.random.Generator, int, int], NDArray[Any]]] = {
    "whole numbers with ties": lambda random, n, d: random.integers(-2, 3, (n, d)),
    "only the largest codes": lambda random, n, d: random.choice([-127, 127], (n, d)),
    "nearly all alike": lambda random, n, d: random.standard_normal(d) + 1e-4 * random.standard_normal((n, d)),
    "few different": lambda random, n, d: random.standard_normal((5, d))[random.integers(0, 5, n)],
    "halfway between codes": lambda random, n, d: random.integers(-126, 127, (n, d)) + 0.5,
    "one large value": lambda random, n, d: np.where(np.arange(d) == 0, 127, random.uniform(-0.5, 0.5, (n, d))),
    "dimensions of any size": lambda random, n, d: random.standard_normal((n, d)) * 10 ** random.uniform(-12, 12, d),
    "items of any size": lambda random, n, d: random.standard_normal((n, d)) * 10 ** random.uniform(-9, 9, (n, 1)),
    "mostly zeros": lambda random, n, d: random.standard_normal((n, d)) * (random.random((n, d)) < 0.1),
    "one sign": lambda random, n, d: -1 - random.random((n, d)),
}


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    users_kind=st.sampled_from(sorted(KINDS)),
    items=st.integers(1, 12_000),
    d=st.sampled_from([1, 3, 16, 64, 130, 300]),
    k=st.integers(1, 60),
    width=st.integers(0, 12),
    live=st.sampled_from([1.0, 0.7, 0.02]),
    seed=st.integers(0, 2**16),
)
def test_whatever_the_vectors_are_nothing_better_is_left(
    kind: str, users_kind: str, items: int, d: int, k: int, width: int, live: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = np.ascontiguousarray(KINDS[kind](random, items, d), dtype=np.float32)
    users = np.ascontiguousarray(KINDS[users_kind](random, 3, d), dtype=np.float32)
    users[2] = 0
    # Whole groups without anything to be had, too.
    available = (random.random(items) < live) & (random.random(items // 64 + 1) < live).repeat(64)[:items]
    k = min(k, items)
    excluded = random.integers(-1, items, (3, width))
    index = ExactIndex(vectors, available)
    rows, scores = index.search(users, k, excluded)
    nothing_better_is_left(vectors, available, users, rows, scores, excluded)
    changed = random.integers(0, items, 40)
    vectors[changed] = vectors[random.permutation(changed)] * random.choice([1, -1, 0.5, 1.5], (40, 1))
    available[changed] = random.random(40) < 0.5
    index.update(vectors, available, changed)
    rows, scores = index.search(users, k, excluded)
    nothing_better_is_left(vectors, available, users, rows, scores, excluded)


def test_more_near_ties_than_are_looked_into_are_all_scored() -> None:
    """Differences far below a code's step, in more groups than are opened; the other users' lists stay as they are."""
    items = SLICE + 3_000
    vectors, available = table(items, d=8)
    alike = np.random.default_rng(3).permutation(items)[: items // 2]
    vectors[alike] = 4 + 1e-5 * np.random.default_rng(4).standard_normal((len(alike), 8))
    users = queries(4, d=8)
    users[1], users[3] = 1, np.linspace(1, 2, 8)
    rows, scores = ExactIndex(vectors, available).search(users, 20)
    nothing_better_is_left(vectors, available, users, rows, scores)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    users_kind=st.sampled_from(sorted(KINDS)),
    d=st.sampled_from([1, 2, 16, 64, 119, 120, 121, 257, 600]),
    seed=st.integers(0, 2**16),
)
def test_codes_cannot_saturate_and_their_products_bound_the_scores(
    kind: str, users_kind: str, d: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = np.ascontiguousarray(KINDS[kind](random, 512, d), dtype=np.float32)
    users = np.ascontiguousarray(KINDS[users_kind](random, 4, d), dtype=np.float32)
    inputs = ExactIndex(vectors, np.ones(512, dtype=np.bool_))._table._asdict()
    asked = {"queries": users, "k": np.array([5]), "excluded": np.empty((4, 0), dtype=np.int64)}
    codes, bounds, step = with_insides().run(["codes", "group_bounds", "user_step"], asked | inputs)
    scan = inputs["scan"][0].astype(np.int64)
    # Two neighbouring products of an unsigned and a signed byte fit 16 bits, whichever two are neighbours.
    assert 2 * int(codes.max()) * np.abs(scan).max() <= 32_767
    assert codes.min() >= 1
    products = (codes.astype(np.int64) - 64) @ scan
    np.testing.assert_array_equal(bounds[:, :32], products.reshape(4, 16, 256).max(axis=1)[:, :32])
    wide_users, wide = users.astype(np.float64), vectors.astype(np.float64)
    most = wide_users @ wide.T + d * 2.0**-24 * (np.abs(wide_users) @ np.abs(wide).T)
    assert (most.reshape(4, 32, 16).max(axis=2) <= bounds[:, :32] * step).all()


@cache
def with_insides() -> ort.InferenceSession:
    """The graph with what is inside as outputs."""
    model = retrieval_graph()
    for name, kind in (
        ("codes", TensorProto.UINT8),
        ("group_bounds", TensorProto.INT32),
        ("user_step", TensorProto.DOUBLE),
    ):
        model.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


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
