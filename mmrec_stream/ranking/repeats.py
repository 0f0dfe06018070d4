"""Which items of a user's own history a list may have: one rule for workers and for whoever judges what they serve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.profiles.record import RING, Records

DAY_S = 86_400

_PURCHASE = int(EventType.PURCHASE)


@dataclass(frozen=True, slots=True)
class Repeats:
    """When an item that a user has had may come back. What is in the cart never does."""

    seen_s: float = 30.0 * DAY_S
    """Seconds after the user last did anything else with it than buy it. A release learns to foresee what is new to a
    user, so that places for what he knows are lost; after a month it is as good as new."""
    bought_s: float = 30.0 * DAY_S
    """Seconds after its last purchase."""

    @classmethod
    def of_days(cls, seen: float, bought: float) -> "Repeats":
        """From days, as settings have them."""
        return cls(seen * DAY_S, bought * DAY_S)


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
    seen_before, bought_before = now - repeats.seen_s, now - repeats.bought_s
    ring_times, held_times = records["times"].astype(np.int64), records["held_times"].astype(np.int64)
    due = ring_times <= np.where(records["types"] == _PURCHASE, bought_before, seen_before)
    ring = ~due & (np.arange(RING) < records["size"][:, None])
    held = (records["held_types"] > 0) & ((records["held_types"] != _PURCHASE) | (held_times > bought_before))
    return ring, held


def barred_keys(records: Records, now_s: NDArray[np.int64], repeats: Repeats) -> NDArray[np.uint64]:
    """Keys of the items that `barred` names, 0 elsewhere, (batch, RING + HELD)."""
    masks = np.concatenate(barred(records, now_s, repeats), axis=1)
    return np.where(masks, np.concatenate([records["items"], records["held_items"]], axis=1), np.uint64(0))
