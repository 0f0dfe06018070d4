"""The social signal draws on those whom a user follows, as of the moment, and only where that helps."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmrec_stream.contracts.behaviour import BehaviourEvent, Follow, View
from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Cases, Ragged, leave_one_out
from mmrec_stream.profiles import record as profile
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.ranking.features import Labels, features_of
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer
from model_export.rounds import release_split
from model_export.social import MOST_FOLLOWED, Social
from model_export.training import fit
from tests.tiny import NOW, TINY, loyal_release, loyal_shop, tiny_dataset

LOG = Interactions.of(
    np.array([0, 0, 1, 1, 1, 2]), np.array([5, 6, 1, 2, 3, 9]), 10**12 + np.array([0, 50, 10, 20, 40, 30])
)


def case(user: int, moment: int) -> Cases:
    one = np.array([0], dtype=np.int64)
    return Cases(
        LOG, np.array([user], np.int32), one, one + 1, one + 10**12 + moment, Ragged(one, np.array([0, 1], np.int64))
    )


def histories(cases: Cases) -> Tensor:
    """Vectors that show which items a history holds."""
    shown = torch.zeros(len(cases), 10)
    for row in range(len(cases)):
        shown[row, cases.history(row)] = 1.0
    return shown


def test_only_what_the_followed_had_done_before_counts() -> None:
    social = Social.of(np.array([[0, 1], [0, 2]], dtype=np.int32), 4, LOG)
    mean, there = social.means(case(0, 35), histories, 10)
    expected = torch.zeros(10)
    expected[[1, 2, 9]] = 0.5
    assert torch.equal(mean[0], expected)
    assert there.tolist() == [1.0]
    earlier, _ = social.means(case(0, 20), histories, 10)
    assert earlier[0].nonzero().ravel().tolist() == [1], "the event of the moment itself is not known yet"
    _, nobody = social.means(case(0, 5), histories, 10)
    assert nobody.tolist() == [0.0]


def test_who_follows_nobody_keeps_the_own_vector() -> None:
    social = replace(Social.of(np.array([[0, 1]], dtype=np.int32), 4, LOG), weight=0.5)
    own = torch.ones(1, 10)
    assert torch.equal(social.blend(own, case(2, 60), histories), own)
    assert torch.equal(replace(social, weight=0.0).blend(own, case(0, 60), histories), own)
    drawn = social.blend(own, case(0, 60), histories)
    assert drawn[0].tolist() == [0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_following_oneself_or_the_silent_makes_no_difference_and_many_are_cut() -> None:
    users = 40
    edges = np.array([[0, 0], [0, 39], *([0, user] for user in range(1, 31))], dtype=np.int32)
    log = Interactions.of(np.arange(39), np.arange(39), np.arange(39) + 10**12)
    social = Social.of(edges, users, log)
    assert len(social.followed[0]) == MOST_FOLLOWED
    assert not {0, 39} & set(social.followed[0].tolist())


def test_the_weight_is_chosen_on_validation_and_reaches_the_scores() -> None:
    dataset = tiny_dataset()
    split = release_split(dataset)
    edges = np.array([[user, (user + 1) % dataset.users] for user in range(dataset.users)], dtype=np.int32)
    model = fit(replace(dataset, social=edges), split, TINY)
    assert model.social is not None
    assert set(model.report.social) == {0.0, 0.1, 0.2, 0.3, 0.5}
    assert model.social.weight == max(model.report.social, key=lambda weight: model.report.social[weight])
    forced = replace(model, social=replace(model.social, weight=0.5))
    alone = replace(model, social=None)
    test = leave_one_out(dataset).test
    assert not np.allclose(forced.score(test, "user"), alone.score(test, "user"))
    assert np.array_equal(forced.score(test, "item"), alone.score(test, "item"))


def test_a_followed_brand_draws_its_products_in_the_exported_ranker() -> None:
    dataset = loyal_shop()
    # p_user alone, as p_item does not know of follows, and which α comes out best is not asked here.
    scorer = Scorer.load(loyal_release(), provider="cpu", threads=1).at_alpha(1.0)
    vocabularies = scorer.release.vocabularies
    labels = Labels(vocabularies["categories"]), Labels(vocabularies["brands"])
    assert dataset.catalogue is not None
    viewed = dataset.catalogue[::5]
    views = [View(user_id=f"u{row}", item_id=item.item_id, brand=item.brand, ts=NOW) for row, item in enumerate(viewed)]

    def share(brand: str, follows: list[Follow]) -> float:
        """The mean probability of the brand's products together."""
        records, rows = profile.empty(len(viewed)), np.arange(len(viewed))
        sources: list[Sequence[BehaviourEvent]] = [views, follows]
        for source, events in enumerate(sources, start=1):
            fold(records, rows[: len(events)], columns_of(events, rows.tolist()), source=source)
        inputs = features_of(records, scorer.table, *labels, now_ms=NOW, repeats=Repeats(0.0, 0.0), max_history=20)[0]
        lists = scorer.run(inputs, len(scorer.table))
        return float((lists.scores * (lists.rows % 6 == int(brand[1:]))).sum(axis=1).mean())

    gains = []
    for brand in vocabularies["brands"]:
        follows = [Follow(user_id=f"u{row}", brand=brand, ts=NOW) for row in range(len(viewed))]
        before, after = share(brand, []), share(brand, follows)
        assert after > 1.02 * before, brand
        gains.append(after / before)
    assert np.mean(gains) > 1.15
