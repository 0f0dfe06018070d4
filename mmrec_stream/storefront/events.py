"""A request's body as behaviour events of the one who sends it, or what is wrong with it. Pure."""

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.storefront.api import MAX_EVENTS, ApiError, Envelope
from mmrec_stream.storefront.tokens import Visitor

_FIELD = re.compile(r"(?:at `\$\.?|missing required field `)([^`]*)`")


@dataclass(frozen=True, slots=True)
class Submitted:
    """One event of a request."""

    event_id: str | None
    """The page's own id: a second one with it is a repeat."""
    event: BehaviourEvent


def events_of(body: bytes, visitor: Visitor, now_ms: int) -> list[Submitted]:
    """The events in a body: `{"events": […]}`, or one event.

    All are the visitor's, whoever they say they are of. A time that is missing or lies ahead is the present: a page's
    clock may be wrong by years, and profiles forget what came before an event of next year.

    Args:
        body: JSON.
        visitor: who sends it; has a user id.
        now_ms: ms since 1970.

    Raises:
        ApiError: 400 or 403; names the field.
    """
    found: list[Any]
    match _decoded(body):
        case {"events": list() as found}:
            prefix = "events[{}]."
        case {"events": _}:
            raise ApiError(400, "invalid_event", "Expected `array`", field="events")
        case {} as single:
            found, prefix = [single], ""
        case _:
            raise ApiError(400, "invalid_body", "Expected `object` with `events`, or one event", field="")
    if not 0 < len(found) <= MAX_EVENTS:
        raise ApiError(400, "invalid_body", f"a request has 1 to {MAX_EVENTS} events, not {len(found)}", field="events")
    return [_submitted(one, visitor, now_ms, prefix.format(place)) for place, one in enumerate(found)]


def named_in(body: bytes) -> tuple[object, object]:
    """The `user` and `session` that a body names, for the development mode. Whatever cannot be read names nobody."""
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE:
        return None, None
    return (found.get("user"), found.get("session")) if isinstance(found, dict) else (None, None)


def _decoded(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE as error:
        raise ApiError(400, "not_json", f"the body is no JSON: {error}") from None


def _submitted(one: object, visitor: Visitor, now_ms: int, prefix: str) -> Submitted:
    if not isinstance(one, dict):
        raise ApiError(400, "invalid_event", "Expected `object`", field=prefix.rstrip("."))
    try:
        envelope = msgspec.convert(one, Envelope)
        if envelope.user_id not in (None, visitor.user_id):
            raise ApiError(403, "other_user", "the event is of another user than the token", field=f"{prefix}user_id")
        given = one.get("ts")
        ahead = isinstance(given, int) and not isinstance(given, bool) and given > now_ms
        fields = one | {
            "user_id": visitor.user_id,
            "session_id": visitor.session or envelope.session_id,
            "ts": now_ms if given is None or ahead else given,
        }
        event: BehaviourEvent = msgspec.convert(fields, BehaviourEvent)
    except (msgspec.ValidationError, RecursionError) as error:
        text = str(error)
        named = _FIELD.search(text)
        message = text.split(" - at `")[0]
        raise ApiError(400, "invalid_event", message, field=prefix + (named[1] if named else "")) from None
    return Submitted(envelope.id, event)
