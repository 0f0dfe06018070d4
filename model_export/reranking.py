"""The re-ranker: a small network over what is known of a list's candidates, fitted on validation cases.

Each case is a choice among the mix's best items, and the loss is the cross-entropy of what was taken (listwise softmax;
Cao et al., ListNet, ICML 2007). The network adds to the logarithm of the mix, from which it starts. It becomes part of
a model only if lists are better on cases that it was not fitted on.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Cases, Ragged
from mmrec_stream.evaluation import metrics
from mmrec_stream.ranking.reranking import CANDIDATES, NAMES, Counts, candidate_features
from model_export.hybrid import TrainedModel, case_features, sample_cases
from model_export.reranker import Network, Reranking, counts_of

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-2
BATCH = 64
"""Cases a step."""

EPOCHS = 30
PATIENCE = 6
"""Passes without a smaller loss on cases set aside before fitting stops."""

SET_ASIDE = 0.2
"""Share of the cases that say when to stop."""

TOGETHER = 256
"""Cases looked at at once where nothing is learned."""

MOST_CASES = 20_000
"""Cases that it is fitted on, drawn from more: their features take 14 kB each."""

LEAST_CASES = 200
"""Cases whose target is among the candidates that each half must have: with fewer, 1,000 weights fit noise."""


@dataclass(frozen=True)
class Asked:
    """Cases as the network sees them."""

    features: NDArray[np.float32]
    """(cases, candidates, `NAMES`)."""
    there: NDArray[np.bool_]
    """Which places hold a candidate, (cases, candidates)."""
    taken: NDArray[np.bool_]
    """Which were taken."""
    targets: Ragged

    def __len__(self) -> int:
        return len(self.taken)

    def where(self, keep: NDArray[np.integer]) -> "Asked":
        """The cases that `keep` numbers."""
        return Asked(self.features[keep], self.there[keep], self.taken[keep], self.targets.where(keep))

    @property
    def useful(self) -> NDArray[np.int64]:
        """The cases that have something to learn: any target among the candidates."""
        return np.flatnonzero(self.taken.any(axis=1))


def learn_reranker(model: TrainedModel, log: Interactions, cases: Cases, *, mask_history: bool) -> Reranking | None:
    """A re-ranker for a calibrated model, or None where it does not gain.

    Two halves of the cases are each ordered by a network that was fitted on the other. It gains if NDCG is better by
    more than a standard error of the paired difference; then one is fitted on all of them. What was found is added to
    the model's report.

    Args:
        model: Calibrated, and not trained on the cases.
        log: What it was trained on.
        cases: Validation cases.
        mask_history: Whether what a user has had is left out of lists.
    """
    seed, places = model.config.seed, model.config.places
    counts = counts_of(log.where(log.likings), model.dataset.items)
    asked = ask(model, counts, sample_cases(cases, MOST_CASES), mask_history=mask_history)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(asked)), 2)
    one, other = (asked.where(half) for half in halves)
    if min(len(one.useful), len(other.useful)) < LEAST_CASES:
        return None
    gains = np.r_[gain_of(fit_network(one, seed), other, places), gain_of(fit_network(other, seed), one, places)]
    gain, error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
    model.report.validation[f"ndcg@{places} gained by re-ranking"] = gain
    model.report.validation[f"ndcg@{places} gained by re-ranking, standard error"] = error
    return Reranking(fit_network(asked, seed), counts) if gain > error else None


def ask(model: TrainedModel, counts: Counts, cases: Cases, *, mask_history: bool) -> Asked:
    """Cases as the network sees them: the mix's best items of each, and which of them were taken."""
    features = case_features(cases, model.dataset, model.inputs, model.config)
    banned = cases.banned(mask_history=mask_history)
    found, there, rows = [], [], []
    for part, lists in model.candidates(features, cases, banned, CANDIDATES):
        found.append(candidate_features(features.part(part), lists, model.vectors, counts))
        there.append(lists.scores > 0)
        rows.append(lists.rows)
    candidates = np.concatenate(there)
    taken = candidates & metrics.hits(np.concatenate(rows).astype(np.int32), cases.targets)
    return Asked(np.concatenate(found), candidates, taken, cases.targets)


def fit_network(asked: Asked, seed: int) -> Network:
    """A network for these cases, stopped by a part of them that it is not fitted on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random = np.random.default_rng(seed)
        useful = random.permutation(asked.useful)
        aside, rest = np.split(useful, [int(len(useful) * SET_ASIDE)])
        seen = asked.features[useful].reshape(-1, len(NAMES))
        network = Network(seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3))
        optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        best, best_epoch, state = np.inf, 0, deepcopy(network.state_dict())
        for epoch in range(EPOCHS):
            network.train()
            for batch in _batches(random.permutation(rest), BATCH):
                loss = _losses(network, asked, batch).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            network.eval()
            with torch.no_grad():
                now = float(torch.cat([_losses(network, asked, batch) for batch in _batches(aside, TOGETHER)]).mean())
            if now < best:
                best, best_epoch, state = now, epoch, deepcopy(network.state_dict())
            elif epoch - best_epoch >= PATIENCE:
                break
        network.load_state_dict(state)
        return network.eval()


def gain_of(network: Network, asked: Asked, places: int) -> NDArray[np.float64]:
    """How much NDCG at so many places each case gains by the network's order over that of the mix, (cases,)."""
    with torch.no_grad():
        logits = torch.cat([_logits(network, asked, batch) for batch in _batches(np.arange(len(asked)), TOGETHER)])
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")
    after, before = (
        metrics.ndcg(taken, asked.targets, places)
        for taken in (np.take_along_axis(asked.taken, order, axis=1), asked.taken)
    )
    return after - before


def _batches(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _logits(network: Network, asked: Asked, batch: NDArray[np.int64]) -> Tensor:
    """(batch, candidates), far below all others where there is none."""
    there = torch.from_numpy(asked.there[batch])
    return torch.where(there, network(torch.from_numpy(asked.features[batch])), -1e9)


def _losses(network: Network, asked: Asked, batch: NDArray[np.int64]) -> Tensor:
    """Cross-entropy of what each case took, shared out equally if that is several items, (batch,)."""
    wanted = torch.from_numpy(asked.taken[batch]).float()
    return -(torch.log_softmax(_logits(network, asked, batch), 1) * wanted).sum(1) / wanted.sum(1)
