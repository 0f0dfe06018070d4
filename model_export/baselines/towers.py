"""Sequence towers alone as baselines: GRU4Rec-like and SASRec-like, over item ids, without content or associations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds
from torch import nn
from torch.nn import functional

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Cases, Split
from mmrec_stream.evaluation.baselines.base import TUNING_K, Baseline, Setting, tuning_sample
from mmrec_stream.evaluation.methods import recommend
from mmrec_stream.evaluation.metrics import hits, ndcg

WIDTH = 64
LENGTH = 50
"""Items of the history that a tower looks at, as in SASRec's own settings for sparse data."""

SHARED_NEGATIVES = 2_048
"""Random items every position of a batch is told apart from: with the batch's other targets some 3,500 in all, at a
tenth of the cost of all items and nearly their quality."""

SVD_SCALE = 0.02
"""Standard deviation of the initial embeddings, the usual one; the SVD gives their directions."""

BATCH = 64
"""Sequences a step: a thousand users then still make some fifteen steps a pass."""

LEARNING_RATE = 2e-3
"""Of Adam: twice that of the papers, as small logs make few steps; Beauty is learned as well."""

PATIENCE = 4
"""Epochs without a better validation before training stops."""

MOST_SECONDS = 420.0
"""Training time after which the best epoch so far is kept, so that a table of all sets stays within an hour."""


class Tower(Baseline):
    """Trains a network to tell each next item of a sequence from others, by softmax, and stops on validation."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"dropout": (0.4,), "epochs": (60,)}

    def network(self, items: int) -> "SequenceNet":
        """A fresh network."""
        raise NotImplementedError

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Train on the training events, stop on validation, and train again as long on all events where asked."""
        epochs = self._train(dataset, split.train.where(split.train.likings), int(self.number("epochs")), split)
        if split.refit is not None:
            self._train(dataset, split.refit.where(split.refit.likings), epochs, None)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Inner products of the last position's state with all items."""
        self._net.eval()
        with torch.no_grad():
            sequences = [cases.history(case) for case in range(len(cases))]
            padded = _pad(sequences)
            states = self._net(padded)[torch.arange(len(sequences)), (padded > 0).sum(dim=1) - 1]
            return np.asarray((states @ self._net.items.weight[1:].T).numpy(), dtype=np.float32)

    def _train(self, dataset: Dataset, log: Interactions, epochs: int, stop_on: Split | None) -> int:
        torch.manual_seed(self.seed)
        generator = np.random.default_rng(self.seed)
        net = self._net = self.network(dataset.items)
        net.items.weight.data[1:] = torch.from_numpy(_svd(dataset, log)) * SVD_SCALE
        optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0, betas=(0.9, 0.98))
        sequences = _sequences(dataset, log)
        best, best_epoch, best_state = -1.0, 0, net.state_dict()
        started = time.monotonic()
        for epoch in range(1, epochs + 1):
            net.train()
            for batch in _batches(sequences, generator):
                loss = self._loss([sequences[row] for row in batch], dataset.items, generator)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            if stop_on is None:
                continue
            quality = self._quality(dataset, stop_on)
            if quality > best:
                best, best_epoch = quality, epoch
                best_state = {name: value.clone() for name, value in net.state_dict().items()}
            elif epoch - best_epoch >= PATIENCE or time.monotonic() - started > MOST_SECONDS:
                break
        if stop_on is not None:
            net.load_state_dict(best_state)
        return best_epoch

    def _loss(self, sequences: list[NDArray[np.int32]], items: int, generator: np.random.Generator) -> torch.Tensor:
        inputs, targets = _pad([row[:-1] for row in sequences]), _pad([row[1:] for row in sequences])
        there = targets > 0
        wanted = targets[there]
        sampled = torch.from_numpy(generator.integers(1, items + 1, min(SHARED_NEGATIVES, items)))
        compared = torch.unique(torch.cat([wanted, sampled]))
        logits = self._net(inputs)[there] @ self._net.items(compared).T
        return functional.cross_entropy(logits, torch.searchsorted(compared, wanted))

    def _quality(self, dataset: Dataset, split: Split) -> float:
        sample = tuning_sample(split.validation)
        lists = recommend(self, sample, dataset.items, TUNING_K, mask_history=split.mask_history)
        return float(ndcg(hits(lists, sample.targets), sample.targets, TUNING_K).mean())


