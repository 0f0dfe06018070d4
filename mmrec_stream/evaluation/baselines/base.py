"""What all baselines share: they learn from a log, and choose their settings by a grid search on validation cases."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.item_item import unit_rows
from mmrec_stream.data.splits import Cases, Split
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.methods import recommend
from mmrec_stream.evaluation.metrics import hits, ndcg

Setting = int | float | str
Settings = dict[str, Setting]

TUNING_CASES = 1_000
"""Validation cases a setting is tried on: the standard error of NDCG is then about .007 and much less between two
settings on the same cases, and a grid of ten costs seconds."""

TUNING_K = 20


def tuning_sample(cases: Cases) -> Cases:
    """At most TUNING_CASES of the cases, always the same ones."""
    if len(cases) <= TUNING_CASES:
        return cases
    return cases.where(np.sort(np.random.default_rng(0).choice(len(cases), TUNING_CASES, replace=False)))


class Baseline:
    """A method with settings. The first value of each is its default."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {}
    """Settings that `learn` depends on."""
    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {}
    """Settings that only `score` depends on: trying another value needs no new learning."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.repeats = False
        self.settings: Settings = {name: values[0] for name, values in {**self.learn_grid, **self.ask_grid}.items()}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Learn from `log` with the current settings."""
        raise NotImplementedError

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Scores of all items, (cases, items)."""
        raise NotImplementedError

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Learn with each setting of the grid, keep the best by NDCG@20 on validation, and learn again on all.

        Learned from are the likings, as models learn to foresee nothing else.
        """
        self.repeats = not split.mask_history
        train = split.train.where(split.train.likings)
        tuned = len(split.validation) > 0 and bool(self.learn_grid or self.ask_grid)
        learned: Settings | None = None
        if tuned:
            sample = tuning_sample(split.validation)
            best, chosen = -1.0, self.settings
            for learn_settings in _combinations(self.learn_grid):
                self.settings = self.settings | learn_settings
                self.learn(dataset, train)
                learned = learn_settings
                for ask_settings in _combinations(self.ask_grid):
                    self.settings = self.settings | ask_settings
                    lists = recommend(self, sample, dataset.items, TUNING_K, mask_history=split.mask_history)
                    quality = float(ndcg(hits(lists, sample.targets), sample.targets, TUNING_K).mean())
                    if quality > best:
                        best, chosen = quality, self.settings
            self.settings = chosen
        wanted = {name: self.settings[name] for name in self.learn_grid}
        if split.refit is not None or learned != wanted:
            self.learn(dataset, train if split.refit is None else split.refit.where(split.refit.likings))

    def number(self, name: str) -> float:
        """The setting `name`, which is a number."""
        return float(self.settings[name])


def features_of(dataset: Dataset, modality: str, method: str) -> NDArray[np.float32]:
    """What a modality says of the items, each feature of unit length, side by side, (items, width).

    Args:
        dataset: Whose features.
        modality: One of its features by name, or `both` for all of them.
        method: What asks, for the error.

    Raises:
        UserError: The data set has no such features.
    """
    names = sorted(dataset.features) if modality == "both" else [modality]
    if not names or any(name not in dataset.features for name in names):
        raise UserError(f"data set {dataset.name} has no {modality} features for {method}")
    return np.concatenate([unit_rows(dataset.features[name]) for name in names], axis=1)


def _combinations(grid: Mapping[str, Sequence[Setting]]) -> Iterator[Settings]:
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
