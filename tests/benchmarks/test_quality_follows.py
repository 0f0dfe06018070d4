import numpy as np
import pytest

from benchmarks.quality.follows import KNOWN_USER, effect_of, known, single_views
from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.errors import UserError
from mmrec_stream.ranking.scorer import Scorer
from tests.tiny import NOW, loyal_release, loyal_shop, tiny_dataset


def test_a_follow_moves_the_probability_of_the_brands_products_by_p_user_alone() -> None:
    scorer, dataset = Scorer.load(loyal_release(), provider="cpu", threads=1), loyal_shop()
    by_item = effect_of(scorer.at_alpha(0.0), dataset, single_views(dataset))
    assert np.allclose(by_item.after, by_item.before, rtol=1e-4)
    effect = effect_of(scorer.at_alpha(1.0), dataset, single_views(dataset))
    assert len(effect.before) == len(scorer.release.vocabularies["brands"]) > 1
    assert effect.before.sum() == pytest.approx(1.0, abs=0.01), "every product has a brand in this shop"
    assert (effect.after > 1.02 * effect.before).all()
    assert effect.places_after.mean() > effect.places_before.mean()
    assert effect.places_before.sum() == pytest.approx(1.0)


def test_profiles_are_of_one_view_or_of_many_events() -> None:
    dataset = tiny_dataset()
    views = single_views(dataset)
    assert (views.lengths == 1).all()
    assert (views.log.types == EventType.VIEW).all()
    assert len(np.unique(views.log.items)) == len(views)
    many = known(dataset)
    assert (many.lengths >= KNOWN_USER).all()
    assert all(
        (many.log.users[start:end] == user).all()
        for user, start, end in zip(many.users, many.starts, many.ends, strict=True)
    )


def test_a_log_in_which_nobody_has_done_much_is_refused() -> None:
    few = Interactions.of(np.array([0, 0]), np.array([0, 1]), np.array([NOW, NOW + 1]))
    with pytest.raises(UserError, match="nobody has 20 events"):
        known(Dataset("few", few, ["u"], ["a", "b"]))
