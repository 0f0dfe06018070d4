"""Which items of a user's own history a list may have: one rule for workers and for whoever judges what they serve."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.profiles.record import RING, Records

DAY_S = 86_400

_PURCHASE = int(EventType.PURCHASE)


@dataclass(frozen=True, eq=False, slots=True)
class Cycles:
    """After how long each item is bought again, as far as a release has learned it."""

    keys: NDArray[np.uint64]
    """Of the items, ascending, (known,)."""
    seconds: NDArray[np.float64]
    """(known,)."""

    @classmethod
    def of(cls, keys: NDArray[np.uint64], seconds: NDArray[np.floating]) -> "Cycles | None":
        """Of items with these keys, (items,), NaN where nothing is known; None where that is everywhere."""
        known = np.flatnonzero(~np.isnan(seconds))
        known = known[np.argsort(keys[known])]
        return cls(keys[known], seconds[known].astype(np.float64)) if len(known) else None

    def of_items(self, keys: NDArray[np.uint64], otherwise: float) -> NDArray[np.float64]:
        """Of the items with these keys, s, in their shape; `otherwise` for those that are not known."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.seconds[place], otherwise)


@dataclass(frozen=True, slots=True)
class Repeats:
    """When an item that a user has had may come back. What is in the cart never does."""

    seen_s: float = 30.0 * DAY_S
    """Seconds after the user last did anything else with it than buy it. A release learns to foresee what is new to a
    user, so that places for what he knows are lost; after a month it is as good as new."""
    bought_s: float = 30.0 * DAY_S
    """Seconds after its last purchase, where nothing else is learned of it; 0 for everything at once."""
    cycles: Cycles | None = None
    """What is bought again comes back when it is due."""

    @classmethod
    def of_days(cls, seen: float, bought: float) -> "Repeats":
        """From days, as settings have them."""
        return cls(seen * DAY_S, bought * DAY_S)

    def learned(self, cycles: Cycles | None) -> "Repeats":
        """The rule with what a release has learned of repurchases."""
        return replace(self, cycles=cycles)

    def bought_for(self, keys: NDArray[np.uint64]) -> NDArray[np.float64] | float:
        """Seconds that bought items with these keys stay out of lists, in their shape or one for all."""
        if self.cycles is None or not self.bought_s:
            return self.bought_s
        return self.cycles.of_items(keys, self.bought_s)


def barred(records: Records, now_s: NDArray[np.int64], repeats: Repeats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which items of each profile its lists must not have.

    Args:
        records: (batch,).
        now_s: The moment of recommending, s since 1970, (batch,) or a single one.
        repeats: When an item may come back.

    Returns:
        Masks over `items`, (batch, RING), and over `held_items`, (batch, HELD).
    """
    now = np.reshape(now_s, (-1, 1))
    ring_bought, held_bought = records["types"] == _PURCHASE, records["held_types"] == _PURCHASE
    ring_ages, held_ages = now - records["times"].astype(np.int64), now - records["held_times"].astype(np.int64)
    stays = np.full(ring_ages.shape, repeats.seen_s)
    stays[ring_bought] = repeats.bought_for(records["items"][ring_bought])
    ring = (ring_ages < stays) & (np.arange(RING) < records["size"][:, None])
    held = records["held_types"] > 0
    held[held_bought] = held_ages[held_bought] < repeats.bought_for(records["held_items"][held_bought])
    return ring, held


def barred_keys(records: Records, now_s: NDArray[np.int64], repeats: Repeats) -> NDArray[np.uint64]:
    """Keys of the items that `barred` names, 0 elsewhere, (batch, RING + HELD)."""
    masks = np.concatenate(barred(records, now_s, repeats), axis=1)
    return np.where(masks, np.concatenate([records["items"], records["held_items"]], axis=1), np.uint64(0))
