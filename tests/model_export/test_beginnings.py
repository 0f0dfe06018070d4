"""Where id embeddings begin: what is taken together is near, whatever else is popular."""

import numpy as np
import pytest

from mmrec_stream.data.dataset import Interactions
from model_export.beginnings import item_factors
from model_export.encoders import INITIAL_LENGTH

GROUPS, OF_A_GROUP, POPULAR, UNSEEN = 4, 5, 20, 21


def groups() -> Interactions:
    """Users who each take the items of one group, and all of them the popular one now and then; item 21 is unseen."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(120):
        own = rng.permutation(np.arange(OF_A_GROUP) + OF_A_GROUP * (user % GROUPS))
        rows += [(user, item) for item in np.insert(own, rng.integers(OF_A_GROUP), POPULAR)]
    users, items = np.array(rows).T
    return Interactions.of(users, items, np.arange(len(rows)) * 1000)


@pytest.mark.parametrize("dim", [8, 64])
def test_items_that_are_taken_together_begin_near_each_other(dim: int) -> None:
    vectors = item_factors(groups(), 22, dim, seed=0)
    assert vectors.shape == (22, dim)
    products = vectors @ vectors.T
    group = np.arange(GROUPS * OF_A_GROUP) // OF_A_GROUP
    alike = group[:, None] == group
    np.fill_diagonal(products, -np.inf)
    inner = products[: len(group), : len(group)]
    assert inner[alike & np.isfinite(inner)].min() > inner[~alike].max()
    nearest = products[: len(group)].argmax(axis=1)
    assert (nearest // OF_A_GROUP == group).all(), "not the one that everybody takes"


def test_all_items_begin_at_a_common_length() -> None:
    lengths = np.linalg.norm(item_factors(groups(), 22, 64, seed=0), axis=1)
    assert lengths[:UNSEEN].mean() == pytest.approx(INITIAL_LENGTH, rel=0.05)
    assert lengths[UNSEEN] == pytest.approx(INITIAL_LENGTH, rel=0.3)


def test_the_same_seed_gives_the_same_vectors() -> None:
    one, same, other = (item_factors(groups(), 22, 16, seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("events", [0, 1, 2])
def test_a_log_that_says_nothing_gives_random_vectors(events: int) -> None:
    log = Interactions.of(np.arange(events), np.zeros(events, dtype=int), np.arange(events))
    vectors = item_factors(log, 40, 16, seed=0)
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(INITIAL_LENGTH, rel=0.15)
    assert item_factors(log, 1, 16, seed=0).shape == (1, 16)
