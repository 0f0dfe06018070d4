"""The trained hybrid model: its parts together, and the scores that it gives to cases."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.requests import requests
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation import metrics
from mmrec_stream.ranking.features import Labels
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.reranking import rerank
from mmrec_stream.ranking.types import Features, Lists
from model_export.config import ModelConfig
from model_export.inputs import Inputs
from model_export.items import ItemModel
from model_export.ranker import BUCKETS, Ranker, Request, Table, in_season
from model_export.reranker import Reranking
from model_export.season import Season
from model_export.social import Social

Part = Literal["mixed", "user", "item", "reranked"]
"""Which scores: the mix at the fitted α, p_user alone (α = 1), p_item alone (α = 0), or the mix as the re-ranker, where
there is one, orders its best items."""

SCORE_BATCH = 128
"""Cases scored at a time: with 100,000 items, each of the few dense arrays takes 50 MB."""

PLACES = 500
"""Places that re-ranked scores tell apart; no list is as long."""


@dataclass
class Report:
    """How the model was learned."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each pass, nats."""
    metrics: list[float] = field(default_factory=list)
    """NDCG of p_user on validation after each pass."""
    best_epoch: int = 0
    seconds: float = 0.0
    modality_weights: dict[str, float] = field(default_factory=dict)
    """Share of each modality in what decides, where there are several; see `model_export.shares`."""
    alpha: dict[int, float] = field(default_factory=dict)
    """α by least history length."""
    alpha_curve: dict[float, float] = field(default_factory=dict)
    """NDCG on validation with one α for all."""
    social: dict[float, float] = field(default_factory=dict)
    """NDCG of p_user on validation by the weight of those that a user follows, where the data says whom."""
    validation: dict[str, float] = field(default_factory=dict)
    """Metrics of the mix and of both halves alone on validation."""


@dataclass(frozen=True)
class TrainedModel:
    """A model and everything that a release is made from."""

    config: ModelConfig
    dataset: Dataset
    inputs: Inputs
    items: ItemModel
    ranker: Ranker
    vectors: NDArray[np.float32]
    """(items, dim)."""
    neighbours: NDArray[np.int32]
    """(items, K), −1 where there is none."""
    neighbour_weights: NDArray[np.float32]
    """(items, K), whatever the season."""
    report: Report
    social: Social | None = None
    """Whom users follow, where the data says so and it helps."""
    season: Season | None = None
    """What is taken when, where the catalogue's order tells and it helps."""
    reranking: Reranking | None = None
    """What orders the mix's best items anew, where it helps."""

    @property
    def alpha(self) -> dict[int, float]:
        """α by least history length."""
        return dict(zip(BUCKETS, (round(alpha, 4) for alpha in self.ranker.alphas.tolist()), strict=True))

    @property
    def released_weights(self) -> NDArray[np.float32]:
        """The neighbours' weights in the season after the log, (items, K): what a release serves."""
        if self.season is None:
            return self.neighbour_weights
        demand = self.season.now()[np.maximum(self.neighbours, 0)]
        return in_season(torch.from_numpy(self.neighbour_weights), torch.from_numpy(demand)).numpy()

    def score(self, cases: Cases, part: Part = "mixed") -> NDArray[np.float32]:
        """Scores of all items for cases, (cases, items): probabilities, higher is better.

        Each case is scored in the season of its own moment, as a release of that day would. Re-ranked, all but
        the best `PLACES` are −∞, and what lists must not have is below 0.
        """
        features = case_features(cases, self.dataset, self.inputs, self.config)
        scores = np.empty((len(cases), len(self.vectors)), dtype=np.float32)
        if part == "reranked" and self.reranking is not None:
            banned = cases.banned(mask_history=not self.config.repeats)
            counts, logits = self.reranking.counts, self.reranking.logits
            scores[:] = -np.inf
            for some, lists in self.candidates(features, cases, banned, PLACES):
                ordered = rerank(features.part(some), lists, self.vectors, counts, logits)
                np.put_along_axis(scores[some], ordered.rows, ordered.scores, axis=1)
            return scores
        for some, p_user, p_item, alpha in self._distributions(features, cases):
            if part in ("user", "item"):
                scores[some] = (p_user if part == "user" else p_item).numpy()
            else:
                weight = alpha.unsqueeze(1)
                scores[some] = (weight * p_user + (1 - weight) * p_item).numpy()
        return scores

    def candidates(
        self, features: Features, cases: Cases, banned: Sequence[NDArray[np.integer]], count: int
    ) -> Iterator[tuple[slice, Lists]]:
        """The best items by the mix, some cases at a time.

        Args:
            features: The ranker's inputs for the cases.
            cases: Whom to choose for.
            banned: The items that the list of each case must not have.
            count: How many, or all that there are.
        """
        for some, p_user, p_item, alpha in self._distributions(features, cases):
            weight = alpha.unsqueeze(1)
            mixed = weight * p_user + (1 - weight) * p_item
            for row, items in enumerate(banned[some]):
                mixed[row, items] = -1.0
            scores, rows = torch.topk(mixed, min(count, mixed.shape[1]), dim=1)
            by_user, by_item = (half.gather(1, rows).numpy() for half in (p_user, p_item))
            yield some, Lists(rows.numpy(), scores.numpy(), by_user, by_item, alpha.numpy())

    def _distributions(self, features: Features, cases: Cases) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """p_user, p_item and alpha of some cases at a time, as of `Ranker.distributions`."""
        table = table_of(self.vectors, self.neighbours, self.neighbour_weights)
        users = user_vectors(self.ranker, features, self.vectors)
        if self.social is not None:
            users = self.social.blend(users, cases, self._user_vectors)
        done = 0
        batches = with_demand(request_batches(features), cases, self.season)
        for (request, demand), own in zip(batches, users.split(SCORE_BATCH), strict=True):
            with torch.no_grad():
                found = self.ranker.distributions(request, own, table, demand)
            yield slice(done, done + len(own)), *found
            done += len(own)

    def _user_vectors(self, cases: Cases) -> Tensor:
        features = case_features(cases, self.dataset, self.inputs, self.config)
        return user_vectors(self.ranker, features, self.vectors)


