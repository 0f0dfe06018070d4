"""Availability windows: what the clock brings into sale or takes out of it, and when."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from mmrec_stream.contracts.catalogue import CatalogueItem


@dataclass(slots=True)
class _Window:
    opens_ms: int
    closes_ms: float
    open: bool
    """Whether the product could be sold when that was last told."""

    def holds(self, now_ms: int) -> bool:
        return self.opens_ms <= now_ms < self.closes_ms


class Windows:
    """The products that something happens to when a moment comes. Everything else costs nothing here.

    One thread uses it.
    """

    def __init__(self) -> None:
        self._ahead: dict[str, _Window] = {}
        self._moments: list[tuple[float, str]] = []
        """A heap; an entry whose window was replaced is passed over when its time comes."""

    def __len__(self) -> int:
        """Products that the clock has yet to change."""
        return len(self._ahead)

    @property
    def next_ms(self) -> float:
        """When `turn` has something to tell at the earliest, ms since 1970; infinity where nothing is ahead."""
        return self._moments[0][0] if self._moments else float("inf")

    def update(self, items: Iterable[CatalogueItem], now_ms: int) -> None:
        """Take the newest state of items, which whoever calls has taken as of `now_ms` (`sellable_at`)."""
        for item in items:
            before = self._ahead.pop(item.item_id, None)
            if not item.offered or (item.available_from is None and item.available_until is None):
                continue
            closes = float("inf") if item.available_until is None else item.available_until
            window = _Window(item.available_from or 0, closes, item.sellable_at(now_ms))
            ahead = _moments_of(window, now_ms)
            if not ahead:
                continue
            self._ahead[item.item_id] = window
            # A product whose stock changes every second is not to be in line once a second.
            if before is None or (before.opens_ms, before.closes_ms) != (window.opens_ms, window.closes_ms):
                for moment in ahead:
                    heapq.heappush(self._moments, (moment, item.item_id))
        if len(self._moments) > 4 * len(self._ahead) + 64:
            self._moments = [
                (moment, item_id) for item_id, one in self._ahead.items() for moment in _moments_of(one, now_ms)
            ]
            heapq.heapify(self._moments)

    def remove(self, item_ids: Iterable[str]) -> None:
        """Products that were taken out of the catalogue."""
        for item_id in item_ids:
            self._ahead.pop(item_id, None)

    def turn(self, now_ms: int) -> dict[str, bool]:
        """What the clock has changed since it was last asked: whether each product can be sold now."""
        due: set[str] = set()
        while self._moments and self._moments[0][0] <= now_ms:
            due.add(heapq.heappop(self._moments)[1])
        changed = {}
        for item_id in due:
            window = self._ahead.get(item_id)
            if window is None:
                continue
            if (holds := window.holds(now_ms)) != window.open:
                changed[item_id] = window.open = holds
            if not _moments_of(window, now_ms):
                del self._ahead[item_id]
        return changed


def _moments_of(window: _Window, now_ms: int) -> list[float]:
    """What of a window is ahead."""
    return [moment for moment in (window.opens_ms, window.closes_ms) if now_ms < moment < float("inf")]
