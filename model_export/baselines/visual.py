"""VBPR as a baseline: matrix factorisation by pairwise ranking that also looks at what items are like."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation.baselines.base import Baseline, Setting, features_of

BATCH = 512
"""Pairs a step: some thirty steps a pass over the log of a thousand customers."""

LEARNING_RATE = 3e-3
"""Of Adam."""


class Vbpr(Baseline):
    """VBPR: a user's taste in items, and in what their features say; `modality` as for content kNN.

    He and McAuley (AAAI 2016). Items that training has not seen are what their features say, and no random items that
    others are told apart from; a user without training events is the mean of all users.
    """

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {
        "factors": (32,),
        "regularization": (0.01, 0.1),
        "epochs": (50,),
    }

    def __init__(self, modality: str, seed: int = 0) -> None:
        super().__init__(seed)
        self.modality = modality

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Rank what each user took above what they did not."""
        features = torch.from_numpy(features_of(dataset, self.modality, "VBPR"))
        torch.manual_seed(self.seed)
        generator = np.random.default_rng(self.seed)
        seen, known = np.unique(log.items), np.unique(log.users)
        net = _Vbpr(dataset.users, features, int(self.number("factors")))
        optimiser = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
        for _ in range(int(self.number("epochs"))):
            for batch in np.array_split(generator.permutation(len(log)), max(1, len(log) // BATCH)):
                users = torch.from_numpy(log.users[batch]).long()
                taken = torch.from_numpy(log.items[batch]).long()
                others = torch.from_numpy(generator.choice(seen, len(batch))).long()
                better, better_size = net(users, taken)
                worse, worse_size = net(users, others)
                penalty = self.number("regularization") * (better_size + worse_size).mean()
                loss = -functional.logsigmoid(better - worse).mean() + penalty
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            unseen = torch.from_numpy(np.setdiff1d(np.arange(dataset.items), seen)).long()
            net.items.weight[unseen] = 0.0
            net.bias.weight[unseen] = 0.0
            strangers = torch.from_numpy(np.setdiff1d(np.arange(dataset.users), known)).long()
            for table in (net.users, net.tastes):
                table.weight[strangers] = table.weight[torch.from_numpy(known).long()].mean(dim=0)
            self._users = torch.cat([net.users.weight, net.tastes.weight], dim=1).numpy()
            looks = net.looks(net.features)
            self._items = torch.cat([net.items.weight, looks], dim=1).numpy()
            self._bias = (net.bias.weight + net.liked(net.features)).squeeze(1).numpy()

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """The model's preference for every item."""
        return np.asarray(self._users[cases.users] @ self._items.T + self._bias, dtype=np.float32)


class _Vbpr(nn.Module):
    def __init__(self, users: int, features: Tensor, factors: int) -> None:
        super().__init__()
        self.users, self.tastes = nn.Embedding(users, factors), nn.Embedding(users, factors)
        self.items, self.bias = nn.Embedding(len(features), factors), nn.Embedding(len(features), 1)
        self.looks = nn.Linear(features.shape[1], factors, bias=False)
        self.liked = nn.Linear(features.shape[1], 1, bias=False)
        self.features = features
        for table in (self.users, self.tastes, self.items):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Preference of each user for each item, and the squared length of what it was made of, (batch,) each."""
        user, taste, item, bias = self.users(users), self.tastes(users), self.items(items), self.bias(items).squeeze(1)
        features = self.features[items]
        preference = (user * item).sum(1) + (taste * self.looks(features)).sum(1) + bias
        size = (user**2).sum(1) + (taste**2).sum(1) + (item**2).sum(1) + bias**2
        return preference + self.liked(features).squeeze(1), size
