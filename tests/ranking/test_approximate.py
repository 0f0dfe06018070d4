import numpy as np
import pytest

from mmrec_stream.ranking.approximate import ApproximateIndex
from mmrec_stream.ranking.exact import ExactIndex
from tests.ranking.test_exact import queries, table

pytest.importorskip("faiss", reason="the approximate index needs faiss-cpu (extra `ann`)")


def test_reaches_the_recall_it_states_on_other_users() -> None:
    vectors, available = table(20_000)
    index = ApproximateIndex(vectors, available, recall=0.9, queries=queries(256, seed=5))
    users = queries(64, seed=6)
    rows, scores = index.search(users, 100)
    exact, _ = ExactIndex(vectors, available).search(users, 100)
    recall = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(rows, exact, strict=True)])
    assert index.recall >= 0.9
    assert recall == pytest.approx(index.recall, abs=0.03)
    assert available[rows].all()
    np.testing.assert_allclose(np.einsum("bkd,bd->bk", vectors[rows], users), scores, rtol=1e-4, atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_excluded_rows_do_not_come() -> None:
    vectors, available = table(5_000)
    index = ApproximateIndex(vectors, available)
    users = queries(8)
    best, _ = index.search(users, 20)
    again, _ = index.search(users, 20, best)
    for before, after in zip(best, again, strict=True):
        assert not np.intersect1d(before, after).size


def test_items_added_since_are_found_and_sold_out_ones_are_not() -> None:
    vectors, available = table(5_000)
    index = ApproximateIndex(vectors[:4_900].copy(), available[:4_900])
    users = queries(1)
    available[4_950] = True
    vectors[4_950] = 50 * users[0]
    index.update(vectors, available)
    assert index.search(users, 5)[0][0, 0] == 4_950
    available[4_950] = False
    assert index.search(users, 5)[0][0, 0] != 4_950


def test_opening_every_list_finds_everything() -> None:
    vectors, available = table(300)
    index = ApproximateIndex(vectors, available, recall=1.0)
    users = queries(4)
    rows, _ = index.search(users, 50)
    exact, _ = ExactIndex(vectors, available).search(users, 50)
    assert np.mean([len(np.intersect1d(a, b)) / 50 for a, b in zip(rows, exact, strict=True)]) >= 0.99
