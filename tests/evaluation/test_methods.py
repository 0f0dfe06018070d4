from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.splits import Cases, Ragged, Split, leave_one_out
from mmrec_stream.evaluation.methods import judge, recommend
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


def test_warm_and_cold_targets_are_reported_apart() -> None:
    shop = chain_shop()
    split = leave_one_out(shop)
    # Every case has a second target, which no list of one place names.
    far = (split.test.targets.values + 5) % 12
    pairs = [np.array(pair) for pair in zip(split.test.targets.values, far, strict=True)]
    both = replace(split.test, targets=Ragged.of(pairs))
    seen = split.train.where(split.train.items != 3)
    judgement = judge(shop, seen, both, recommend(_Next(), both, shop.items, 1), (1,))
    first_cold, second_cold = split.test.targets.values == 3, far == 3
    assert len(judgement.values["Recall@1 cold"]) == (first_cold | second_cold).sum()
    assert judgement.figures["Recall@1 cold"].value == pytest.approx(
        first_cold.sum() / (first_cold | second_cold).sum()
    )
    # A warm target beside a cold one is all that is asked for among the warm ones.
    warm = np.where(first_cold, 0.0, np.where(second_cold, 1.0, 0.5))
    assert judgement.figures["Recall@1 warm"].value == pytest.approx(warm.mean())


def test_what_is_withheld_is_in_no_list() -> None:
    shop = chain_shop()
    cases = replace(leave_one_out(shop).test, withheld=np.array([3, 4]))
    for mask in (False, True):
        lists = recommend(_Next(), cases, shop.items, 12, mask_history=mask)
        assert not np.isin(lists, cases.withheld).any()
        assert np.isin(np.setdiff1d(np.arange(12), cases.withheld), lists).all()
