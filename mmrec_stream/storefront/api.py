"""What travels between pages and the gateway: one struct a document, which the OpenAPI description is made from."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.contracts.fields import Id

MAX_PLACES = 100
"""Most places of a list that a page may ask for."""

DEFAULT_PLACES = 12

MAX_EVENTS = 200
"""Most events of one request: a page that was offline for long sends several."""

Surface = Annotated[
    str, Meta(pattern="^[a-z0-9_-]{1,32}$", description="where the list is shown: home, product, cart …")
]
Places = Annotated[int, Meta(ge=1, le=MAX_PLACES, description="most items wanted")]
EventId = Annotated[str, Meta(min_length=1, max_length=64, description="the page's own id of an event: a UUID")]
Millis = Annotated[int, Meta(description="milliseconds since 1970, UTC")]


class Why(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Why an item has its place, in words that may be shown; `kind` is for translations."""

    kind: Annotated[
        str, Meta(description="taste, followed, both, popular, assortment, similar, complementary, also_viewed or rule")
    ]
    text: str
    source_item_id: str | None = None
    """The item that led here: of the visitor's own, of the cart, or the product that the list is beside."""


class Card(Struct, kw_only=True, frozen=True):
    """What a page shows of a product."""

    item_id: Id
    title: str
    description: str = ""
    price: float | None = None
    currency: str
    image: Annotated[str | None, Meta(description="relative to the gateway, or an address of the shop's own")] = None
    url: str | None = None
    brand: str | None = None
    category: str | None = None
    tags: list[str] = []
    in_stock: bool = True
    stock: Annotated[int | UnsetType | None, Meta(description="how many are left; in the development mode alone")] = (
        UNSET
    )


class Place(Struct, kw_only=True, frozen=True):
    """One place of a list: the item's card, without what only a product page shows."""

    item_id: Id
    position: int
    score: float
    title: str
    price: float | None
    currency: str
    image: str | None
    url: str | None
    brand: str | None
    category: str | None
    in_stock: bool
    why: Why | None = None


class ShownList(Struct, kw_only=True, frozen=True):
    """A list as pages show it. Impressions and clicks name its `list_id` and the item's position."""

    list_id: Id
    surface: Surface
    release: str
    strategy: str
    personalised: bool
    generated: Millis
    items: list[Place]
    alpha: Annotated[float | UnsetType, Meta(description="weight of the visitor's taste; development mode alone")] = (
        UNSET
    )
    times: Annotated[
        dict[str, float] | UnsetType,
        Meta(description="when the cause passed each step, ms since 1970; development mode alone"),
    ] = UNSET

    @property
    def item_ids(self) -> frozenset[str]:
        """What is shown."""
        return frozenset(place.item_id for place in self.items)


class ItemNews(Struct, kw_only=True, frozen=True):
    """A product that is being shown has changed."""

    item_id: Id
    in_stock: bool
    price: float | None = None


class EventsAnswer(Struct, kw_only=True, frozen=True):
    """What became of a request's events, once Kafka has confirmed them."""

    accepted: Annotated[int, Meta(description="confirmed by Kafka")]
    duplicates: Annotated[int, Meta(description="known by their id, and not written again")]
    withheld: Annotated[int, Meta(description="not written, as the visitor has not consented")] = 0


class JoinRequest(Struct, kw_only=True, frozen=True):
    """A login: the events of a session become those of a user."""

    session: Id | None = None
    session_token: Annotated[str, Meta(max_length=4096)] | None = None
    """The token that the session had: proof of it, where the user's token does not name the session as `sid`."""
    user: Id | None = None
    """Development mode only."""


class JoinAnswer(Struct, kw_only=True, frozen=True):
    """What a join has written."""

    session: Id
    user_id: Id
    events: Annotated[int, Meta(description="events of the session that are the user's now, in all")]
    added: Annotated[int, Meta(description="those of them that this request has written")]


class Parameter(Struct, kw_only=True, frozen=True):
    """One of the main parameters of the ranking."""

    name: str
    text: str
    weight: Annotated[float | None, Meta(description="its share, where the release says one")] = None


class WhyAnswer(Struct, kw_only=True, frozen=True):
    """The main parameters of the recommender system, and how to change them (Digital Services Act, article 27)."""

    text: str
    parameters: list[Parameter]
    options: list[Parameter]
    release: str


class Complaint(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is wrong with a request."""

    code: Annotated[str, Meta(description="for programs; it does not change")]
    message: str
    field: str | None = None


class ErrorAnswer(Struct, kw_only=True, frozen=True):
    """The body of every answer with a status of 400 or above."""

    error: Complaint


class EventBatch(Struct, kw_only=True, frozen=True):
    """Several events in one request. A single event may be the body itself."""

    events: Annotated[list[BehaviourEvent], Meta(min_length=1, max_length=MAX_EVENTS)]


class Envelope(Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a page says of an event beside the behaviour contract."""

    id: EventId | None = None
    surface: Surface | None = None
    user_id: Id | None = None
    """Not needed; where it is there, it must be the token's."""
    session_id: Id | None = None


encode = msgspec.json.Encoder().encode


class ApiError(Exception):
    """An answer other than success."""

    def __init__(
        self, status: int, code: str, message: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.complaint = Complaint(code=code, message=message, field=field)
        self.retry_after_s = retry_after_s
