"""Behaviour events: what a visitor did, as one tagged family (`type` says which), and commands that go the same way.

Any behaviour topic may carry any type. On the wire an event is one JSON object; its key is the user id.
"""

from enum import IntEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Struct

from mmrec_stream.contracts.fields import EventTime, Id, Label, Price, SchemaVersion


class EventType(IntEnum):
    """The code of an event type in profiles and models. A code is never given to another type."""

    VIEW = 1
    CLICK = 2
    ADD_TO_CART = 3
    REMOVE_FROM_CART = 4
    PURCHASE = 5
    CANCEL = 6
    RETURN = 7
    RATING = 8
    FOLLOW = 9
    IMPRESSION = 10


class CommandType(IntEnum):
    """The code of what travels with the events and is none: nothing is counted or learnt of it. From 200 on."""

    FORGET = 200


class _Event(Struct, tag_field="type", kw_only=True, frozen=True, omit_defaults=True, gc=False):
    user_id: Id
    ts: EventTime
    v: SchemaVersion = 1
    session_id: Id | None = None


class _ItemEvent(_Event, kw_only=True, frozen=True):
    """An event about one item. What the catalogue says of the item may come along, for items it lacks."""

    item_id: Id
    category: Label | None = None
    brand: Label | None = None
    price: Price | None = None


class View(_ItemEvent, tag="view", kw_only=True, frozen=True):
    """The item's page was seen."""

    CODE: ClassVar[EventType] = EventType.VIEW


class Click(_ItemEvent, tag="click", kw_only=True, frozen=True):
    """The item was clicked, in a list that `list_id` names if it was one of ours."""

    CODE: ClassVar[EventType] = EventType.CLICK
    list_id: Id | None = None
    position: Annotated[int, Meta(ge=0)] | None = None


class AddToCart(_ItemEvent, tag="add_to_cart", kw_only=True, frozen=True):
    """The item went into the cart."""

    CODE: ClassVar[EventType] = EventType.ADD_TO_CART
    quantity: Annotated[int, Meta(ge=1)] = 1


class RemoveFromCart(_ItemEvent, tag="remove_from_cart", kw_only=True, frozen=True):
    """The item left the cart."""

    CODE: ClassVar[EventType] = EventType.REMOVE_FROM_CART


class Purchase(_ItemEvent, tag="purchase", kw_only=True, frozen=True):
    """The item was bought; one event a line of the order."""

    CODE: ClassVar[EventType] = EventType.PURCHASE
    quantity: Annotated[int, Meta(ge=1)] = 1
    order_id: Id | None = None


class Cancel(_ItemEvent, tag="cancel", kw_only=True, frozen=True):
    """A line of an order was cancelled before it was sent."""

    CODE: ClassVar[EventType] = EventType.CANCEL
    quantity: Annotated[int, Meta(ge=1)] = 1
    order_id: Id | None = None


class Return(_ItemEvent, tag="return", kw_only=True, frozen=True):
    """The item was sent back."""

    CODE: ClassVar[EventType] = EventType.RETURN
    quantity: Annotated[int, Meta(ge=1)] = 1
    order_id: Id | None = None


class Rating(_ItemEvent, tag="rating", kw_only=True, frozen=True):
    """The item was rated, from 0 (worst) to 5 (best)."""

    CODE: ClassVar[EventType] = EventType.RATING
    rating: Annotated[float, Meta(ge=0, le=5)]


class Follow(_Event, tag="follow", kw_only=True, frozen=True):
    """The user follows another user or a brand: exactly one of the two is named."""

    CODE: ClassVar[EventType] = EventType.FOLLOW
    item_id: ClassVar[str] = ""
    category: ClassVar[None] = None
    price: ClassVar[None] = None
    followed_user_id: Id | None = None
    brand: Label | None = None

    def __post_init__(self) -> None:
        if (self.followed_user_id is None) == (self.brand is None):
            raise ValueError("a follow names either `followed_user_id` or `brand`")


class Impression(_ItemEvent, tag="impression", kw_only=True, frozen=True):
    """The item was shown, at `position` (0 = first) of the list `list_id`."""

    CODE: ClassVar[EventType] = EventType.IMPRESSION
    list_id: Id
    position: Annotated[int, Meta(ge=0)]


class Forget(Struct, tag_field="type", tag="forget", kw_only=True, frozen=True, omit_defaults=True, gc=False):
    """The user is to be forgotten: what they did until `ts` no longer counts anywhere."""

    CODE: ClassVar[CommandType] = CommandType.FORGET
    item_id: ClassVar[str] = ""
    category: ClassVar[None] = None
    brand: ClassVar[None] = None
    price: ClassVar[None] = None
    user_id: Id
    ts: EventTime
    v: SchemaVersion = 1


ItemEvent = View | Click | AddToCart | RemoveFromCart | Purchase | Cancel | Return | Rating | Impression
BehaviourEvent = ItemEvent | Follow
BehaviourRecord = BehaviourEvent | Forget
"""What a behaviour topic carries."""

encode_event = msgspec.json.Encoder().encode
"""One event or command as JSON bytes."""

decode_event = msgspec.json.Decoder(BehaviourRecord).decode
"""JSON bytes as one event or command.

Raises:
    msgspec.DecodeError: not JSON, or (ValidationError) a field is missing or wrong; the text names it.
"""
