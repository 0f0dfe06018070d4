"""Best items by inner product over a large table: an int8 scan of everything, then fp32 on what can be among the best.

From about 50,000 items on, reading the fp32 table and ordering one score an item is what a list costs. The scan reads a
quarter of the bytes with integer arithmetic, and what it computes of an item is no estimate but a bound: the score is
at most that. It keeps one maximum per group of items; the groups with the largest are scored in fp32, until the next
one's bound is not above the last place. What is left outside cannot be better, on any processor. A user for whom too
many groups could be (the catalogue's vectors are all alike, say) has every item scored in fp32. One ONNX graph does all
of it (`exact.onnx`, built by `model_export.retrieval_graph`), so it runs wherever ONNX Runtime does, and the caller
pays one call a batch.

The bound. In steps s_j, an item is x_j / s_j = c_j + e_j and a user r · v_j = q_j · s_j, v_j = u_j + f_j, where c and u
are whole numbers. By Cauchy and Schwarz

    q · x / r = u·c + f·c + v·e  ≤  u·c + ‖f‖ ‖c‖ + ‖v‖ ‖e‖

and what float32 adds to an inner product of d terms, in whichever order they are summed, is below d 2⁻²⁴ ‖v‖ ‖x / s‖
(Higham, Accuracy and Stability of Numerical Algorithms, 3.1). The norms, rounded up, are further dimensions of the
codes, so that the integer product is the right-hand side.

The codes. Processors without VNNI add two neighbouring products of an unsigned by a signed byte in 16 bits, and what is
beyond 32,767 is cut off. No code here is above 127, and 2 · 127 · 127 = 32,258.
"""

from pathlib import Path
from typing import NamedTuple

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

ITEM_LEVELS = 127
"""Items' codes are −127 to 127: all that a signed byte has on both sides."""

USER_LEVELS = 63
"""Users' codes are −63 to 63, stored as 1 to 127. With the bit on the items' side, 127 and 63 the other way round, the
bound is a third wider: an item's step has to fit the whole table, a user's only that user."""

GROUPS_A_PLACE, SPARE_GROUPS = 3, 32
"""Groups that may be opened for each place, and beyond. What has to be opened is usually 1.2 to 2.5 for each; the more
may be, the longer the ordering of groups takes, and the more one user's groups cost all users in a batch."""

SLICE = 65_536
"""Items scored at once for users for whom that does not suffice: 16 MiB of vectors, and as much of scores for 64."""

_SPREAD = 120
"""Dimensions that one pair of norms' codes suffices for: ‖f‖ ‖c‖ reaches 63.5 · d, and two codes' product 63 · 127."""

_ROUNDING = 2.0**-10
"""Share by which norms are enlarged for their own rounding in float32, enough for 8,192 dimensions."""

_TINY = 1e-30
"""Dimensions without larger values are taken to have this one, so that no step is zero or loses digits."""


class ExactIndex:
    """The scan's copy of an item table, a quarter of its size, kept in step by `update`.

    `search` may run in one thread while another calls `update`: a row is seen either before or after its change.
    """

    def __init__(self, vectors: NDArray[np.float32], available: NDArray[np.bool_], *, threads: int = 0) -> None:
        """An index of a table.

        Args:
            vectors: Item vectors, finite, C-contiguous (items, d). Held, not copied: scoring reads them.
            available: Which items may be found, (items,). Held.
            threads: Threads of a search; 0 lets ONNX Runtime choose.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(GRAPH), options, providers=["CPUExecutionProvider"])
        self._table = _Table.of(vectors, available)

    def __len__(self) -> int:
        return len(self._table.item_vectors)

    def update(self, vectors: NDArray[np.float32], available: NDArray[np.bool_], rows: NDArray[np.integer]) -> None:
        """Take over a table in which `rows` have changed or are new; the others must be as they were."""
        self._table = self._table.changed(vectors, available, rows)

    def search(
        self, queries: NDArray[np.float32], k: int, excluded: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` available items with the largest inner products, best first.

        No other item has a larger inner product in float32, in whichever order its terms are summed, than the last one
        named. Of items with equal scores at the last place any may be named.

        Args:
            queries: Users' vectors, finite, (batch, d).
            k: At most as many as there are items.
            excluded: Rows that must not come, (batch, e), padded with −1.

        Returns:
            Rows and scores, (batch, k); a score of −inf marks a place for which no item was left.
        """
        if excluded is None:
            excluded = np.empty((len(queries), 0), dtype=np.int64)
        asked = {"queries": queries, "k": np.array([k], dtype=np.int64), "excluded": excluded}
        rows, scores = self._session.run(["rows", "scores"], asked | self._table._asdict())
        return rows, scores


