"""How much one may ask for: token buckets, and bounded memory of whoever has asked."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

REMEMBERED = 100_000
"""Users or addresses whose buckets are kept, 200 bytes each. One that was forgotten has a full bucket again: who wants
to gain by that needs as many addresses."""

BURST_S = 10.0
"""A page that opens asks for several things at once: ten seconds' worth may come together."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What may still be taken, as of a time."""

    level: float
    at: float
    """s, of a clock that does not go back."""


def take(bucket: Bucket | None, now: float, rate: float, burst: float, cost: float = 1.0) -> tuple[Bucket, float]:
    """Take `cost` out of a bucket that fills by `rate` a second up to `burst`.

    Returns:
        The bucket afterwards, and how long to wait: 0 where `cost` was taken; otherwise nothing was, and the seconds
        until there will be as much. A cost above `burst` counts as `burst`.
    """
    cost = min(cost, burst)
    level = burst if bucket is None else min(burst, bucket.level + max(0.0, now - bucket.at) * rate)
    if level >= cost:
        return Bucket(level - cost, now), 0.0
    return Bucket(level, now), (cost - level) / rate


class Limiter:
    """Buckets by user or address; those that have not asked for longest are forgotten first."""

    def __init__(self, rate: float, *, remembered: int = REMEMBERED) -> None:
        """Allow `rate` a second in the long run, and `BURST_S` times as much at once."""
        self._rate = rate
        self._remembered = remembered
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, who: Hashable, now: float, cost: float = 1.0) -> float:
        """How long `who` has to wait; 0 where the request may go on."""
        bucket, wait = take(self._buckets.get(who), now, self._rate, self._rate * BURST_S, cost)
        self._buckets[who] = bucket
        self._buckets.move_to_end(who)
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return wait
