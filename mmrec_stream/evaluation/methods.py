"""The one interface of everything that is judged, and the judging itself: lists of all items, and their figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Cases, Ragged, Split
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.metrics import Figure, Lists, Values

BATCH = 256
"""Cases scored at a time: with 100,000 items their float32 scores take 100 MB, and larger batches gain nothing."""


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
    """A method's lists for some cases, and what they are worth.

    `values` has every metric, "NDCG@10" and so on, of each case, (cases,): "NDCG@10 cold" of those with such targets.
    `users` has, by metric, whose cases they are.
    """

    lists: Lists
    values: Mapping[str, Values]
    users: Mapping[str, NDArray[np.int32]]
    figures: Mapping[str, Figure]


def recommend(
    method: Method, cases: Cases, items: int, length: int, *, mask_history: bool = True, seed: int = 0
) -> Lists:
    """The method's lists of the `length` best of all items, (cases, length); ties are broken at random by `seed`."""
    order = np.random.default_rng(seed).permutation(items)
    lists = np.full((len(cases), min(length, items)), -1, dtype=np.int32)
    for start in range(0, len(cases), BATCH):
        batch = cases.where(np.arange(start, min(start + BATCH, len(cases))))
        banned = batch.banned(mask_history=mask_history)
        lists[start : start + len(batch)] = metrics.top_lists(method.score(batch), length, banned, order)
    return lists


def judge(dataset: Dataset, train: Interactions, cases: Cases, lists: Lists, ks: Sequence[int]) -> Judgement:
    """Every metric of lists for cases, at every k, with bootstrap intervals over users.

    Besides the accuracy over all targets there is the one over `warm` targets alone, which training has seen, and over
    `cold` ones, which it has not, each over the cases that have such: "NDCG@10 cold". Calibration needs categories.
    """
    popularity = np.bincount(train.items, minlength=dataset.items)
    categories = _categories(dataset)
    values = _accuracy(lists, cases.targets, ks)
    for k in ks:
        values[f"novelty@{k}"] = metrics.novelty(lists, popularity, k)
        values[f"popularity-lift@{k}"] = metrics.popularity_lift(lists, cases, popularity, k)
        if categories is not None:
            values[f"miscalibration@{k}"] = metrics.miscalibration(lists, cases, categories, k)
    users = dict.fromkeys(values, cases.users)
    if (popularity[cases.targets.values] == 0).any():
        for label, wanted in (("warm", popularity > 0), ("cold", popularity == 0)):
            there, targets = targets_among(cases, wanted)
            part = {f"{name} {label}": each for name, each in _accuracy(lists[there], targets, ks).items()}
            values |= part
            users |= dict.fromkeys(part, cases.users[there])
    figures = {name: metrics.bootstrap(per_case, users[name]) for name, per_case in values.items()}
    for k in ks:
        figures[f"coverage@{k}"] = Figure(metrics.coverage(lists, k, dataset.items))
    return Judgement(lists, values, users, figures)


def targets_among(cases: Cases, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Ragged]:
    """Which cases have targets among the `wanted` items, (items,), ascending, and these targets of theirs."""
    targets = cases.targets.among(wanted)
    there = np.flatnonzero(targets.lengths)
    return there, targets.where(there)


def _accuracy(lists: Lists, targets: Ragged, ks: Sequence[int]) -> dict[str, Values]:
    """What the lists have of the targets, by metric, each (cases,)."""
    hit = metrics.hits(lists, targets)
    values: dict[str, Values] = {}
    for k in ks:
        values[f"HR@{k}"] = metrics.hit_rate(hit, k)
        values[f"NDCG@{k}"] = metrics.ndcg(hit, targets, k)
        values[f"MRR@{k}"] = metrics.reciprocal_rank(hit, k)
        values[f"Recall@{k}"] = metrics.recall(hit, targets, k)
    return values


def _categories(dataset: Dataset) -> NDArray[np.int64] | None:
    """Each item's category number, -1 for none; nothing where no item has one."""
    if dataset.catalogue is None or all(item.category is None for item in dataset.catalogue):
        return None
    numbers: dict[str, int] = {}
    return np.array(
        [-1 if item.category is None else numbers.setdefault(item.category, len(numbers)) for item in dataset.catalogue]
    )
