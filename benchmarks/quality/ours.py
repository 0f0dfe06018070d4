"""Our hybrid model as a method of the table, whole and in halves; each training is shared by all of its parts."""

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.splits import Cases, Split
from model_export.config import ModelConfig
from model_export.hybrid import Part, TrainedModel
from model_export.inputs import Inputs
from model_export.pretext import Begun
from model_export.training import fit, learn_from_content, raw_encoders


class Trainings:
    """Trained models by configuration, so that the whole and its halves are judged from the same training."""

    def __init__(self) -> None:
        self.models: dict[ModelConfig, TrainedModel] = {}
        self._begun: dict[tuple[tuple[str, ...], int], Begun | None] = {}

    def of(self, dataset: Dataset, split: Split, config: ModelConfig) -> TrainedModel:
        """The model of a configuration, trained on first use."""
        if config not in self.models:
            self.models[config] = fit(dataset, split, config, pretext=self._pretext)
        return self.models[config]

    def _pretext(self, config: ModelConfig, inputs: Inputs) -> Begun | None:
        """Models that differ in what else they are made of begin alike."""
        key = (raw_encoders(config, inputs), config.seed)
        if key not in self._begun:
            self._begun[key] = learn_from_content(config, inputs)
        return self._begun[key]


class Hybrid:
    """The product's own model: `mixed` at the fitted α, `user` is α = 1, `item` is α = 0."""

    def __init__(self, trainings: Trainings, config: ModelConfig, part: Part) -> None:
        self._trainings, self._config, self._part = trainings, config, part

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Train, or take what another part has trained."""
        self._model = self._trainings.of(dataset, split, self._config)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Probabilities of all items, (cases, items)."""
        return self._model.score(cases, self._part)
