"""What everybody does at the moment: decayed counts of interactions an item, for users of whom nothing is known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.catalogue.index import UNKNOWN, KeyIndex
from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.identity import NO_KEY
from mmrec_stream.profiles.record import RING, Records

HALF_LIFE_MS = 3 * 3_600_000
"""Three hours: long enough to count through a quiet night, short enough that the evening's list is the evening's."""

WEIGHTS = {EventType.VIEW: 1.0, EventType.CLICK: 1.0, EventType.ADD_TO_CART: 3.0, EventType.PURCHASE: 5.0}
"""As the profile's affinities: a purchase is worth a few views."""

RECALL_S = 24 * 3600
"""Older events weigh less than 1/256 of a present one."""

RECALLED_PROFILES = 10_000
"""Profiles that are looked at: half a million interactions rank the best 100 items as all of them would, in 50 ms. The
250,000 profiles of a large partition would take 8 s, for which its events would wait."""

_WEIGHTS = np.array([WEIGHTS.get(code, 0.0) for code in range(256)])  # type: ignore[call-overload]
"""By any code that a column can hold; commands weigh nothing."""

_REBASE_EXPONENT = 60.0
"""Counts are kept as of a fixed time and grow by 2^(age / half-life) (forward decay: Cormode et al. 2009); the time is
moved on before the factor leaves the range where single events still count in double precision."""


class Popularity:
    """Decayed counts of one worker's events. Its partitions are a random share of the users, so the ranking is fair."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._keys = np.zeros(1024, dtype=np.uint64)
        self._counts = np.zeros(1024, dtype=np.float64)
        self._ids: list[str] = []
        self._base_ms = 0

    def __len__(self) -> int:
        return len(self._ids)

    def count(
        self, item_ids: Sequence[str], keys: NDArray[np.uint64], types: NDArray[np.uint8], times_ms: NDArray[np.int64]
    ) -> None:
        """Count a batch of events, all arguments of length (events,). Events without an item have NO_KEY."""
        weights = np.where(keys != NO_KEY, _WEIGHTS[types], 0.0)
        counted = np.flatnonzero(weights)
        self.add([item_ids[place] for place in counted.tolist()], keys[counted], weights[counted], times_ms[counted])

    def add(
        self,
        item_ids: Sequence[str],
        keys: NDArray[np.uint64],
        weights: NDArray[np.float64],
        times_ms: NDArray[np.int64],
    ) -> None:
        """Add weights of items as of times, all arguments of length (n,)."""
        if not len(keys):
            return
        newest = int(times_ms.max())
        if not self._base_ms or (newest - self._base_ms) / HALF_LIFE_MS > _REBASE_EXPONENT:
            self._rebase(newest)
        rows = self._index.add(keys)
        if len(self._index) > len(self._ids):
            self._note(item_ids, keys, rows)
        np.add.at(self._counts, rows, weights * np.exp2((times_ms - self._base_ms) / HALF_LIFE_MS))

    def top(self, count: int) -> tuple[list[str], NDArray[np.uint64], NDArray[np.float64]]:
        """The `count` most popular items, best first: ids, keys, and their share of the first one's count."""
        counts = self._counts[: len(self._ids)]
        best = np.argpartition(-counts, count)[:count] if count < len(counts) else np.arange(len(counts))
        # Ties by key: the same on every worker, and no item is preferred for the age of its id.
        best = best[np.lexsort((self._keys[best], -counts[best]))]
        best = best[counts[best] > 0]
        share = counts[best] / counts[best[0]] if len(best) else counts[best]
        return [self._ids[row] for row in best], self._keys[best], share

    def _note(self, item_ids: Sequence[str], keys: NDArray[np.uint64], rows: NDArray[np.int64]) -> None:
        if len(self._index) > len(self._keys):
            capacity = 2 * len(self._index)
            for name in ("_keys", "_counts"):
                grown = np.zeros(capacity, dtype=getattr(self, name).dtype)
                grown[: len(self._ids)] = getattr(self, name)[: len(self._ids)]
                setattr(self, name, grown)
        for place in np.flatnonzero(rows >= len(self._ids)).tolist():
            if rows[place] == len(self._ids):
                self._ids.append(item_ids[place])
                self._keys[rows[place]] = keys[place]

    def _rebase(self, newest_ms: int) -> None:
        if self._base_ms:
            self._counts *= np.exp2((self._base_ms - newest_ms) / HALF_LIFE_MS)
        self._base_ms = newest_ms


def recent_weights(
    records: Records, catalogue: Catalogue
) -> tuple[list[str], NDArray[np.uint64], NDArray[np.float64], NDArray[np.int64]]:
    """What restored profiles did lately, for `Popularity.add`: ids, keys, weights and times, one place an item.

    A worker that has just started knows what is popular from it. Only interactions within `RECALL_S` of the newest
    profile count, and only items that the catalogue names. Of many profiles a part stands for all.
    """
    step = -(-len(records) // RECALLED_PROFILES) or 1
    records = records[::step]
    newest_ms = int(records["last_ms"].max(initial=0))
    valid = np.arange(RING)[None, :] < records["size"][:, None]
    recent = valid & (records["times"].astype(np.int64) + RECALL_S > newest_ms // 1000)
    keys, places = np.unique(records["items"][recent], return_inverse=True)
    ages_ms = newest_ms - records["times"][recent].astype(np.int64) * 1000
    weights = step * np.bincount(
        places, _WEIGHTS[records["types"][recent]] * np.exp2(-ages_ms / HALF_LIFE_MS), minlength=len(keys)
    )
    rows = catalogue.rows(keys)
    named = (rows != UNKNOWN) & (weights > 0)
    ids = [catalogue.ids[row] for row in rows[named].tolist()]
    return ids, keys[named], weights[named], np.full(len(ids), newest_ms, dtype=np.int64)
