"""The events whose profile is the golden one: every type, cart and purchase, tastes, two sources, a late event."""

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    Cancel,
    Click,
    Follow,
    Impression,
    Purchase,
    Rating,
    RemoveFromCart,
    Return,
    View,
)
from tests.profiles.events import START_MS

HOUR_MS = 3_600_000


def _at(hours: int, item: str) -> dict[str, object]:
    label = {"category": f"category-{item}", "brand": f"brand-{item}", "price": 4.0 * len(item) ** 2}
    return {"user_id": "ann", "item_id": item, "ts": START_MS + hours * HOUR_MS, **label}


CLICKED: list[BehaviourEvent] = [
    View(**_at(0, "lamp")),  # type: ignore[arg-type]
    Click(**_at(1, "lamp")),  # type: ignore[arg-type]
    View(**_at(30, "sofa")),  # type: ignore[arg-type]
    Click(**_at(2, "rug")),  # type: ignore[arg-type]
]
BOUGHT: list[BehaviourEvent] = [
    AddToCart(**_at(3, "lamp")),  # type: ignore[arg-type]
    AddToCart(**_at(3, "rug")),  # type: ignore[arg-type]
    RemoveFromCart(**_at(4, "rug")),  # type: ignore[arg-type]
    Purchase(**_at(5, "lamp")),  # type: ignore[arg-type]
    Purchase(**_at(5, "vase")),  # type: ignore[arg-type]
    Cancel(**_at(6, "vase")),  # type: ignore[arg-type]
    Purchase(**_at(7, "chair")),  # type: ignore[arg-type]
    Return(**_at(50, "chair")),  # type: ignore[arg-type]
    Rating(rating=4.5, **_at(60, "lamp")),  # type: ignore[arg-type]
    Impression(list_id="l", position=0, **_at(61, "sofa")),  # type: ignore[arg-type]
    Follow(user_id="ann", brand="lux", ts=START_MS + 62 * HOUR_MS),
]
