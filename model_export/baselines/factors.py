"""Factor models as baselines: implicit ALS and BPR from the library `implicit`, and Neural CF in torch."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from implicit.cpu.als import AlternatingLeastSquares  # type: ignore[import-untyped]
from implicit.cpu.bpr import BayesianPersonalizedRanking  # type: ignore[import-untyped]
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn
from torch.nn import functional

from mmrec_stream.data import item_item
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation.baselines.base import Baseline, Setting


class Als(Baseline):
    """Weighted matrix factorisation by alternating least squares; a history is folded in as a new user.

    Hu, Koren and Volinsky (ICDM 2008).
    """

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"factors": (64, 128), "alpha": (10, 1, 40)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Factorise the user-item matrix."""
        # BLAS threads get in the way of the library's own.
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(
                factors=int(self.number("factors")), alpha=self.number("alpha"), random_state=self.seed, num_threads=1
            )
            self._model.fit(_matrix(dataset, log), show_progress=False)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Inner products of the folded-in users with all items."""
        history = item_item.history_matrix(cases, len(self._model.item_factors), 1.0)
        history.sum_duplicates()
        users = self._model.recalculate_user(np.arange(len(cases)), sp.csr_matrix(history))
        return np.asarray(users @ self._model.item_factors.T, dtype=np.float32)


class Bpr(Baseline):
    """Matrix factorisation by pairwise ranking; a user without training events is the mean of their items.

    Rendle et al. (UAI 2009).
    """

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"factors": (64, 128), "regularization": (0.01, 0.05)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Rank what each user took above what they did not."""
        self._model = BayesianPersonalizedRanking(
            factors=int(self.number("factors")),
            regularization=self.number("regularization"),
            random_state=self.seed,
            num_threads=1,
        )
        matrix = _matrix(dataset, log)
        self._model.fit(matrix, show_progress=False)
        self._known = np.diff(matrix.indptr) > 0

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Inner products of the users with all items."""
        items = self._model.item_factors
        history = item_item.history_matrix(cases, len(items), 1.0)
        folded = (history @ items) / np.maximum(cases.lengths, 1)[:, None]
        known = self._known[cases.users][:, None]
        users = np.where(known, self._model.user_factors[cases.users], folded)
        return np.asarray(users @ items.T, dtype=np.float32)


class NeuralCf(Baseline):
    """NeuMF: a generalised product and a small network over user and item embeddings.

    He et al. (WWW 2017). A user without training events is the mean of all users.
    """

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"epochs": (10,)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Tell what each user took from four random items each time, as published."""
        torch.manual_seed(self.seed)
        generator = np.random.default_rng(self.seed)
        self._net = _NeuMf(dataset.users, dataset.items)
        optimiser = torch.optim.Adam(self._net.parameters(), lr=2e-3)
        for _ in range(int(self.number("epochs"))):
            for batch in np.array_split(generator.permutation(len(log)), max(1, len(log) // 2048)):
                users = torch.from_numpy(np.tile(log.users[batch], 5)).long()
                sampled = generator.integers(0, dataset.items, 4 * len(batch))
                items = torch.from_numpy(np.r_[log.items[batch], sampled]).long()
                label = torch.cat([torch.ones(len(batch)), torch.zeros(4 * len(batch))])
                loss = functional.binary_cross_entropy_with_logits(self._net(users, items), label)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        known = np.unique(log.users)
        self._net.introduce_strangers(torch.from_numpy(np.setdiff1d(np.arange(dataset.users), known)), known)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """The network's logit for every item."""
        with torch.no_grad():
            return np.stack([self._net.all_items(int(user)).numpy() for user in cases.users])


class _NeuMf(nn.Module):
    WIDTH = 32

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, 2 * self.WIDTH), nn.Embedding(items, 2 * self.WIDTH)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.01)
        self.mix = nn.Sequential(nn.Linear(2 * self.WIDTH, self.WIDTH), nn.ReLU(), nn.Linear(self.WIDTH, 16), nn.ReLU())
        self.out = nn.Linear(self.WIDTH + 16, 1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self._logits(self.user(users), self.item(items))

    def all_items(self, user: int) -> torch.Tensor:
        vectors = self.item.weight
        return self._logits(self.user.weight[user].expand(len(vectors), -1), vectors)

    @torch.no_grad()
    def introduce_strangers(self, strangers: torch.Tensor, known: NDArray[np.int32]) -> None:
        self.user.weight[strangers] = self.user.weight[torch.from_numpy(known).long()].mean(dim=0)

    def _logits(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        product = user[:, : self.WIDTH] * item[:, : self.WIDTH]
        mixed = self.mix(torch.cat([user[:, self.WIDTH :], item[:, self.WIDTH :]], dim=1))
        return torch.as_tensor(self.out(torch.cat([product, mixed], dim=1)).squeeze(1))


def _matrix(dataset: Dataset, log: Interactions) -> sp.csr_matrix:
    shape = (dataset.users, dataset.items)
    return sp.csr_matrix((np.ones(len(log), np.float32), (log.users, log.items)), shape=shape)
