"""`mmrec send`: publish one behaviour event."""

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from mmrec_stream.contracts.behaviour import BehaviourRecord


class Kind(StrEnum):
    """The types of behaviour events."""

    VIEW = "view"
    CLICK = "click"
    ADD_TO_CART = "add_to_cart"
    REMOVE_FROM_CART = "remove_from_cart"
    PURCHASE = "purchase"
    CANCEL = "cancel"
    RETURN = "return"
    RATING = "rating"
    FOLLOW = "follow"
    IMPRESSION = "impression"


def send(
    kind: Annotated[Kind | None, typer.Argument(metavar="TYPE", help=", ".join(Kind))] = None,
    user: Annotated[str | None, typer.Argument(help="User id.")] = None,
    item: Annotated[str | None, typer.Argument(help="Item id; a follow has none.")] = None,
    json: Annotated[str | None, typer.Option(help="The whole event as JSON, instead of the arguments.")] = None,
    ts: Annotated[int | None, typer.Option(help="Event time, ms since 1970. Default: the present.")] = None,
    session: Annotated[str | None, typer.Option(help="Session id.")] = None,
    category: Annotated[str | None, typer.Option(help="Of the item, where the catalogue lacks it.")] = None,
    brand: Annotated[str | None, typer.Option(help="Of the item; or the brand that is followed.")] = None,
    price: Annotated[float | None, typer.Option(help="Of the item, in the shop's currency.")] = None,
    quantity: Annotated[int | None, typer.Option(help="Of add_to_cart, purchase, cancel, return.")] = None,
    order: Annotated[str | None, typer.Option(help="Order id of purchase, cancel, return.")] = None,
    rating: Annotated[float | None, typer.Option(help="0 (worst) to 5 (best).")] = None,
    list_id: Annotated[str | None, typer.Option("--list", help="The list that was shown or clicked.")] = None,
    position: Annotated[int | None, typer.Option(help="Place in that list, 0 = first.")] = None,
    followed: Annotated[str | None, typer.Option(help="The user that is followed.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish one behaviour event, checked against its contract first, and print where it lies.

    Examples: `mmrec send click alice sofa-1`, `mmrec send rating alice sofa-1 --rating 4.5`,
    `mmrec send follow alice --brand Norrsken`, `mmrec send --json '{"type": "view", "user_id": "alice", "item_id":
    "sofa-1", "ts": 1700000000000}'`.
    """
    from mmrec_stream.contracts.behaviour import encode_event
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.replay.publishing import require_topics
    from mmrec_stream.topics import Topics

    fields: dict[str, object] = {
        "type": kind.value if kind else None,
        "user_id": user,
        "item_id": item,
        "ts": ts,
        "session_id": session,
        "category": category,
        "brand": brand,
        "price": price,
        "quantity": quantity,
        "order_id": order,
        "rating": rating,
        "list_id": list_id,
        "position": position,
        "followed_user_id": followed,
    }
    event = _parsed(json, fields)
    settings = load_settings(bootstrap=bootstrap)
    topics = Topics.of(settings)
    require_topics(settings, topics)
    topic = topics.of_event(event)
    places: list[str] = []
    with BatchProducer(settings, linger_ms=0, idempotent=False) as producer:
        producer.send(
            topic,
            encode_event(event),
            key=event.user_id.encode(),
            on_delivery=lambda _, record: places.append(f"partition {record.partition()}, offset {record.offset()}"),
        )
    typer.echo(f"{topic}, {places[0]}")


def _parsed(json: str | None, fields: dict[str, object]) -> "BehaviourRecord":
    """The event that the command line describes.

    Raises:
        UserError: it is none; names the field.
    """
    import msgspec

    from mmrec_stream.contracts.behaviour import BehaviourEvent, decode_event

    given = {name: value for name, value in fields.items() if value is not None}
    try:
        if json is not None:
            if given:
                raise UserError(f"--json is the whole event: leave out {', '.join(given)}")
            event: BehaviourRecord = decode_event(json)
            return event
        if "type" not in given or "user_id" not in given:
            raise UserError(
                "say what happened: `mmrec send TYPE USER ITEM`, or --json; `mmrec send --help` has examples"
            )
        given.setdefault("ts", int(time.time() * 1000))
        if unknown := given.keys() - _fields_of(str(given["type"])):
            raise UserError(f"a {given['type']} has no {', '.join(sorted(unknown))}")
        converted: BehaviourEvent = msgspec.convert(given, BehaviourEvent)
        return converted
    except msgspec.DecodeError as error:
        raise UserError(f"no valid event: {error}") from None


def _fields_of(kind: str) -> set[str]:
    """The fields of an event type, `type` included."""
    from typing import get_args

    from mmrec_stream.contracts.behaviour import BehaviourEvent

    return next(
        {"type", *event.__struct_fields__} for event in get_args(BehaviourEvent) if event.__struct_config__.tag == kind
    )