class _Table(NamedTuple):
    """The graph's inputs that describe the items; one value, so that a search never sees half of a new table."""

    item_vectors: NDArray[np.float32]
    available: NDArray[np.bool_]
    scan: NDArray[np.int8]
    """Codes by chunk, (chunks, codes, lanes · groups): neighbouring rows share a group."""
    living: NDArray[np.bool_]
    """Groups with something available, (chunks, groups)."""
    steps: NDArray[np.float32]
    """What one in an item's code stands for, (d,)."""
    norm_steps: NDArray[np.float32]
    """From a user's ‖f‖ and ‖v‖ to the codes that meet those of ‖c‖ and ‖e‖, (2, bound codes)."""

    @classmethod
    def of(cls, vectors: NDArray[np.float32], available: NDArray[np.bool_]) -> "_Table":
        count, d = vectors.shape
        # One step per dimension: a dimension with small values keeps its digits.
        largest = np.abs(vectors).max(axis=0, initial=0.0)
        steps = (np.maximum(largest, _TINY) / ITEM_LEVELS).astype(np.float32)
        pairs, (whole, rest) = _norm_units(d)
        norm_steps = np.zeros((2, 2 * pairs), dtype=np.float32)
        norm_steps[0, :pairs] = whole * (1 + _ROUNDING) / pairs
        norm_steps[1, pairs:] = rest * (1 + _ROUNDING) / pairs
        chunks = max(1, -(-count // CHUNK))
        scan = np.zeros((chunks, d + 2 * pairs, CHUNK), dtype=np.int8)
        living = np.zeros((chunks, CHUNK // GROUP), dtype=np.bool_)
        table = cls(vectors, available, scan, living, steps, norm_steps)
        for chunk in range(chunks if count else 0):
            codes, living[chunk] = table._codes(chunk * (CHUNK // GROUP) + np.arange(CHUNK // GROUP))
            scan[chunk] = codes.transpose(2, 1, 0).reshape(-1, CHUNK)
        return table

    def changed(
        self, vectors: NDArray[np.float32], available: NDArray[np.bool_], rows: NDArray[np.integer]
    ) -> "_Table":
        """As `ExactIndex.update`; codes change in place where they can."""
        outside = bool((np.abs(vectors[rows]) > self.steps * (ITEM_LEVELS + 0.5)).any())
        if outside or len(vectors) > len(self.scan) * CHUNK:
            return _Table.of(vectors, available)
        table = self._replace(item_vectors=vectors, available=available)
        groups = np.unique(rows // GROUP)
        chunk, place = np.divmod(groups, CHUNK // GROUP)
        codes, living = table._codes(groups)
        self.scan[chunk[:, None], :, place[:, None] + np.arange(GROUP) * (CHUNK // GROUP)] = codes
        self.living[chunk, place] = living
        return table

    def _codes(self, groups: NDArray[np.integer]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Codes of all rows of some groups, (groups, lanes, codes), and whether anything in them is available.

        What is not available has the codes of a neighbour that is, so that it does not raise its group's maximum.
        """
        rows = groups[:, None] * GROUP + np.arange(GROUP)
        inside = np.minimum(rows, len(self.item_vectors) - 1)
        there = self.available[inside] & (rows == inside)
        first = np.take_along_axis(inside, there.argmax(axis=1)[:, None], axis=1)
        ratio = self.item_vectors[np.where(there, inside, first)] / self.steps
        whole = np.clip(np.rint(ratio), -ITEM_LEVELS, ITEM_LEVELS)
        ratio -= whole
        pairs, units = _norm_units(ratio.shape[2])
        norms = np.stack([np.linalg.norm(whole, axis=2), np.linalg.norm(ratio, axis=2)], axis=2)
        # What float32 adds to ‖v‖ · ‖e‖: in the inner product, and in this quotient and the user's. Twice of it is 16.
        norms[:, :, 1] += (ratio.shape[2] + 16) * 2.0**-23 * norms[:, :, 0]
        bounds = np.ceil(norms * ((1 + _ROUNDING) / np.array(units))).repeat(pairs, axis=2)
        return np.concatenate([whole, bounds], axis=2).astype(np.int8), there.any(axis=1)


def _norm_units(d: int) -> tuple[int, tuple[float, float]]:
    """How often norms come in the codes of d dimensions, and what one stands for in those of ‖c‖ and ‖e‖.

    The largest ‖c‖ there can be, 127 √d, gets code 126, which leaves 63.5 · d to be had of ‖f‖ ≤ √d / 2. ‖v‖ ≤ 63 √d is
    to have codes up to 62, so that ‖e‖ ≤ √d / 2 has them up to 61.
    """
    pairs = -(-d // _SPREAD)
    return pairs, (ITEM_LEVELS * d**0.5 / 126, 62 * pairs / (USER_LEVELS * d**0.5))
