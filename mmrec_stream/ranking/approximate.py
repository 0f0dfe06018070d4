"""Best items by inner product when even the exact scan is too slow: inverted lists, searched in part.

An option for catalogues beyond about a million items, or above 100,000 when users come one at a time. It says what it
misses: the recall that was measured when it was built. Needs `faiss-cpu` (`pip install mmrec-stream[ann]`).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.errors import UserError
from mmrec_stream.ranking.exact import ExactIndex

PROBED_USERS = 256
"""Queries that the recall is measured on: its standard error at .95 over 100 places each is below .5%."""

PLACES = 100
"""The recall is that of the best 100: what a re-ranker behind it would look at."""

RESCORED = 2
"""Candidates fetched per place, to be ordered again in fp32: rounding to int8 moves items by a few places only."""

TRAINED_PER_LIST = 64
"""Vectors per centroid that k-means sees. faiss asks for 39 at least, and training time grows with the number."""


class ApproximateIndex:
    """Inverted lists of int8 codes over a table (Jégou, Douze and Schmid, PAMI 2011), re-scored in fp32.

    Items that were added after it was built are scored exactly. `recall` is the measured share of the best `PLACES`.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        available: NDArray[np.bool_],
        *,
        recall: float = 0.95,
        queries: NDArray[np.float32] | None = None,
    ) -> None:
        """Build the lists and choose how many of them a search opens.

        Args:
            vectors: Item vectors, C-contiguous (items, d). Held, not copied.
            available: Which items may be found, (items,). Held.
            recall: What is to be reached; lists are opened until it is, or all of them are.
            queries: Users' vectors to measure the recall on, (users, d); item vectors stand for them where None.

        Raises:
            UserError: faiss is not installed.
        """
        self._faiss = load_faiss()
        self._vectors, self._available = vectors, available
        self._built = count = len(vectors)
        # 4 · √n lists (faiss's own guideline) balance finding lists and reading them.
        self._lists = max(1, min(int(4 * math.sqrt(count)), count // TRAINED_PER_LIST))
        random = np.random.default_rng(0)
        metric = self._faiss.METRIC_INNER_PRODUCT
        self._quantizer = self._faiss.IndexFlatIP(vectors.shape[1])
        self._index = self._faiss.IndexIVFScalarQuantizer(
            self._quantizer, vectors.shape[1], self._lists, self._faiss.ScalarQuantizer.QT_8bit, metric
        )
        self._index.train(vectors[random.permutation(count)[: self._lists * TRAINED_PER_LIST]])
        self._index.add(vectors)
        if queries is None:
            queries = vectors[random.integers(0, count, PROBED_USERS)]
        self._opened, self.recall = self._calibrate(queries[:PROBED_USERS], recall)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def opened(self) -> int:
        """Lists that a search looks into."""
        return self._opened

    def update(self, vectors: NDArray[np.float32], available: NDArray[np.bool_]) -> None:
        """Take over a table that has grown, or in which availability has changed."""
        self._vectors, self._available = vectors, available

    def search(
        self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """As `ExactIndex.search`: rows and scores, (batch, k), best first; −inf where nothing was found."""
        excluded = np.empty((len(queries), 0), dtype=np.int64) if excluded is None else excluded
        found = self._candidates(queries, RESCORED * (k + excluded.shape[1]))
        tail = np.arange(self._built, len(self._vectors))
        rows = np.hstack([found, np.broadcast_to(tail, (len(queries), len(tail)))])
        if rows.shape[1] < k:
            rows = np.pad(rows, ((0, 0), (0, k - rows.shape[1])), constant_values=-1)
        scores = np.einsum("bkd,bd->bk", self._vectors[rows], queries).astype(np.float32)
        barred = (rows < 0) | ~self._available[rows] | (rows[:, :, None] == excluded[:, None, :]).any(axis=2)
        scores[barred] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, best, axis=1), np.take_along_axis(scores, best, axis=1)

    def _candidates(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Rows by their int8 scores, (batch, count), −1 where the opened lists had fewer."""
        sellable = np.packbits(self._available[: self._built], bitorder="little")
        options = self._faiss.SearchParametersIVF(nprobe=self._opened, sel=self._faiss.IDSelectorBitmap(sellable))
        _, rows = self._index.search(queries, min(count, self._built), params=options)
        found: NDArray[np.int64] = rows
        return found

    def _calibrate(self, queries: NDArray[np.float32], wanted: float) -> tuple[int, float]:
        places = min(PLACES, self._built)
        exact = ExactIndex(self._vectors, self._available).search(queries, places)[0]
        self._opened = 1
        while True:
            rows = self.search(queries, places)[0]
            recall = float(np.mean([len(np.intersect1d(a, b)) / places for a, b in zip(rows, exact, strict=True)]))
            if recall >= wanted or self._opened == self._lists:
                return self._opened, recall
            # By half as much again: doubling would open up to twice the lists that are needed.
            self._opened = min(self._lists, max(self._opened + 1, self._opened * 3 // 2))


def load_faiss() -> Any:
    """The library, which is an extra.

    Raises:
        UserError: It is not installed.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise UserError("the approximate index needs faiss: pip install 'mmrec-stream[ann]'") from None
    return faiss
