"""What is in season: how much is taken, at a moment, of what the catalogue listed at about the same time.

A shop sells what it has brought in lately, and single items are bought too seldom to show it. Their neighbours in the
order of listing show it for them, also for items that nobody has bought yet.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from mmrec_stream.data.dataset import DAY_MS, Interactions

CELLS = 400
"""Parts that the catalogue's order is cut into: finer than the smoothing, and small enough to keep for every day."""

BANDWIDTH = 4.0
"""Standard deviation of the smoothing, cells: a hundredth of the catalogue. A third of it and three times as much were
as good on validation, a tenth of the catalogue was worse."""

HALF_LIFE_DAYS = 28.0
"""After so long a liking counts half; two weeks to two months differ by less than the noise."""

LEAST = 0.02
"""Demand of a place where nothing was taken, against a mean of 1: what is out of season sells a little."""


class Season:
    """The demand by place in the catalogue, as of the beginning of each day of a log."""

    def __init__(self, log: Interactions, items: int, power: float) -> None:
        """Learn from a log.

        Args:
            log: Its likings count, from the day after their own on.
            items: Items of the catalogue, numbered in the order they were listed in.
            power: Exponent of the demand.
        """
        cells = min(CELLS, items)
        self._cell = np.arange(items) * cells // max(items, 1)
        likings = log.where(log.likings)
        days = likings.times // DAY_MS
        self._first = int(days.min()) if len(days) else 0
        count = int(days.max()) - self._first + 2 if len(days) else 1
        taken = np.zeros((count, cells))
        np.add.at(taken, (days - self._first + 1, self._cell[likings.items]), 1.0)
        for day in range(1, count):
            taken[day] += taken[day - 1] * 0.5 ** (1.0 / HALF_LIFE_DAYS)
        smooth = gaussian_filter1d(taken, min(BANDWIDTH, cells / 2), axis=1, mode="reflect")
        mean = smooth.mean(axis=1, keepdims=True)
        # Before anything was taken, nothing is in season more than the rest.
        relative = np.where(mean > 0, smooth / np.maximum(mean, 1e-12), 1.0)
        self._demand = ((relative + LEAST) ** power).astype(np.float32)

    def at(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        """How much each item counts at each moment (ms), by what was taken before its day, (moments, items)."""
        days = np.clip(times // DAY_MS - self._first, 0, len(self._demand) - 1)
        demand: NDArray[np.float32] = self._demand[days][:, self._cell]
        return demand

    def now(self) -> NDArray[np.float32]:
        """How much each item counts after all of the log, (items,)."""
        demand: NDArray[np.float32] = self._demand[-1][self._cell]
        return demand
