"""What a re-ranker is made of: counts of pairs of items, and a small network over what is known of candidates."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec_stream.data.dataset import Interactions
from mmrec_stream.data.item_item import directed_cooccurrence
from mmrec_stream.ranking.reranking import NAMES, SHRINK, Counts
from mmrec_stream.releases.folder import COUNTED

HIDDEN = 32
"""Width of the hidden layer; 64, and a second layer, were no better on Beauty's validation."""

DROPOUT = 0.1
"""Share of hidden values dropped while it is fitted."""

PAIRS = 128
"""Entries kept of an item, of 24 bytes each: on Beauty's validation, 64 lose a tenth of what 256 gain."""

WINDOW = 5
"""Farthest distance at which one liking counts as after another."""

OF_USER = 100
"""Newest likings of a user that count as liked together: pairs grow with the square of them."""


class Network(nn.Module):
    """Logits of candidates, (batch, candidates), from their features (batch, candidates, `NAMES`)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
        """Features are brought to mean 0 and deviation 1 by these, (`NAMES`,)."""
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("scale", torch.from_numpy(scale))
        self.weight = nn.Parameter(torch.ones(()))
        self.first = nn.Linear(len(NAMES), HIDDEN)
        self.dropout = nn.Dropout(DROPOUT)
        self.second = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        hidden = torch.relu(self.first((features - self.mean) / self.scale))
        logits: Tensor = self.weight * features[:, :, 0] + self.second(self.dropout(hidden)).squeeze(-1)
        return logits


@dataclass(frozen=True)
class Reranking:
    """A fitted re-ranker."""

    network: Network
    counts: Counts

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of candidates with these features (batch, candidates, `NAMES`), (batch, candidates)."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self.network(torch.from_numpy(features)).numpy()
        return logits


def counts_of(log: Interactions, items: int) -> Counts:
    """What likings say of pairs of items, `COUNTED`, with the `PAIRS` pairs of each item that say most."""
    newest = log.where(log.offsets(int(log.users.max(initial=-1)) + 1)[log.users + 1] - np.arange(len(log)) <= OF_USER)
    ones = np.ones(len(newest), dtype=np.float32)
    taken = sp.csr_matrix((ones, (newest.users, newest.items)), shape=(int(log.users.max(initial=-1)) + 1, items))
    taken.data[:] = 1.0
    together = sp.csr_matrix(taken.T @ taken)
    liked = np.bincount(log.items[log.firsts], minlength=items).astype(np.float32)
    together.setdiag(0)
    together.eliminate_zeros()
    after, right_after = (
        directed_cooccurrence(log, items, window=window, backward=0.0, row_power=0.0) for window in (WINDOW, 1)
    )
    pairs = together.tocoo()
    cosine = pairs.data / (np.sqrt(liked[pairs.row] * liked[pairs.col]) + SHRINK)
    worth = sp.csr_matrix((cosine, (pairs.row, pairs.col)), shape=(items, items))
    worth = sp.csr_matrix(worth + sp.diags(1.0 / (liked + SHRINK)) @ after)
    worth.setdiag(0)
    worth.eliminate_zeros()
    owners = np.repeat(np.arange(items), np.diff(worth.indptr))
    order = np.lexsort((worth.indices, -worth.data, owners))
    kept = order[np.arange(len(order)) - worth.indptr[owners] < PAIRS - 1]
    known = np.flatnonzero(liked)
    entries = np.zeros(len(known) + len(kept), dtype=COUNTED)
    own, rest = entries[: len(known)], entries[len(known) :]
    own["of"] = own["item"] = known
    own["users"] = liked[known]
    rest["of"], rest["item"] = owners[kept], worth.indices[kept]
    for name, matrix in (("users", together), ("after", after), ("before", after.T.tocsr()), ("next", right_after)):
        rest[name] = np.asarray(matrix[rest["of"], rest["item"]]).ravel()
    return Counts(entries[np.argsort(entries["of"], kind="stable")], items)