def user_vectors(ranker: Ranker, features: Features, vectors: NDArray[np.float32]) -> Tensor:
    """The users' vectors, (users, dim), with item vectors (items, dim), on the CPU."""
    device = next(ranker.parameters()).device
    table = torch.from_numpy(vectors).to(device)
    with torch.no_grad():
        batches = [Request(*(tensor.to(device) for tensor in request)) for request in request_batches(features)]
        return torch.cat([ranker.user_vectors(request, table) for request in batches]).float().cpu()


def case_features(cases: Cases, dataset: Dataset, inputs: Inputs, config: ModelConfig) -> Features:
    """The ranker's inputs for cases."""
    none = np.zeros((dataset.items, 1))
    rows = ItemTable(dataset.item_ids, none.astype(np.float32), none.astype(np.int32), none.astype(np.float32))
    lists = inputs.vocabularies
    labels = Labels(lists["categories"]), Labels(lists["brands"])
    return requests(cases, rows, inputs.facts, labels, config.history)


def table_of(
    vectors: NDArray[np.float32], neighbours: NDArray[np.int32], neighbour_weights: NDArray[np.float32]
) -> Table:
    """The item side as tensors, everything available."""
    available = torch.ones(len(vectors), dtype=torch.bool)
    return Table(
        torch.from_numpy(vectors), torch.from_numpy(neighbours), torch.from_numpy(neighbour_weights), available
    )


def request_batches(features: Features, size: int = SCORE_BATCH) -> Iterator[Request]:
    """The features as tensors, `size` users at a time."""
    for start in range(0, len(features), size):
        yield Request(*(torch.from_numpy(getattr(features, f.name)[start : start + size]) for f in fields(features)))


def with_demand(
    batches: Iterable[Request], cases: Cases, season: Season | None
) -> Iterator[tuple[Request, Tensor | None]]:
    """Each batch of the cases with what is in demand at their moments, (batch, items)."""
    done = 0
    for request in batches:
        count = len(request.lengths)
        moments = cases.times[done : done + count]
        yield request, None if season is None else torch.from_numpy(season.at(moments))
        done += count


def sample_cases(cases: Cases, most: int, seed: int = 0) -> Cases:
    """At most `most` of the cases, drawn at random."""
    if len(cases) <= most:
        return cases
    return cases.where(np.sort(np.random.default_rng(seed).choice(len(cases), most, replace=False)))


def ndcg_at(places: int, scores: NDArray[np.float32], cases: Cases, *, mask_history: bool) -> NDArray[np.float64]:
    """NDCG at so many places of each case, full ranking; ties are broken at random, always the same way."""
    order = np.random.default_rng(0).permutation(scores.shape[1])
    lists = metrics.top_lists(scores, places, cases.banned(mask_history=mask_history), order)
    return metrics.ndcg(metrics.hits(lists, cases.targets), cases.targets, places)