class SequenceNet(nn.Module):
    """Item embeddings, row 0 being padding, and a state for every position, (batch, length, width)."""

    def __init__(self, items: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.dropout = nn.Dropout(dropout)


class Gru4Rec(Tower):
    """A GRU over the sequence. Hidasi and Karatzoglou (CIKM 2018)."""

    def network(self, items: int) -> SequenceNet:
        """One GRU layer."""
        return _Gru(items, self.number("dropout"))


class SasRec(Tower):
    """Causal self-attention over the sequence. Kang and McAuley (ICDM 2018)."""

    def network(self, items: int) -> SequenceNet:
        """Two attention blocks with two heads."""
        return _Attention(items, self.number("dropout"))


class _Gru(SequenceNet):
    def __init__(self, items: int, dropout: float) -> None:
        super().__init__(items, dropout)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.dropout(self.gru(self.dropout(self.items(sequences)))[0])
        return states


class _Attention(SequenceNet):
    LAYERS, HEADS = 2, 2

    def __init__(self, items: int, dropout: float) -> None:
        super().__init__(items, dropout)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        nn.init.normal_(self.positions.weight, std=SVD_SCALE)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, self.HEADS, 4 * WIDTH, dropout, "gelu", batch_first=True)
            for _ in range(self.LAYERS)
        )

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        length = sequences.shape[1]
        states: torch.Tensor = self.dropout(self.norm(self.items(sequences) + self.positions.weight[:length]))
        causal = torch.triu(torch.full((length, length), float("-inf")), diagonal=1)
        for block in self.blocks:
            states = block(states, src_mask=causal, is_causal=True)
        return states


def _sequences(dataset: Dataset, log: Interactions) -> list[NDArray[np.int32]]:
    offsets = log.offsets(dataset.users)
    return [log.items[max(start, end - LENGTH - 1) : end] for start, end in pairwise(offsets) if end - start > 1]


def _batches(sequences: list[NDArray[np.int32]], generator: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of sequences of like length, `BATCH` at a time, in random order: little padding, and no fixed company."""
    lengths = np.array([len(row) for row in sequences])
    order = np.argsort(lengths + 3 * generator.random(len(lengths)), kind="stable")
    batches = np.array_split(order, max(1, len(order) // BATCH))
    for batch in generator.permutation(len(batches)):
        yield batches[batch]


def _pad(sequences: Sequence[NDArray[np.int32]]) -> torch.Tensor:
    """Item numbers from 1, right-padded with 0, (batch, length)."""
    length = min(LENGTH, max(len(row) for row in sequences))
    padded = np.zeros((len(sequences), length), dtype=np.int64)
    for row, items in enumerate(sequences):
        kept = items[-length:]
        padded[row, : len(kept)] = kept + 1
    return torch.from_numpy(padded)


def _svd(dataset: Dataset, log: Interactions) -> NDArray[np.float32]:
    """Item factors of the interactions with unit standard deviation, (items, width)."""
    shape = (dataset.users, dataset.items)
    matrix = sp.csr_matrix((np.ones(len(log), np.float32), (log.users, log.items)), shape=shape)
    rank = min(WIDTH, min(shape) - 1)
    _, values, items = svds(matrix, k=rank, random_state=0)
    factors = np.zeros((dataset.items, WIDTH), dtype=np.float32)
    factors[:, :rank] = items.T * np.sqrt(values)
    return factors / max(float(factors.std()), 1e-12)
