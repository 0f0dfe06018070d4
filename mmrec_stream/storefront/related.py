"""What goes with a product, from the release that serves: what follows it in behaviour, and what resembles it."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mmrec_stream.contracts.releases import ReleaseAnnouncement
from mmrec_stream.releases import Manifest, load_release
from mmrec_stream.releases.access import opened
from mmrec_stream.releases.folder import ANY, Expected
from mmrec_stream.settings import Settings

Kind = Literal["similar", "complementary", "also_viewed"]

KEPT = 200
"""Items found for one product: twice the longest list, so that sold-out ones leave it full."""

CACHED = 10_000
"""Products whose neighbours are remembered, 20 KB each at most."""


class Relations:
    """The neighbours of items in one release. Any thread may ask."""

    def __init__(self, path: Path, expected: Expected = ANY) -> None:
        """Verify a release and map its arrays.

        Raises:
            UserError: the release is not as announced.
        """
        release = load_release(path, expected)
        self.manifest: Manifest = release.manifest
        self._ids = release.item_ids
        self._rows = {item_id: row for row, item_id in enumerate(release.item_ids)}
        self._vectors = release.item_vectors
        self._norms = np.maximum(np.linalg.norm(release.item_vectors, axis=1), 1e-9)
        self._neighbours = release.neighbours
        self._weights = release.neighbour_weights
        self._similar: OrderedDict[str, list[str]] = OrderedDict()

    @classmethod
    def announced(
        cls, announcement: ReleaseAnnouncement, settings: Settings, stopped: Callable[[], bool] = lambda: False
    ) -> "Relations":
        """Those of an announced release.

        Raises:
            UserError: as `opened`.
        """
        with opened(announcement, settings, stopped) as (path, expected):
            return cls(path, expected)

    @property
    def version(self) -> str:
        """The release's version."""
        return self.manifest.version

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def also_viewed(self, item_id: str) -> list[str]:
        """What is chosen after the item, most often first; it mixes what looks alike in where little is known."""
        row = self._rows.get(item_id)
        if row is None:
            return []
        return [
            self._ids[neighbour]
            for neighbour, weight in zip(self._neighbours[row].tolist(), self._weights[row].tolist(), strict=True)
            if neighbour >= 0 and weight > 0 and neighbour != row
        ]

    def similar(self, item_id: str) -> list[str]:
        """What resembles the item most, by the cosine of learned vectors. A scan of the table: call it in a thread."""
        row = self._rows.get(item_id)
        if row is None:
            return []
        known = self._similar.get(item_id)
        if known is None:
            cosine = (self._vectors @ self._vectors[row]) / self._norms
            cosine[row] = -np.inf
            keep = min(KEPT, len(cosine) - 1)
            best = np.argpartition(-cosine, keep - 1)[:keep] if keep else np.zeros(0, dtype=np.int64)
            best = best[np.lexsort((best, -cosine[best]))]
            known = self._similar[item_id] = [self._ids[place] for place in best.tolist()]
            if len(self._similar) > CACHED:
                self._similar.popitem(last=False)
        return known

    def source_of(self, item_id: str, own: Sequence[str]) -> str | None:
        """Which of a visitor's own items leads to an item most; None where none does.

        Args:
            item_id: the item that is shown.
            own: the visitor's latest items; of several that lead there alike, the last one counts.
        """
        target = self._rows.get(item_id)
        best, found = 0.0, None
        for one in own:
            row = self._rows.get(one)
            if target is None or row is None or row == target:
                continue
            weight = float(self._weights[row][self._neighbours[row] == target].sum())
            if weight > 0 and weight >= best:
                best, found = weight, one
        return found
