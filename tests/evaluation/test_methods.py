import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.splits import Cases, Split, leave_one_out
from mmrec_stream.evaluation.methods import cold_cases, judge, recommend
from tests.shops import chain_shop


class _Next:
    """Knows the rule of the chain: the next item of the circle scores highest."""

    def score(self, cases: Cases) -> NDArray[np.float32]:
        newest = np.array([cases.history(case)[-1] for case in range(len(cases))])
        return np.asarray(-((np.arange(12)[None, :] - newest[:, None] - 1) % 12), dtype=np.float32)

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Nothing to learn."""


def test_whoever_knows_the_rule_is_judged_perfect() -> None:
    shop = chain_shop()
    split = leave_one_out(shop)
    lists = recommend(_Next(), split.test, shop.items, 5)
    figures = judge(shop, split.train, split.test, lists, (1, 5)).figures
    assert figures["HR@1"].value == 1.0
    assert figures["NDCG@5"].value == 1.0
    assert figures["coverage@1"].value == 1.0


def test_history_is_masked_where_asked() -> None:
    shop = chain_shop()
    split = leave_one_out(shop)
    lists = recommend(_Next(), split.test, shop.items, 12)
    for case in range(len(split.test)):
        assert not set(lists[case].tolist()) & set(split.test.history(case).tolist())
        assert (lists[case] == -1).sum() == len(set(split.test.history(case).tolist()))
    unmasked = recommend(_Next(), split.test, shop.items, 12, mask_history=False)
    assert (np.sort(unmasked, axis=1) == np.arange(12)).all()


def test_warm_and_cold_cases_are_reported_apart() -> None:
    shop = chain_shop()
    split = leave_one_out(shop)
    seen = split.train.where(split.train.items != 3)
    lists = recommend(_Next(), split.test, shop.items, 5)
    judgement = judge(shop, seen, split.test, lists, (1,))
    cold = cold_cases(split.test, np.bincount(seen.items, minlength=shop.items))
    assert cold.tolist() == (split.test.targets.values == 3).tolist()
    shares = judgement.figures["HR@1 cold"].value * cold.mean() + judgement.figures["HR@1 warm"].value * (
        1 - cold.mean()
    )
    assert shares == pytest.approx(judgement.figures["HR@1"].value)
