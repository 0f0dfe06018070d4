"""What people buy again, and after how long: learned from a log of purchases."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import DAY_MS, Interactions

AGAIN = 20
"""Repurchases from which on an item, or a category, has an interval of its own: of fewer, a tenth is one or two."""

AGAIN_SHARE = 0.1
"""The part of buyers who must have bought again. What one in ten comes back for is used up; what fewer do is a gift."""

EARLY = 0.1
"""The part of repurchases that come before an item is due. Lists should have it a little before it is bought again, and
what is due is ranked by the model like everything else: only what is plainly too early is to be kept out."""


def repurchase_intervals(log: Interactions, items: int, categories: Sequence[str | None] | None) -> NDArray[np.float32]:
    """After how long each item is due again, s, (items,): its own interval or its category's; NaN where none is known.

    Purchases of an item within a day are one. An interval is the `EARLY` quantile of the times between a user's
    purchases of an item; those that are longer than the log are not in it, so that a short log makes things due early.

    Args:
        log: Events of all types, whose times are a clock's.
        items: How many there are.
        categories: Of each item, (items,); None where there is no catalogue.
    """
    bought = log.where(log.types == EventType.PURCHASE)
    pair = bought.users.astype(np.int64) * items + bought.items
    order = np.lexsort((bought.times, pair))
    pair, times = pair[order], bought.times[order]
    gaps_ms = np.diff(times)
    again = (pair[1:] == pair[:-1]) & (gaps_ms > DAY_MS)
    gap_items, gaps_s = (pair[1:] % items)[again], gaps_ms[again] / 1000
    buyers = np.bincount(np.unique(pair) % items, minlength=items)
    returning = np.bincount(np.unique(pair[1:][again]) % items, minlength=items)
    intervals = _intervals(gap_items, gaps_s, buyers, returning)
    if categories is not None:
        names, kinds = np.unique([name or "" for name in categories], return_inverse=True)
        by_kind = _intervals(
            kinds[gap_items],
            gaps_s,
            np.bincount(kinds, buyers, minlength=len(names)),
            np.bincount(kinds, returning, minlength=len(names)),
        )
        by_kind[names == ""] = np.nan
        intervals = np.where(np.isnan(intervals), by_kind[kinds], intervals)
    return intervals.astype(np.float32)


def _intervals(
    groups: NDArray[np.int64],
    gaps_s: NDArray[np.float64],
    buyers: NDArray[np.number],
    returning: NDArray[np.number],
) -> NDArray[np.float64]:
    """The interval of each group with enough of its own, (groups,), from gaps and the group of each."""
    order = np.lexsort((gaps_s, groups))
    gaps_s, counts = gaps_s[order], np.bincount(groups, minlength=len(buyers))
    starts = np.cumsum(counts) - counts
    enough = (counts >= AGAIN) & (returning >= AGAIN_SHARE * buyers)
    intervals = np.full(len(buyers), np.nan)
    intervals[enough] = gaps_s[starts[enough] + (EARLY * (counts[enough] - 1)).astype(np.int64)]
    return intervals
