"""What pages write: events, and that a session has become a user's."""

import asyncio
import logging
import time

import msgspec
from aiohttp import web
from confluent_kafka import KafkaException

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.behaviour import encode_event
from mmrec_stream.errors import UserError, first_line
from mmrec_stream.storefront.answers import json_answer
from mmrec_stream.storefront.api import ApiError, EventsAnswer, JoinAnswer, JoinRequest
from mmrec_stream.storefront.callers import Caller, body_of, caller_of, limit
from mmrec_stream.storefront.events import events_of, named_in
from mmrec_stream.storefront.gateway import EVENT_ID
from mmrec_stream.storefront.joining import JoinedElsewhereError
from mmrec_stream.storefront.publishing import CONFIRM_S, MAX_WAITING
from mmrec_stream.storefront.tokens import Denial
from mmrec_stream.storefront.window import Delivery

AS_ONE = 10
"""Events that count as one request more: a page sends the impressions of a whole list together."""

log = logging.getLogger(__name__)


async def post_events(request: web.Request) -> web.Response:
    """Take events; answers when Kafka has them."""
    body = await body_of(request)
    caller = await caller_of(request, named_in(body))
    gateway = caller.gateway
    if caller.visitor.user_id is None:
        raise ApiError(401, "no_token", "events need a token, in `Authorization: Bearer …` or `?token=`")
    submitted = events_of(body, caller.visitor, int(time.time() * 1000))
    limit(gateway, "user", gateway.by_user.wait_s(caller.visitor.user_id, time.monotonic(), len(submitted) / AS_ONE))
    if not caller.consents:
        gateway.metrics.events.labels(outcome="withheld").inc(len(submitted))
        return json_answer(EventsAnswer(accepted=0, duplicates=0, withheld=len(submitted)), status=202)
    publisher = gateway.publisher
    assert publisher is not None  # noqa: S101 - requests come after the start
    if len(publisher) + len(submitted) > MAX_WAITING:
        gateway.metrics.limited.labels(by="pressure").inc()
        raise ApiError(429, "busy", "Kafka takes events more slowly than they come", retry_after_s=2)
    duplicates, waiting = 0, dict[Delivery, bool]()
    for one in submitted:
        user_id = one.event.user_id
        key = (user_id, one.event_id) if one.event_id is not None else None
        if key is not None and key in gateway.window:
            duplicates += 1
            if (under_way := gateway.window.delivery(key)) is not None:
                waiting.setdefault(under_way, False)
            continue
        headers = [(EVENT_ID, one.event_id.encode())] if one.event_id is not None else []
        topic = gateway.topics.of_event(one.event)
        delivery = publisher.send(topic, user_id.encode(), encode_event(one.event), headers)
        if key is not None:
            gateway.window.begin(key, delivery)
        waiting[delivery] = True
    if waiting:
        await asyncio.wait(waiting, timeout=CONFIRM_S)
    failures = [delivery.result() if delivery.done() else "no answer yet" for delivery in waiting]
    accepted = sum(own for (_, own), failure in zip(waiting.items(), failures, strict=True) if failure is None)
    gateway.metrics.events.labels(outcome="accepted").inc(accepted)
    gateway.metrics.events.labels(outcome="duplicate").inc(duplicates)
    if lost := [failure for failure in failures if failure is not None]:
        gateway.metrics.events.labels(outcome="not_confirmed").inc(len(lost))
        raise ApiError(
            503,
            "not_confirmed",
            f"Kafka has not confirmed {len(lost)} of {len(submitted)} events ({lost[0]}): send them again",
            retry_after_s=2,
        )
    return json_answer(EventsAnswer(accepted=accepted, duplicates=duplicates), status=202)


async def post_join(request: web.Request) -> web.Response:
    """At login: the session's events become the user's."""
    body = await body_of(request)
    caller = await caller_of(request, named_in(body))
    gateway, visitor = caller.gateway, caller.visitor
    if visitor.user_id is None or visitor.anonymous:
        raise ApiError(401, "no_token", "a join needs the token of a user who has logged in")
    session = _proven_session(caller, body)
    if not caller.consents:
        return json_answer(JoinAnswer(session=session, user_id=visitor.user_id, events=0, added=0))
    if gateway.joining.locked():
        gateway.metrics.limited.labels(by="joins").inc()
        raise ApiError(429, "busy", "many visitors log in at the moment", retry_after_s=2)
    async with gateway.joining:
        try:
            note, added = await gateway.join(session, visitor.user_id)
        except JoinedElsewhereError:
            raise ApiError(409, "joined_elsewhere", "the session is of another user already") from None
        except (UserError, KafkaException) as error:
            log.warning("a session is not joined: %s", first_line(error))
            raise ApiError(503, "not_joined", "Kafka has not taken it: try again", retry_after_s=5) from None
    gateway.metrics.events.labels(outcome="joined").inc(added)
    return json_answer(JoinAnswer(session=session, user_id=visitor.user_id, events=note.events, added=added))


def _proven_session(caller: Caller, body: bytes) -> str:
    """The session that a join is about, of which the caller has proof.

    Raises:
        ApiError: there is no session in the request, or no proof that it is the caller's.
    """
    gateway, visitor = caller.gateway, caller.visitor
    try:
        asked = msgspec.json.decode(body, type=JoinRequest)
    except UNREADABLE as error:
        raise ApiError(400, "invalid_body", str(error)) from None
    if gateway.dev:
        session = asked.session
    elif asked.session_token is not None:
        found = gateway.checked(asked.session_token)
        if isinstance(found, Denial):
            raise ApiError(401, found.reason, found.message, field="session_token")
        session = found.session if found.anonymous else None
    else:
        session = visitor.session
    if session is None:
        raise ApiError(403, "no_proof", "neither the user's token nor a session's token names the session")
    if asked.session not in (None, session):
        raise ApiError(403, "other_session", "the token is of another session", field="session")
    return session
