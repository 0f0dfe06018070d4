"""What goes with products, from the release that serves: what is like one, what completes it, what is chosen after."""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

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


TASTE = 1.0
"""How much a visitor's own items count where what goes with a product is ranked for them. In the synthetic shop what
visitors do next rises a little among complements (a hundredth in mean reciprocal rank, .5 to 4 are as good) and stays
where it was among similar products, where 2 and more push it down."""


class Related(NamedTuple):
    """An item that goes with another."""

    item_id: str
    weight: float
    """Relative to the others of its kind."""
    source: str
    """The item that leads there; of several, the one that does so most. Empty where none does by itself."""
    seen: bool = False
    """Whether visitors have done it so; else what is known of both says that they go together."""
    rule: str = ""
    """Of a product that a rule has pinned to the list: which one."""


class Relations:
    """The relations of items in one release. Any thread may ask."""

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
        self._alike = release.similar
        self._completing = release.complementary
        self._similar: OrderedDict[str, list[Related]] = OrderedDict()
        self._by_category: dict[str, list[Related]] = {}
        self._categories: Mapping[str | None, list[int]] | None = None
        """The rows of each category's items, once it was asked for one."""

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

    @property
    def complements(self) -> bool:
        """Whether the release says what completes what."""
        return self._completing is not None

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._rows

    def of(self, kind: Kind, item_id: str) -> list[Related]:
        """What goes with an item, most of all first. For a release without tables it scans: call it in a thread."""
        if kind == "also_viewed":
            return self.also_viewed(item_id)
        return self.similar(item_id) if kind == "similar" else self.complementary([item_id])

    def also_viewed(self, item_id: str) -> list[Related]:
        """What is chosen after the item, most often first; it mixes what looks alike in where little is known."""
        row = self._rows.get(item_id)
        if row is None:
            return []
        return [
            Related(self._ids[neighbour], weight, item_id)
            for neighbour, weight in zip(self._neighbours[row].tolist(), self._weights[row].tolist(), strict=True)
            if neighbour >= 0 and weight > 0 and neighbour != row
        ]

    def similar(self, item_id: str) -> list[Related]:
        """What is looked at in one go with the item, and reads and looks like it."""
        row = self._rows.get(item_id)
        if row is None:
            return []
        if self._alike is not None and (found := self._in_table(self._alike, row)):
            return found
        return self._nearest(item_id, row)

    def complementary(self, item_ids: Sequence[str]) -> list[Related]:
        """What completes the items together, without what is among them; an item counts as much as any other.

        Args:
            item_ids: such as what is in a cart; those that the release does not know are passed over.
        """
        if self._completing is None:
            return []
        there = {self._rows[item_id] for item_id in item_ids if item_id in self._rows}
        return _together((self._in_table(self._completing, row) for row in sorted(there)), set(item_ids))

    def completing(self, category: str, category_of: Callable[[str], str | None]) -> list[Related]:
        """What completes the items of a category together: for one that the release does not know.

        It asks for the category of every item the first time: call it in a thread.

        Args:
            category: of the item.
            category_of: the category of an item.
        """
        if self._completing is None:
            return []
        if self._categories is None:
            rows: defaultdict[str | None, list[int]] = defaultdict(list)
            for row, item_id in enumerate(self._ids):
                rows[category_of(item_id)].append(row)
            self._categories = rows
        known = self._by_category.get(category)
        if known is None:
            places = self._completing[self._categories.get(category, [])].ravel()
            places = places[places["item"] >= 0]
            items, where = np.unique(places["item"], return_inverse=True)
            sums = np.bincount(where, weights=places["weight"], minlength=len(items))
            best = np.argsort(-sums, kind="stable")[:KEPT]
            known = [Related(self._ids[items[place]], float(sums[place]), "") for place in best.tolist()]
            self._by_category[category] = known
        return known

    def by_taste(self, found: Sequence[Related], own: Sequence[str]) -> list[Related]:
        """What goes with something, in a visitor's own order: weights times exp(`TASTE` · cosine with the own items).

        Args:
            found: by falling weight.
            own: the visitor's latest items.
        """
        close = self._closeness([one.item_id for one in found], own)
        weighed = [
            one._replace(weight=one.weight * factor)
            for one, factor in zip(found, np.exp(TASTE * close).tolist(), strict=True)
        ]
        return sorted(weighed, key=lambda one: -one.weight)

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

    def _closeness(self, item_ids: Sequence[str], own: Sequence[str]) -> NDArray[np.float32]:
        """The cosine of items with the middle of a visitor's own ones, (items,); 0 where nothing is known.

        Args:
            item_ids: what might be shown.
            own: the visitor's latest items.
        """
        near = np.zeros(len(item_ids), dtype=np.float32)
        rows = [self._rows[item_id] for item_id in own if item_id in self._rows]
        known = [(place, self._rows[item_id]) for place, item_id in enumerate(item_ids) if item_id in self._rows]
        if not rows or not known:
            return near
        middle = (self._vectors[rows] / self._norms[rows, None]).mean(axis=0)
        places, asked = (list(each) for each in zip(*known, strict=True))
        lengths = self._norms[asked] * max(float(np.linalg.norm(middle)), 1e-9)
        near[places] = (self._vectors[asked] @ middle) / lengths
        return near

    def _in_table(self, table: NDArray[np.void], row: int) -> list[Related]:
        source = self._ids[row]
        return [
            Related(self._ids[item], weight, source, count > 0)
            for item, weight, count in table[row].tolist()
            if item >= 0 and weight > 0
        ]

    def _nearest(self, item_id: str, row: int) -> list[Related]:
        """By the cosine of learned vectors: a scan of all of them, remembered."""
        known = self._similar.get(item_id)
        if known is None:
            cosine = (self._vectors @ self._vectors[row]) / (self._norms * self._norms[row])
            cosine[row] = -np.inf
            keep = min(KEPT, len(cosine) - 1)
            best = np.argpartition(-cosine, keep - 1)[:keep] if keep else np.zeros(0, dtype=np.int64)
            best = best[np.lexsort((best, -cosine[best]))]
            # Any falling weights above 0 keep the order.
            known = [Related(self._ids[place], (1.0 + float(cosine[place])) / 2, item_id) for place in best.tolist()]
            self._similar[item_id] = known
            if len(self._similar) > CACHED:
                self._similar.popitem(last=False)
        return known


def _together(rows: Iterable[list[Related]], without: set[str]) -> list[Related]:
    """Several items' relations as one, heaviest first: weights add up, and the heaviest is the source."""
    best: dict[str, Related] = {}
    sums: dict[str, float] = {}
    for found in rows:
        for one in found:
            if one.item_id in without:
                continue
            sums[one.item_id] = sums.get(one.item_id, 0.0) + one.weight
            if (before := best.get(one.item_id)) is None or one.weight > before.weight:
                best[one.item_id] = one
    found = [one._replace(weight=sums[item_id]) for item_id, one in best.items()]
    return sorted(found, key=lambda one: -one.weight)
