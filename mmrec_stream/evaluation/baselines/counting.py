"""Baselines that count: popularity, item kNN, directed co-occurrence, content kNN, and sessions like this one."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec_stream.data import item_item
from mmrec_stream.data.dataset import DAY_MS, Dataset, Interactions
from mmrec_stream.data.splits import Cases
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.baselines.base import Baseline, Setting, features_of

DECAYS = (0.8, 0.6, 0.4, 1.0)
"""Weights of a step back in the history that are tried; 1 forgets the order."""

CONTENT_NEIGHBOURS = 500
"""Neighbours an item keeps by content: five times the longest list that is judged."""


SHARPNESS = 0.05
"""Difference of cosines at which one neighbour counts e times another. With bare cosines the sum over a history names
what is a little like all of it, and misses what is just like one item of it: a third of the recall on H&M."""


class Popularity(Baseline):
    """The same for everybody: items by how often they were taken in the last days of the log (0: all of it)."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"days": (0, 7, 28)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Count."""
        days = self.number("days")
        recent = log if not days else log.where(log.times >= log.times.max(initial=0) - days * DAY_MS)
        self._counts = np.bincount(recent.items, minlength=dataset.items).astype(np.float32)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """The counts, for every case."""
        return np.tile(self._counts, (len(cases), 1))


class ItemItem(Baseline):
    """A history with decayed weights, times an item-to-item matrix that a subclass learns."""

    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"decay": DECAYS}
    _weights: sp.csr_matrix | NDArray[np.float32]

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Sum over the history of decay^age · weight."""
        history = item_item.history_matrix(cases, self._weights.shape[0], self.number("decay"))
        scores = history @ self._weights
        return np.asarray(scores.toarray() if sp.issparse(scores) else scores, dtype=np.float32)


class ItemKnn(ItemItem):
    """Item kNN: shrunk cosine of the items' sets of users."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"shrink": (10, 0)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Count common users."""
        self._weights = item_item.cosine_cooccurrence(log, dataset.items, shrink=self.number("shrink"))


class DirectedCooccurrence(ItemItem):
    """What follows what, recency-weighted: what a stream can count as it goes."""

    learn_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"backward": (0.0, 0.3, 1.0)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Count pairs within a window."""
        self._weights = item_item.directed_cooccurrence(
            log,
            dataset.items,
            backward=self.number("backward"),
            repeats=self.repeats,
        )


class ContentKnn(ItemItem):
    """Items that look or read like the history; `modality` names one of the data set's features, or `both` = all."""

    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"decay": (0.9, 1.0, 0.8)}

    def __init__(self, modality: str, seed: int = 0) -> None:
        super().__init__(seed)
        self.modality = modality

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Compare the items' vectors; the log is not used."""
        features = features_of(dataset, self.modality, "content kNN")
        self._weights = _sharpened(item_item.content_neighbours(features, CONTENT_NEIGHBOURS))


class DescriptionKnn(ItemItem):
    """Items that are described by the same words and labels as the history."""

    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"decay": (0.9, 1.0, 0.8)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Compare the catalogue's entries; the log is not used."""
        if dataset.catalogue is None:
            raise UserError(f"data set {dataset.name} has no catalogue, whose words content kNN compares")
        terms = item_item.description_terms(dataset.catalogue)
        self._weights = _sharpened(item_item.content_neighbours(terms, CONTENT_NEIGHBOURS))


class SessionKnn(Baseline):
    """VSKNN: the most similar past sessions vote for their items.

    Ludewig and Jannach (UMUAI 2018): of the `sample` most recent sessions that share an item, the `neighbours` most
    similar ones; similarity is the sum of linearly decayed weights of the shared items; a neighbour's items are
    weighted by how recent its last shared item is in the current session.
    """

    ask_grid: ClassVar[Mapping[str, Sequence[Setting]]] = {"sample": (1000,), "neighbours": (100, 500), "idf": (0, 1)}

    def learn(self, dataset: Dataset, log: Interactions) -> None:
        """Index sessions by item, newest first."""
        starts = np.flatnonzero(np.r_[True, log.users[1:] != log.users[:-1]])
        session = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(log)]))
        ends = log.times[np.r_[starts[1:], len(log)] - 1]
        self._items = dataset.items
        self._sessions = sp.csr_matrix(
            (np.ones(len(log), np.float32), (session, log.items)), shape=(len(starts), dataset.items)
        )
        self._sessions.data[:] = 1.0
        newest_first = np.argsort(-ends, kind="stable")
        by_item = sp.csc_matrix(self._sessions[newest_first])
        by_item.sort_indices()
        self._sessions_of = [
            newest_first[by_item.indices[by_item.indptr[item] : by_item.indptr[item + 1]]]
            for item in range(dataset.items)
        ]
        self._ends = ends
        frequency = np.asarray(self._sessions.sum(axis=0)).ravel()
        self._idf = np.log(len(starts) / np.maximum(frequency, 1)).astype(np.float32)

    def score(self, cases: Cases) -> NDArray[np.float32]:
        """Votes of the neighbours, (cases, items)."""
        scores = np.zeros((len(cases), self._items), dtype=np.float32)
        for case in range(len(cases)):
            scores[case] = self._vote(cases.history(case))
        return scores

    def _vote(self, history: NDArray[np.int32]) -> NDArray[np.float32]:
        items, last = np.unique(history[::-1], return_index=True)
        weight = np.zeros(self._items, dtype=np.float32)
        weight[items] = 1 - last / len(history)
        candidates = np.unique(np.concatenate([self._sessions_of[item] for item in items]))
        if not len(candidates):
            return np.zeros(self._items, dtype=np.float32)
        sample = int(self.number("sample"))
        if len(candidates) > sample:
            candidates = candidates[np.argpartition(-self._ends[candidates], sample)[:sample]]
        rows = self._sessions[candidates]
        similarity = rows @ weight
        keep = int(self.number("neighbours"))
        if len(candidates) > keep:
            nearest = np.argpartition(-similarity, keep)[:keep]
            rows, similarity = rows[nearest], similarity[nearest]
        shared = sp.csr_matrix(rows.multiply(weight[None, :]))
        newest_shared = np.asarray(shared.max(axis=1).todense()).ravel()
        votes = (similarity * newest_shared) @ rows
        return np.asarray(votes * (1 + self.number("idf") * self._idf), dtype=np.float32)


def _sharpened(cosines: sp.csr_matrix) -> sp.csr_matrix:
    cosines.data = np.exp((cosines.data - 1.0) / SHARPNESS)
    return cosines
