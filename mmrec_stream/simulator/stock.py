"""When products are sold out: half of them sell out now and then and come back, each in a rhythm of its own.

The rhythm is drawn once, so that what is on sale at any moment is known, whichever way one comes to it.
"""

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

SELLS_OUT = 0.5
"""Share of the products that sell out at all. With the two ranges below 8% of an assortment is sold out at a time,
which is what shops report (Gruen, Corsten and Bharadwaj, Retail Out-of-Stocks, 2002: 8.3%)."""

CYCLE_MS = (6 * DAY_MS, 14 * DAY_MS)
"""From one delivery to the next: several in a log of a month, none or one in a week."""

AWAY_MS = (6 * HOUR_MS, 3 * DAY_MS)
"""How long a product is sold out before each delivery."""

LIVE_PACE = 60
"""While live an hour of stock passes in a minute, so that even a short demo sees products go and come back."""


class Stock:
    """The rhythms of an assortment's products.

    Args:
        items: how many products.
        rng: what the rhythms are drawn from.
    """

    def __init__(self, items: int, rng: np.random.Generator) -> None:
        self._cycle = rng.integers(*CYCLE_MS, items)
        away = rng.integers(*AWAY_MS, items)
        self._full = self._cycle - np.where(rng.random(items) < SELLS_OUT, away, 0)
        self._delivered = rng.integers(0, self._cycle)
        self._live_ms: int | None = None

    def deliver(self, rows: Ints, now_ms: Ints) -> None:
        """Products `rows` come in, each at its `now_ms`: their rhythm begins there, with a full shelf."""
        self._delivered[rows] = self._clock(now_ms)

    def go_live(self, start_ms: int) -> None:
        """From `start_ms` on stock moves `LIVE_PACE` times faster. A second call changes nothing."""
        if self._live_ms is None:
            self._live_ms = start_ms

    def sold_out(self, rows: Ints, now_ms: Ints | int) -> Bools:
        """Whether each of the products `rows` is sold out at `now_ms`; the two are broadcast against each other."""
        return np.asarray(self._phase(rows, now_ms) >= self._full[rows])

    def next_change(self, rows: Ints, now_ms: int) -> Ints:
        """When each of `rows` next sells out or comes back after `now_ms`, ms; one that never does, comes back to that.

        Shape (rows,).
        """
        phase, full = self._phase(rows, now_ms), self._full[rows]
        left = np.where(phase < full, full, self._cycle[rows]) - phase
        if self._live_ms is not None and now_ms >= self._live_ms:
            return np.asarray(now_ms - -left // LIVE_PACE)
        change = now_ms + left
        if self._live_ms is not None:
            change = np.where(change > self._live_ms, self._live_ms - -(change - self._live_ms) // LIVE_PACE, change)
        return np.asarray(change)

    def _clock(self, now_ms: Ints | int) -> Ints:
        """The time of the stock, ms: the events' until they are live, faster from there on."""
        now = np.asarray(now_ms, dtype=np.int64)
        return now if self._live_ms is None else now + np.maximum(now - self._live_ms, 0) * (LIVE_PACE - 1)

    def _phase(self, rows: Ints, now_ms: Ints | int) -> Ints:
        return np.asarray((self._clock(now_ms) - self._delivered[rows]) % self._cycle[rows])
