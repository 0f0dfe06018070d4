"""The one interface of everything that is judged, and the judging itself: lists of all items, and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Cases, Split
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.metrics import Figure, Lists, Values

BATCH = 256
"""Cases scored at a time: with 100,000 items their float32 scores take 100 MB, and larger batches gain nothing."""

ACCURACY = ("HR", "NDCG", "MRR", "Recall")


class Method(Protocol):
    """A way to recommend. It is fitted once on a split, and then scores every item for any case."""

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Learn from the split's training events, and choose settings on its validation cases if there are any."""
        ...

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """How likely each case takes each item next, in any unit, higher is better, (cases, items)."""
        ...


@dataclass(frozen=True)
class Judgement:
    """A method's lists for some cases, and per-case values of every metric, "NDCG@10" and so on, each (cases,)."""

    lists: Lists
    values: Mapping[str, Values]
    figures: Mapping[str, Figure]


def recommend(
    method: Method, cases: Cases, items: int, length: int, *, mask_history: bool = True, seed: int = 0
) -> Lists:
    """The method's lists of the `length` best of all items, (cases, length); ties are broken at random by `seed`."""
    order = np.random.default_rng(seed).permutation(items)
    lists = np.full((len(cases), min(length, items)), -1, dtype=np.int32)
    for start in range(0, len(cases), BATCH):
        batch = cases.where(np.arange(start, min(start + BATCH, len(cases))))
        banned = [batch.history(case) for case in range(len(batch))] if mask_history else None
        lists[start : start + len(batch)] = metrics.top_lists(method.score(batch), length, banned, order)
    return lists


def judge(dataset: Dataset, train: Interactions, cases: Cases, lists: Lists, ks: Sequence[int]) -> Judgement:
    """Every metric of lists for cases, at every k, with bootstrap intervals over users.

    Besides the accuracy over all cases there is the one over `warm` cases, all of whose targets training has seen,
    and over `cold` ones, with a target that it has not: "NDCG@10 cold". Calibration needs categories.
    """
    popularity = np.bincount(train.items, minlength=dataset.items)
    categories = _categories(dataset)
    hit = metrics.hits(lists, cases.targets)
    values: dict[str, Values] = {}
    figures: dict[str, Figure] = {}
    for k in ks:
        values[f"HR@{k}"] = metrics.hit_rate(hit, k)
        values[f"NDCG@{k}"] = metrics.ndcg(hit, cases.targets, k)
        values[f"MRR@{k}"] = metrics.reciprocal_rank(hit, k)
        values[f"Recall@{k}"] = metrics.recall(hit, cases.targets, k)
        values[f"novelty@{k}"] = metrics.novelty(lists, popularity, k)
        values[f"popularity-lift@{k}"] = metrics.popularity_lift(lists, cases, popularity, k)
        if categories is not None:
            values[f"miscalibration@{k}"] = metrics.miscalibration(lists, cases, categories, k)
    for name, per_case in values.items():
        figures[name] = metrics.bootstrap(per_case, cases.users)
    cold = cold_cases(cases, popularity)
    for label, part in (("warm", ~cold), ("cold", cold)):
        if part.any() and cold.any():
            for name, per_case in values.items():
                if name.split("@")[0] in ACCURACY:
                    figures[f"{name} {label}"] = metrics.bootstrap(per_case[part], cases.users[part])
    for k in ks:
        figures[f"coverage@{k}"] = Figure(metrics.coverage(lists, k, dataset.items))
    return Judgement(lists, values, figures)


def cold_cases(cases: Cases, popularity: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which cases have a target that no training event names, (cases,)."""
    unseen = np.r_[0, np.cumsum(popularity[cases.targets.values] == 0)]
    return np.asarray(unseen[cases.targets.offsets[1:]] > unseen[cases.targets.offsets[:-1]])


def _categories(dataset: Dataset) -> NDArray[np.int64] | None:
    """Each item's category number, -1 for none; nothing where no item has one."""
    if dataset.catalogue is None or all(item.category is None for item in dataset.catalogue):
        return None
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if item.category is None else numbers.setdefault(item.category, len(numbers)) for item in dataset.catalogue]
    )
