"""Best items by inner product over a large table: an int8 scan of everything, then fp32 on what looked good.

From about 50,000 items on, reading the fp32 table and ordering one score an item is what a list costs. The scan reads a
quarter of the bytes with integer arithmetic and keeps one maximum per group of items; the groups with the best maxima
are then scored again in fp32. One ONNX graph does both (`exact.onnx`, built by `model_export.retrieval_graph`), so it
runs wherever ONNX Runtime does, and the caller pays one call a batch.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

GRAPH = Path(__file__).with_name("exact.onnx")

CHUNK = 4096
"""Items in one step of the scan. Their int32 products with 64 users are 1 MiB: half of a usual core's second-level
cache, so that the maximum is taken before they leave it. 32,768 takes 1.6 times as long, and below 2,048 the
overhead of a step shows."""

GROUP = 16
"""Items that share one maximum. Halving it doubles the maxima to be ordered (a third of the time at a million items);
doubling it doubles the rows to be scored again."""

SPARE_GROUPS = 16
"""Groups opened beyond half as many again as could be needed, which keeps small k exact: rounding to int8 moves a
score by about 1% of the best one, and so an item by a few places."""

_LEVELS = 127


class ExactIndex:
    """The scan's copy of an item table, a quarter of its size, kept in step by `update`.

    `search` may run in one thread while another calls `update`: a row is seen either before or after its change.
    """

    def __init__(self, vectors: NDArray[np.float32], available: NDArray[np.bool_], *, threads: int = 0) -> None:
        """An index of a table.

        Args:
            vectors: Item vectors, C-contiguous (items, d). Held, not copied: re-scoring reads them.
            available: Which items may be found, (items,). Held.
            threads: Threads of a search; 0 lets ONNX Runtime choose.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(GRAPH), options, providers=["CPUExecutionProvider"])
        self._vectors, self._available = vectors, available
        self._build()

    def __len__(self) -> int:
        return len(self._vectors)

    def update(self, vectors: NDArray[np.float32], available: NDArray[np.bool_], rows: NDArray[np.integer]) -> None:
        """Take over a table in which `rows` have changed or are new; the others must be as they were."""
        self._vectors, self._available = vectors, available
        changed = vectors[rows]
        outside = len(changed) > 0 and bool((np.abs(changed) > self._steps * (_LEVELS + 0.5)).any())
        if outside or len(vectors) > self._scan.shape[0] * CHUNK:
            self._build()
        else:
            chunk, place = np.divmod(rows, CHUNK)
            group, lane = np.divmod(place, GROUP)
            self._scan[chunk, :, lane * (CHUNK // GROUP) + group] = self._codes(changed, available[rows])

    def search(
        self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` available items with the largest inner products, best first.

        Args:
            queries: Users' vectors, (batch, d).
            k: At most as many as there are items.
            excluded: Rows that must not come, (batch, e), padded with −1.

        Returns:
            Rows and scores, (batch, k); a score of −inf marks a place for which no item was left.
        """
        if excluded is None:
            excluded = np.empty((len(queries), 0), dtype=np.int64)
        rows, scores = self._session.run(
            ["rows", "scores"],
            {
                "queries": queries,
                "k": np.array([k], dtype=np.int64),
                "excluded": excluded,
                "scan": self._scan,
                "steps": self._steps,
                "item_vectors": self._vectors,
                "available": self._available,
            },
        )
        return rows, scores

    def _build(self) -> None:
        """Codes of the whole table, chunk by chunk: (chunks, d, lanes · groups), neighbours in rows sharing a group."""
        count, d = self._vectors.shape
        # One step per dimension: a dimension with small values keeps its digits. Zero columns get any step.
        largest = np.abs(self._vectors).max(axis=0, initial=0.0)
        self._steps = (np.where(largest > 0, largest, 1.0) / _LEVELS).astype(np.float32)
        chunks = max(1, -(-count // CHUNK))
        scan = np.zeros((chunks, d, CHUNK), dtype=np.int8)
        for chunk in range(chunks):
            part = slice(chunk * CHUNK, min((chunk + 1) * CHUNK, count))
            codes = np.zeros((CHUNK, d), dtype=np.int8)
            codes[: part.stop - part.start] = self._codes(self._vectors[part], self._available[part])
            scan[chunk] = codes.reshape(CHUNK // GROUP, GROUP, d).transpose(2, 1, 0).reshape(d, CHUNK)
        self._scan = scan

    def _codes(self, vectors: NDArray[np.float32], available: NDArray[np.bool_]) -> NDArray[np.int8]:
        """int8 codes; of what is unavailable zeros, so that it does not open its group."""
        codes = np.rint(vectors / self._steps).astype(np.int8)
        return np.where(available[:, None], codes, np.int8(0))
