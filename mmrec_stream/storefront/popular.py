"""What is popular: for visitors of whom nothing is known, and for everybody while Kafka or the workers are away."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.ranking.popularity import WEIGHTS, Popularity

KEPT = 500
"""Items kept of a ranking: five times the longest list, so that sold-out ones leave it full."""

BOUGHT = {EventType.ADD_TO_CART: 1.0, EventType.PURCHASE: 2.0}
"""Beside a cart, what people buy counts, and not what they look at."""


@dataclass(frozen=True)
class Rankings:
    """Item ids, best first."""

    seen: Sequence[str] = ()
    """What everybody does counts, as for the workers' own popular lists."""
    bought: Sequence[str] = ()
    """What is put in the cart and bought counts."""

    def of(self, surface: str) -> Sequence[str]:
        """The ranking that a surface shows."""
        return self.bought if surface == "cart" and self.bought else self.seen


class Counts:
    """Decayed counts of the behaviour topics, kept by the thread that follows them."""

    def __init__(self) -> None:
        self._seen = Popularity()
        self._bought = Popularity()

    def count(self, events: Sequence[BehaviourEvent]) -> None:
        """Count events."""
        _count(self._seen, WEIGHTS, events)
        _count(self._bought, BOUGHT, events)

    def rankings(self) -> Rankings:
        """The best items of each ranking."""
        return Rankings(self._seen.top(KEPT)[0], self._bought.top(KEPT)[0])


def _count(popularity: Popularity, weights: Mapping[EventType, float], events: Sequence[BehaviourEvent]) -> None:
    counted = [event for event in events if event.CODE in weights]
    ids = [event.item_id for event in counted]
    popularity.add(
        ids,
        id_keys(ids),
        np.array([weights[event.CODE] for event in counted], dtype=np.float64),
        np.array([event.ts for event in counted], dtype=np.int64),
    )
