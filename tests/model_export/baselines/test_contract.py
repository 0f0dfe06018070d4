"""One contract for every baseline: what any method of the table must do, on a shop whose rule is known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Split, leave_one_out, next_clicks
from mmrec_stream.evaluation.baselines import counting, linear, social
from mmrec_stream.evaluation.methods import Method, recommend
from mmrec_stream.evaluation.metrics import hit_rate, hits
from model_export.baselines import factors, towers, visual
from tests.shops import chain_shop

METHODS: dict[str, Callable[[int], Method]] = {
    "popularity": counting.Popularity,
    "item-knn": counting.ItemKnn,
    "cooccurrence": counting.DirectedCooccurrence,
    "content-knn": lambda seed: counting.ContentKnn("shape", seed),
    "description-knn": counting.DescriptionKnn,
    "session-knn": counting.SessionKnn,
    "ease": linear.Ease,
    "ease-decayed": linear.DecayedEase,
    "ease-directed": linear.DirectedEase,
    "als": factors.Als,
    "bpr": factors.Bpr,
    "vbpr": lambda seed: visual.Vbpr("shape", seed),
    "neural-cf": factors.NeuralCf,
    "gru4rec": towers.Gru4Rec,
    "sasrec": towers.SasRec,
    "trustees": social.TrusteesPopularity,
    "cooccurrence+social": social.SocialCooccurrence,
}

COUNT_THE_ORDER = ("cooccurrence", "ease-directed", "cooccurrence+social")
"""Methods that know exactly what comes next where a log has a rule."""

LEARN_NEIGHBOURS = (
    "item-knn",
    "session-knn",
    "ease",
    "ease-decayed",
    "content-knn",
    "description-knn",
    "gru4rec",
    "sasrec",
)
"""Methods that find both ends of a stretch of the circle, one of which is the next item."""


@pytest.fixture(scope="module")
def shop() -> Dataset:
    # Enough users for fifteen steps a pass: with three, validation may stand still until training gives up.
    return chain_shop(users=960, items=12, length=6)


@pytest.fixture(scope="module")
def split(shop: Dataset) -> Split:
    return leave_one_out(shop)


@pytest.fixture(scope="module", params=sorted(METHODS))
def fitted(request: pytest.FixtureRequest, shop: Dataset, split: Split) -> tuple[str, Method]:
    method = METHODS[request.param](0)
    method.fit(shop, split)
    return request.param, method


def test_every_item_of_every_case_has_a_finite_score(fitted: tuple[str, Method], shop: Dataset, split: Split) -> None:
    scores = fitted[1].score(split.test)
    assert scores.shape == (len(split.test), shop.items)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_a_case_is_scored_alone_as_in_company(fitted: tuple[str, Method], split: Split) -> None:
    together = fitted[1].score(split.test.where(np.arange(8)))
    alone = np.concatenate([fitted[1].score(split.test.where(np.array([case]))) for case in range(8)])
    assert alone == pytest.approx(together, abs=1e-4)


def test_targets_are_not_looked_at(fitted: tuple[str, Method], split: Split) -> None:
    cases = split.test.where(np.arange(8))
    others = replace(cases, targets=split.test.where(np.arange(8, 16)).targets)
    assert (fitted[1].score(cases) == fitted[1].score(others)).all()


def test_sessions_that_training_never_saw_are_served(fitted: tuple[str, Method], shop: Dataset) -> None:
    strangers = chain_shop(users=120, items=12, length=3, seed=5).interactions
    scores = fitted[1].score(next_clicks(strangers, shop.users).where(np.arange(4)))
    assert np.isfinite(scores).all()


def test_the_rule_of_the_shop_is_learned(fitted: tuple[str, Method], shop: Dataset, split: Split) -> None:
    name, method = fitted
    hit = hits(recommend(method, split.test, shop.items, 3), split.test.targets)
    if name in COUNT_THE_ORDER:
        assert hit_rate(hit, 1).mean() > 0.95
    elif name in LEARN_NEIGHBOURS:
        assert hit_rate(hit, 3).mean() > 0.9
    elif name == "als":
        # Of seven items left, three by chance: .43, give or take .016. With more factors than the shop has items, it
        # finds .58 to 1, by what it starts from.
        assert hit_rate(hit, 3).mean() > 0.5


def test_the_same_seed_gives_the_same_scores(shop: Dataset, split: Split) -> None:
    first, second = factors.Bpr(7), factors.Bpr(7)
    first.fit(shop, split)
    second.fit(shop, split)
    assert (first.score(split.test) == second.score(split.test)).all()


def test_settings_are_chosen_on_validation_not_on_test(shop: Dataset, split: Split) -> None:
    method, blind = counting.DirectedCooccurrence(), counting.DirectedCooccurrence()
    method.fit(shop, split)
    blind.fit(shop, replace(split, test=split.test.where(np.arange(0))))
    assert method.settings == blind.settings
    assert method.settings["backward"] == 0.0


def test_trustees_foresee_what_their_followers_take_after_them() -> None:
    # Every second user takes what their trustee took, a day later.
    tastes = np.random.default_rng(3).permuted(np.tile(np.arange(60), (30, 1)), axis=1)[:, :6]
    owners, steps = np.divmod(np.arange(60 * 6), 6)
    log = Interactions.of(owners, tastes[owners // 2, steps], (2 * steps + owners % 2) * 86_400_000)
    trust = np.array([[user, user - 1] for user in range(1, 60, 2)], dtype=np.int32)
    names = [str(number) for number in range(60)]
    dataset = Dataset("friends", log, names, names, social=trust)
    split = leave_one_out(dataset)
    followers = split.test.where(np.flatnonzero(split.test.users % 2 == 1))
    method = social.TrusteesPopularity()
    method.fit(dataset, replace(split, train=log))
    lists = recommend(method, followers, dataset.items, 1)
    assert hit_rate(hits(lists, followers.targets), 1).mean() == 1.0
