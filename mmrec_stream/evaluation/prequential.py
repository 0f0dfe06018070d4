"""Prequential evaluation: replay a log in time order, recommend before each event, fold it in after.

The profile that knows everything up to the event is compared with one that is refreshed once a period, as a nightly
batch job would have it; the model behind both is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.dataset import DAY_MS, Interactions
from mmrec_stream.data.splits import Cases, new_likings
from mmrec_stream.evaluation.metrics import Lists, Values, hit_rate, hits, ndcg

Recommend = Callable[[Cases], Lists]
"""Lists for cases, (cases, length)."""


@dataclass(frozen=True)
class Replay:
    """How the same events would have been foreseen by a live and by a refreshed profile; arrays are (events,)."""

    times: NDArray[np.int64]
    """ms."""
    live: Values
    """NDCG of the list made right before the event."""
    refreshed: Values
    """NDCG of the list made at the begin of the event's period; 0 where nothing was known of the user then."""
    live_hits: Values
    refreshed_hits: Values
    known: NDArray[np.bool_]
    """Whether the refreshed profile knew anything of the user."""

    def by_period(self, period_ms: int = DAY_MS) -> list[tuple[int, int, float, float]]:
        """Begin of each period in ms, events, and the mean NDCG live and refreshed."""
        periods = self.times // period_ms
        found = []
        for period in np.unique(periods):
            inside = periods == period
            live, refreshed = float(self.live[inside].mean()), float(self.refreshed[inside].mean())
            found.append((int(period) * period_ms, int(inside.sum()), live, refreshed))
        return found


def replay(
    recommend: Recommend,
    log: Interactions,
    users: int,
    since_ms: int,
    *,
    k: int = 10,
    period_ms: int = DAY_MS,
    most: int | None = None,
) -> Replay:
    """Foresee each liking from `since_ms` on, of an item that is new to a user with a history.

    Args:
        recommend: Makes lists of at least `k` for cases; called for all live and all refreshed ones.
        log: The whole log, before and after.
        users: Number of users.
        since_ms: Events before this are history only.
        k: Places that count.
        period_ms: How often the refreshed profile is brought up to date.
        most: At most so many events, drawn at random; all without.
    """
    cases = new_likings(log, users)
    wanted = np.flatnonzero(cases.times >= since_ms)
    if most is not None and len(wanted) > most:
        wanted = np.sort(np.random.default_rng(0).choice(wanted, most, replace=False))
    live = cases.where(wanted)
    # Row of the first event of the same user in the same period: what a refreshed profile has not seen.
    begins = live.times // period_ms * period_ms
    ends = np.array(
        [
            start + np.searchsorted(log.times[start:end], begin)
            for start, end, begin in zip(live.starts, live.ends, begins, strict=True)
        ],
        dtype=np.int64,
    )
    known = ends > live.starts
    some = np.flatnonzero(known)
    stale = Cases(live.log, live.users, live.starts, ends, live.times, live.targets).where(some)
    quality, hit = _judged(recommend(live), live, k)
    refreshed, refreshed_hit = np.zeros(len(live)), np.zeros(len(live))
    if len(some):
        refreshed[some], refreshed_hit[some] = _judged(recommend(stale), stale, k)
    return Replay(live.times, quality, refreshed, hit, refreshed_hit, known)


def _judged(lists: Lists, cases: Cases, k: int) -> tuple[Values, Values]:
    found = hits(lists, cases.targets)
    return ndcg(found, cases.targets, k), hit_rate(found, k)
