"""Social signals: what those whom a user follows or trusts have taken, added to what the user's own history says."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.item_item import cosine_cooccurrence
from mmrec_stream.data.splits import Cases
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.baselines.base import Baseline, Setting
from mmrec_stream.evaluation.baselines.counting import DirectedCooccurrence


class SocialCooccurrence(DirectedCooccurrence):
    """Directed co-occurrence, and on top the items of those the user follows, and what goes with them.

    As in social recommenders since SocialMF (Jamali and Ester, RecSys 2010) a user draws on the mean of their trustees;
    here of the trustees' items, so that it can be counted. With weight 0, which validation may choose, it is the
    plain method.
    """

    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {
        "decay": (0.8,),
        "social": (0.1, 0.0, 0.3, 1.0),
        "spread": (0.0, 1.0),
    }

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Count pairs, and the items of each user's trustees."""
        super().learn(dataset, log)
        self._trustees_items = _trustees_items(dataset, log)
        self._alike = cosine_cooccurrence(log, dataset.items)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """The user's own evidence and that of their trustees, both with their largest value at 1."""
        own = _to_one(super().score(cases))
        theirs = self._trustees_items[cases.users]
        spread = (theirs @ self._alike).toarray() * self.number("spread")
        return own + np.float32(self.number("social")) * _to_one(theirs.toarray() + spread)


class TrusteesPopularity(Baseline):
    """Trustees' items alone: what social signals know without any history."""

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Count the items of each user's trustees."""
        self._trustees_items = _trustees_items(dataset, log)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """How many of a user's trustees took each item."""
        return np.asarray(self._trustees_items[cases.users].toarray(), dtype=np.float32)


def _trustees_items(dataset: Dataset, log: Interactions) -> sp.csr_matrix:
    """How often each user's trustees took each item, as a mean over the trustees, (users, items)."""
    if dataset.social is None:
        raise UserError(f"data set {dataset.name} has no social edges")
    shape = (dataset.users, dataset.items)
    taken = sp.csr_matrix((np.ones(len(log), np.float32), (log.users, log.items)), shape=shape)
    follower, followed = dataset.social.T
    ones = np.ones(len(follower), np.float32)
    trust = sp.csr_matrix((ones, (follower, followed)), shape=(dataset.users, dataset.users))
    each = np.maximum(np.asarray(trust.sum(axis=1)).ravel(), 1.0)
    return sp.csr_matrix(sp.diags(1.0 / each) @ trust @ taken).astype(np.float32)


def _to_one(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-9), dtype=np.float32)
