"""Social signals: a user's vector draws on the vectors of those they follow or trust.

u' = (1 − w) · u + w · mean of the followed users' vectors, each as of the case's moment, by training events alone. The
weight w is chosen on validation; 0 switches it off. It is a method for judging and for batch use: the exported ranker
sees one profile at a time, as those that a user follows live on other partitions. A follow of a brand needs none of
this: it strengthens the brand's affinity in the profile, which the ranker reads, and so draws the brand's products.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.splits import Cases, Ragged

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5)
"""Weights that are tried."""

MOST_FOLLOWED = 20
"""Followed users that count, those with the longest histories: further ones hardly move a mean, and cost as much."""

CHUNK = 256
"""Cases whose followed users are encoded at a time: at most some 5,000 histories."""

VectorsOf = Callable[[Cases], Tensor]
"""The users' vectors of cases, (cases, dim)."""


@dataclass(frozen=True)
class Social:
    """Whom users follow, and how much that counts."""

    followed: Ragged
    """The users that each user follows, (users,)."""
    log: Interactions
    """What is known of them."""
    offsets: NDArray[np.int64]
    weight: float = 0.0

    @classmethod
    def of(cls, edges: NDArray[np.int32], users: int, log: Interactions) -> "Social":
        """From edges (follower, followed), (edges, 2), for `users` users of whom `log` is known."""
        offsets = log.offsets(users)
        lengths = np.diff(offsets)
        follower, followed = edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64)
        kept = (lengths[followed] > 0) & (follower != followed)
        follower, followed = follower[kept], followed[kept]
        order = np.lexsort((-lengths[followed], follower))
        follower, followed = follower[order], followed[order]
        starts = np.searchsorted(follower, np.arange(users + 1))
        rank = np.arange(len(follower)) - starts[follower]
        few = rank < MOST_FOLLOWED
        return cls(Ragged(followed[few], np.searchsorted(follower[few], np.arange(users + 1))), log, offsets)

    def blend(self, users: Tensor, cases: Cases, vectors_of: VectorsOf) -> Tensor:
        """The users' vectors (cases, dim) with those of whom they follow; users who follow nobody keep theirs."""
        if self.weight == 0.0:
            return users
        mean, there = self.means(cases, vectors_of, users.shape[1])
        weight = self.weight * there.unsqueeze(1)
        return (1 - weight) * users + weight * mean

    def means(self, cases: Cases, vectors_of: VectorsOf, dim: int) -> tuple[Tensor, Tensor]:
        """The mean vector of the followed users at each case's moment (cases, dim), and where there is one."""
        total, count = torch.zeros(len(cases), dim), torch.zeros(len(cases))
        for start in range(0, len(cases), CHUNK):
            part = cases.where(np.arange(start, min(start + CHUNK, len(cases))))
            lists = self.followed.where(part.users.astype(np.int64))
            owners = np.repeat(np.arange(len(part)), lists.lengths)
            begins = self.offsets[lists.values]
            ends = _before(self.log.times, begins, self.offsets[lists.values + 1], part.times[owners])
            known = ends > begins
            if not known.any():
                continue
            nothing = Ragged(np.empty(0, dtype=np.int64), np.zeros(int(known.sum()) + 1, dtype=np.int64))
            followed = Cases(
                self.log,
                lists.values[known].astype(np.int32),
                begins[known],
                ends[known],
                part.times[owners[known]],
                nothing,
            )
            place = torch.from_numpy(start + owners[known])
            total.index_add_(0, place, vectors_of(followed))
            count.index_add_(0, place, torch.ones(len(place)))
        return total / count.clamp(min=1).unsqueeze(1), (count > 0).float()


def _before(
    times: NDArray[np.int64], begins: NDArray[np.int64], ends: NDArray[np.int64], moments: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The end of the rows begins:ends, sorted by time, that lie before each moment."""
    low, high = begins.copy(), ends.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = open_ & (times[np.minimum(middle, len(times) - 1)] < moments)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low
