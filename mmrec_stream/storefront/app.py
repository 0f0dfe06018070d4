"""The web application: what is answered at each address. Thin: what decides lies in the modules it calls."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Any

import msgspec
from aiohttp import web
from confluent_kafka import KafkaException
from msgspec import Meta
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mmrec_stream.contracts.acceptance import UNREADABLE
from mmrec_stream.contracts.behaviour import BehaviourEvent, encode_event
from mmrec_stream.contracts.fields import Id
from mmrec_stream.errors import UserError, first_line
from mmrec_stream.policies.policy import Visit
from mmrec_stream.storefront.access import address_of, bearer, consents, host_allowed, origin_allowed
from mmrec_stream.storefront.answers import cacheable, json_answer, refusal
from mmrec_stream.storefront.api import (
    DEFAULT_PLACES,
    ApiError,
    Card,
    EventBatch,
    EventsAnswer,
    ItemNews,
    JoinAnswer,
    JoinRequest,
    Places,
    ShownList,
    Surface,
    WhyAnswer,
    encode,
)
from mmrec_stream.storefront.connections import Connection
from mmrec_stream.storefront.demo import MAX_PRODUCT, Controls
from mmrec_stream.storefront.demo_pages import add_demo
from mmrec_stream.storefront.events import events_of, named_in
from mmrec_stream.storefront.explanation import explanation
from mmrec_stream.storefront.gateway import EVENT_ID, Gateway
from mmrec_stream.storefront.hub import Stream
from mmrec_stream.storefront.joining import JoinedElsewhereError
from mmrec_stream.storefront.openapi import Query, Route, document, page
from mmrec_stream.storefront.publishing import CONFIRM_S, MAX_WAITING
from mmrec_stream.storefront.related import Kind
from mmrec_stream.storefront.shaping import POPULAR
from mmrec_stream.storefront.tokens import MAX_SESSION, NOBODY, SESSION_PREFIX, Denial, Visitor
from mmrec_stream.storefront.trails import IN_CART
from mmrec_stream.storefront.window import Delivery

GATEWAY = web.AppKey("gateway", Gateway)
STATIC = Path(__file__).parent / "static"

MAX_BODY = 128 * 1024
"""Bytes of a request: 200 events have 40 KB. Browsers keep a beacon below 64 KB."""

BODY_S = 10.0
"""How long a body may take to arrive. A phone on a bad line sends 2 KB a second."""

AS_ONE = 10
"""Events that count as one request more: a page sends the impressions of a whole list together."""

HEARTBEAT_S = 15.0
"""How often a silent stream says that it lives: proxies cut connections that are silent for 30 to 60 s."""

RETRY_MS = (1_000, 5_000)
"""How long an EventSource waits before it connects again, drawn anew for each stream: when a gateway restarts, not all
of its readers come in the same second."""

PUBLIC_S = 15
"""How long a browser or proxy may keep a popular list. Its order moves by the hour; a sold-out item is told at once."""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "private, no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}

PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "7200",
}

SHOP_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""What the demo shop's pages may load and do: nothing from elsewhere, no script in markup."""

SessionId = Annotated[str, Meta(min_length=1, max_length=MAX_SESSION)]

LIST_QUERY = (
    Query("surface", Surface, "where the list is shown", "home"),
    Query("k", Places, "most items wanted", DEFAULT_PLACES),
    Query("why", bool, "1: with the reason of each place"),
    Query("personalised", bool, "false: the list that is the same for everybody"),
)
CART_QUERY = Query("items", str, "beside a cart: ids of what is in it, by commas; else what the visitor's events say")

_JITTER = SystemRandom()

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Caller:
    """A request, and who sends it."""

    def __init__(self, request: web.Request, gateway: Gateway, visitor: Visitor, address: str) -> None:
        self.request = request
        self.gateway = gateway
        self.visitor = visitor
        self.address = address
        self.consents = consents(visitor.consent, request.headers, heed_gpc=gateway.settings.storefront_gpc)

    @property
    def personal(self) -> str | None:
        """Whose lists are shown; None where they are the same for everybody."""
        wanted = self.request.query.get("personalised", "true") not in ("false", "0")
        return self.visitor.user_id if self.consents and wanted else None

    @property
    def surface(self) -> str:
        """Where the list is shown.

        Raises:
            ApiError: no surface has such a name, or the token is not for it.
        """
        surface: str = self.converted("surface", Surface, "home")
        if self.visitor.surfaces is not None and surface not in self.visitor.surfaces:
            raise ApiError(403, "surface", f"the token is not for the surface {surface}", field="surface")
        return surface

    @property
    def places(self) -> int:
        """Most items wanted.

        Raises:
            ApiError: no such number of items is given.
        """
        count: int = self.converted("k", Places, DEFAULT_PLACES)
        return count

    @property
    def cart(self) -> tuple[str, ...] | None:
        """What the page says is in the cart; None where it says nothing of it.

        Raises:
            ApiError: something in it is no item's id.
        """
        given = self.request.query.get("items")
        if given is None:
            return None
        try:
            items: list[str] = msgspec.convert([one for one in given.split(",") if one], list[Id])
        except msgspec.ValidationError as error:
            raise ApiError(400, "invalid_parameter", str(error), field="items") from None
        return tuple(dict.fromkeys(items))[-IN_CART:]

    @property
    def visit(self) -> Visit:
        """What rules may read of the visit."""
        return Visit(self.visitor.locale, self.visitor.adult, self.consents)

    @property
    def why(self) -> bool:
        """Whether reasons are wanted."""
        return self.request.query.get("why", "0") not in ("0", "false", "")

    def converted(self, name: str, kind: Any, default: Any) -> Any:
        """A parameter of the request.

        Raises:
            ApiError: it is not of its kind.
        """
        given = self.request.query.get(name)
        if given is None:
            return default
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ApiError(400, "invalid_parameter", str(error), field=name) from None


def create_app(gateway: Gateway, controls: Controls | None = None) -> web.Application:
    """The application of a gateway; it starts and stops the gateway with itself.

    Args:
        gateway: what is served.
        controls: of the demo, where it runs the gateway; heeded in the development mode alone.
    """
    app = web.Application(middlewares=[_answered], client_max_size=MAX_PRODUCT if gateway.dev else MAX_BODY)
    app[GATEWAY] = gateway
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
    app.router.add_get("/openapi.json", get_openapi)
    app.router.add_get("/docs", get_docs)
    app.router.add_get("/widget/{file:.+}", get_widget)
    if gateway.dev:
        app.router.add_get("/shop", get_shop_root)
        app.router.add_get("/shop/{file:.*}", get_shop_page)
        add_demo(app, gateway, controls)
    app.on_response_prepare.append(_common_headers)

    async def running(_: web.Application) -> AsyncIterator[None]:
        await gateway.start()
        yield
        await gateway.stop()

    async def ending(_: web.Application) -> None:
        gateway.hub.end_all()

    app.cleanup_ctx.append(running)
    app.on_shutdown.append(ending)
    return app


async def post_events(request: web.Request) -> web.Response:
    """Take events; answers when Kafka has them."""
    body = await _body(request)
    caller = await _caller(request, named_in(body))
    gateway = caller.gateway
    if caller.visitor.user_id is None:
        raise ApiError(401, "no_token", "events need a token, in `Authorization: Bearer …` or `?token=`")
    submitted = events_of(body, caller.visitor, int(time.time() * 1000))
    _limit(gateway, "user", gateway.by_user.wait_s(caller.visitor.user_id, time.monotonic(), len(submitted) / AS_ONE))
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


async def get_recommendations(request: web.Request) -> web.Response:
    """The newest list of a user, or what is popular."""
    caller = await _caller(request)
    gateway = caller.gateway
    shown = gateway.best(caller.personal, caller.surface, caller.places, caller.why, caller.cart, caller.visit)
    if shown.list_id.startswith(f"{POPULAR}-"):
        gateway.metrics.served.labels(strategy="fallback").inc()
        # Whoever has a token may have a list of his own the next moment: his browser asks whether this one still holds.
        same = caller.visitor is NOBODY and not gateway.rules.read_visits
        cache = f"public, max-age={PUBLIC_S}" if same else "private, no-cache"
        return cacheable(request, encode(shown), cache)
    gateway.metrics.served.labels(strategy=shown.strategy).inc()
    return json_answer(shown, cache="private, no-store")


async def get_item(request: web.Request) -> web.Response:
    """A product's card."""
    caller = await _caller(request)
    card = caller.gateway.shelf.get(_item_id(request))
    if card is None:
        raise ApiError(404, "unknown_item", "the catalogue has no such item")
    return cacheable(request, encode(card), "public, max-age=5")


async def get_image(request: web.Request) -> web.Response:
    """A product's picture, as the catalogue has it."""
    caller = await _caller(request)
    found = caller.gateway.pictures.get(_item_id(request))
    if found is None:
        raise ApiError(404, "no_image", "the catalogue has no picture of this item")
    picture, data = found
    # The address in a card has the picture's digest: what lies there never changes.
    lasting = request.query.get("v") == picture.digest
    response = cacheable(
        request, data, "public, max-age=31536000, immutable" if lasting else "public, max-age=60", kind=picture.kind
    )
    response.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    return response


async def get_related(request: web.Request) -> web.Response:
    """What goes with a product."""
    caller = await _caller(request)
    gateway, item_id, count = caller.gateway, _item_id(request), caller.places
    kind: Kind = caller.converted("kind", Kind, "similar")
    companions, card = gateway.companions, gateway.shelf.get(item_id)
    known = companions is not None and item_id in companions.relations
    if card is None and not known:
        raise ApiError(404, "unknown_item", "neither catalogue nor release has such an item")
    if kind == "complementary" and (companions is None or not companions.relations.complements):
        raise ApiError(404, "no_complements", "the release that serves has no table of what completes what")
    if companions is not None and (known or kind == "complementary"):
        found = await asyncio.to_thread(companions.found, kind, item_id)
        if kind == "complementary" and not found and card is not None:
            found = await asyncio.to_thread(companions.found_by_category, card.category)
        shown = companions.beside(kind, item_id, found, count, caller.personal, why=caller.why, visit=caller.visit)
    else:  # newer than the release, or there is none: what else is popular of its kind
        category = card.category if card is not None else None
        shown = gateway.popular("product", count, caller.why, caller.visit, category=category, but=item_id)
    gateway.metrics.served.labels(strategy=shown.strategy).inc()
    if shown.personalised:
        return json_answer(shown, cache="private, no-store")
    # Whoever has done nothing yet may have an order of his own the next moment.
    same = caller.personal is None and not gateway.rules.read_visits
    cache = "public, max-age=30" if same else "private, no-cache"
    return cacheable(request, encode(shown), cache)


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events: the newest list now and whenever there is another, and changes of what it shows."""
    caller = await _caller(request)
    gateway, show = caller.gateway, (caller.surface, caller.places, caller.why, caller.cart, caller.visit)
    stream = Stream(caller.personal, caller.address, caller.surface)
    if (bound := gateway.hub.open(stream)) is not None:
        gateway.metrics.limited.labels(by=f"streams_{bound}").inc()
        raise ApiError(429, "too_many_streams", "too many event streams are open", retry_after_s=_JITTER.uniform(5, 30))
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.on_lost = stream.end
    response = web.StreamResponse(headers=STREAM_HEADERS)
    try:
        await response.prepare(request)
        last = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
        await response.write(b"retry: %d\n\n" % _JITTER.randint(*RETRY_MS))
        newest = gateway.best(stream.user_id, *show)
        stream.shown = newest.item_ids
        if newest.list_id != last:
            await response.write(_event("recommendations", encode(newest), newest.list_id))
        while not stream.ended:
            frame = await _next_frame(stream, gateway, show, caller.visitor.expires)
            if frame:
                await response.write(frame)
            elif frame is None:
                await response.write(_event("expired", b"{}"))
                break
    except ConnectionError:
        pass  # the reader has gone, or was cut as it did not read
    finally:
        gateway.hub.close(stream)
    return response


async def _next_frame(
    stream: Stream, gateway: Gateway, show: tuple[str, int, bool, tuple[str, ...] | None, Visit], expires: float | None
) -> bytes | None:
    """What to write next: news, a heartbeat when there is none for long; None once the token has expired."""
    silence = HEARTBEAT_S if expires is None else min(HEARTBEAT_S, max(0.0, expires - time.time()))
    try:
        async with asyncio.timeout(silence):
            await stream.wake.wait()
    except TimeoutError:
        return None if expires is not None and time.time() >= expires else b": heartbeat\n\n"
    again = stream.again
    value, news = stream.take()
    frames = b""
    if value is None and again:
        shown = gateway.best(stream.user_id, *show)
        stream.shown = shown.item_ids
        frames = _event("recommendations", encode(shown), shown.list_id)
    if value is not None and (found := gateway.decoded(value)) is not None:
        shown = gateway.shown(found, *show)
        if shown.items:  # else the last one is better than none
            stream.shown = shown.item_ids
            shown = gateway.timed(shown, found, received=stream.received * 1000, sent=time.time() * 1000)
            frames = _event("recommendations", encode(shown), shown.list_id)
            gateway.metrics.lists_pushed.inc()
            gateway.metrics.push_seconds.observe(max(0.0, time.time() - found.times.published / 1000))
    for card in news:
        if card.item_id in stream.shown:
            frames += _event("item", encode(ItemNews(item_id=card.item_id, in_stock=card.in_stock, price=card.price)))
    return frames


async def post_join(request: web.Request) -> web.Response:
    """At login: the session's events become the user's."""
    body = await _body(request)
    caller = await _caller(request, named_in(body))
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


async def get_why(request: web.Request) -> web.Response:
    """The main parameters, for everybody to read."""
    caller = await _caller(request)
    relations = caller.gateway.relations
    return cacheable(request, encode(explanation(relations.manifest if relations else None)), "public, max-age=60")


async def get_healthz(request: web.Request) -> web.Response:
    """Whether the threads make progress; a broker that is away is no reason to end."""
    gateway = request.app[GATEWAY]
    return web.json_response({"well": gateway.well}, status=200 if gateway.well else 503)


async def get_readyz(request: web.Request) -> web.Response:
    """Whether lists can be served. That Kafka has gone away since is told, and no reason to send nobody here."""
    gateway = request.app[GATEWAY]
    ready = gateway.ready and gateway.well
    return web.json_response(gateway.status() | {"ready": ready}, status=200 if ready else 503)


async def get_metrics(request: web.Request) -> web.Response:
    """Figures for Prometheus."""
    gateway = request.app[GATEWAY]
    gateway.observe()
    return web.Response(body=generate_latest(gateway.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def get_openapi(request: web.Request) -> web.Response:
    """The description of what is here, for programs."""
    return cacheable(request, encode(document(ROUTES)), "public, max-age=300")


async def get_docs(request: web.Request) -> web.Response:
    """The description of what is here, for people."""
    text, policy = page(document(ROUTES))
    return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": policy})


async def get_widget(request: web.Request) -> web.StreamResponse:
    """A file of the widget, for pages of any origin."""
    return _file("widget", request.match_info["file"])


async def get_shop_page(request: web.Request) -> web.StreamResponse:
    """A file of the demo shop, which is a page of our own."""
    response = _file("shop", request.match_info["file"] or "index.html")
    response.headers["Content-Security-Policy"] = SHOP_POLICY
    return response


async def get_shop_root(request: web.Request) -> web.StreamResponse:
    """The demo shop's address as people type it."""
    return web.Response(status=308, headers={"Location": "/shop/"})


def _file(folder: str, name: str) -> web.FileResponse:
    """A file below `STATIC`.

    Raises:
        ApiError: there is none of that name in the folder.
    """
    file = _files(STATIC / folder).get(name)
    if file is None:
        raise ApiError(404, "no_file", "there is no such file")
    return web.FileResponse(file, headers={"Cache-Control": "public, max-age=300"})


@cache
def _files(root: Path) -> dict[str, Path]:
    """What may be served of a folder, by name: nothing that a request says becomes a path."""
    return {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/events",
        post_events,
        "Take behaviour events; answered once Kafka has them.",
        "One event, or several as `events`. Each is written once for its `id`, however often it is sent.",
        bodies=(EventBatch, BehaviourEvent),
        answers=EventsAnswer,
        status=202,
        refusals=(400, 401, 403, 413, 415, 429, 503),
        token=True,
    ),
    Route(
        "GET",
        "/v1/recommendations",
        get_recommendations,
        "The visitor's newest list, or what is popular.",
        "Without a token, consent or a list of the visitor's own, the list is the same for everybody.",
        query=(*LIST_QUERY, CART_QUERY),
        answers=ShownList,
        refusals=(400, 401, 403, 429),
        token=True,
    ),
    Route(
        "GET",
        "/v1/stream",
        get_stream,
        "Server-sent events: `recommendations`, `item`, `expired`.",
        "The newest list at once, unless `Last-Event-ID` names it, and each new one as it is made. `item` says that a "
        "product in it has changed. After `expired`, connect again with a fresh token.",
        query=(*LIST_QUERY, CART_QUERY),
        answers="text/event-stream",
        refusals=(400, 401, 403, 429),
        token=True,
    ),
    Route(
        "POST",
        "/v1/sessions/join",
        post_join,
        "At login: the session's events become the user's.",
        "The user's token names the session as `sid`, or the session's own token is given. May be repeated: each event "
        "is written once.",
        bodies=(JoinRequest,),
        answers=JoinAnswer,
        refusals=(400, 401, 403, 409, 413, 415, 429, 503),
        token=True,
    ),
    Route("GET", "/v1/items/{item_id}", get_item, "A product's card.", answers=Card, refusals=(404, 429)),
    Route(
        "GET", "/v1/items/{item_id}/image", get_image, "A product's picture.", answers="image/*", refusals=(404, 429)
    ),
    Route(
        "GET",
        "/v1/items/{item_id}/related",
        get_related,
        "What goes with a product.",
        "`similar`: seen together, looks and reads alike. `complementary`: taken with or after it, of another kind. "
        "`also_viewed`: chosen after it. A visitor who is known has an order of their own. A product that is newer "
        "than the release gets what completes its category, or what is popular in it.",
        query=(Query("kind", Kind, "which relation", "similar"), *LIST_QUERY[1:]),
        answers=ShownList,
        refusals=(400, 401, 403, 404, 429),
        token=True,
    ),
    Route("GET", "/v1/why", get_why, "How recommendations are made, in words.", answers=WhyAnswer, refusals=(429,)),
    Route("GET", "/healthz", get_healthz, "Whether it lives."),
    Route("GET", "/readyz", get_readyz, "Whether it can serve."),
    Route("GET", "/metrics", get_metrics, "Figures for Prometheus.", answers="text/plain"),
)
"""Everything that is documented."""


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever happens, an answer: of the handler, or one that says what is wrong; and its figures."""
    began = time.monotonic()
    gateway = request.app[GATEWAY]
    try:
        _admit(request, gateway)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            response: web.StreamResponse = web.Response(status=204, headers=PREFLIGHT)
        else:
            response = await handler(request)
    except ApiError as error:
        response = refusal(error)
    except web.HTTPRequestEntityTooLarge as error:
        response = refusal(ApiError(413, "too_large", error.text or "the body is too large"))
    except web.HTTPException as error:
        response = refusal(ApiError(error.status, error.reason.lower().replace(" ", "_"), error.reason))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    except Exception:
        # The path without its query, which may have a token.
        log.exception("%s %s failed", request.method, request.path)
        response = refusal(ApiError(500, "internal", "this is a fault of ours; it is in the log"))
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    gateway.metrics.requests.labels(route=route, status=str(response.status)).inc()
    if route != "/v1/stream":
        gateway.metrics.seconds.labels(route=route).observe(time.monotonic() - began)
    return response


def _admit(request: web.Request, gateway: Gateway) -> None:
    """Refuse pages of strangers.

    Raises:
        ApiError: the page's origin is not allowed.
    """
    if gateway.dev and not host_allowed(request.host):
        gateway.metrics.denied.labels(reason="host").inc()
        raise ApiError(421, "wrong_host", "the development mode answers to this machine's own names alone")
    allowed = gateway.settings.storefront_origins
    if request.path.startswith("/widget/") or origin_allowed(
        request.headers.get("Origin"), request.host, allowed, dev=gateway.dev
    ):
        return
    gateway.metrics.denied.labels(reason="origin").inc()
    raise ApiError(403, "origin", "this origin may not call: MMREC_STOREFRONT_ORIGINS does not name it")


async def _caller(request: web.Request, named: tuple[object, object] = (None, None)) -> Caller:
    """Who asks, after their share of requests has been counted.

    Args:
        request: the request.
        named: user and session of its body, for the development mode.

    Raises:
        ApiError: the token is not good, another's data is asked for, or it is too much.
    """
    gateway, now = request.app[GATEWAY], time.monotonic()
    address = address_of(
        request.remote, request.headers.getall("X-Forwarded-For", ()), gateway.settings.storefront_proxies
    )
    _limit(gateway, "address", gateway.by_address.wait_s(address, now))
    visitor = _believed(request, named) if gateway.dev else _proven(request, gateway, named)
    if visitor.user_id is not None:
        _limit(gateway, "user", gateway.by_user.wait_s(visitor.user_id, now))
    return Caller(request, gateway, visitor, address)


def _limit(gateway: Gateway, by: str, wait_s: float) -> None:
    if wait_s > 0:
        gateway.metrics.limited.labels(by=by).inc()
        raise ApiError(429, "too_fast", f"too many requests of this {by}", retry_after_s=wait_s)


def _proven(request: web.Request, gateway: Gateway, named: tuple[object, object]) -> Visitor:
    """Who the token says."""
    token = bearer(request.headers, request.query)
    user = request.query.get("user") or named[0]
    session = request.query.get("session") or named[1]
    if token is None:
        if user is not None:
            raise ApiError(401, "no_token", "a user's lists need the user's token", field="user")
        return NOBODY
    found = gateway.checked(token)
    if isinstance(found, Denial):
        raise ApiError(401, found.reason, found.message)
    if user not in (None, found.user_id) or (session is not None and found.session not in (None, session)):
        gateway.metrics.denied.labels(reason="other_user").inc()
        raise ApiError(403, "other_user", "the token is of another user")
    return found


def _believed(request: web.Request, named: tuple[object, object]) -> Visitor:
    """Who the request says, in the development mode."""
    user = request.query.get("user") or named[0]
    session = request.query.get("session") or named[1]
    try:
        user = msgspec.convert(user, Id | None)
        session = msgspec.convert(session, SessionId | None)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_parameter", str(error), field="user") from None
    if user is None and session is None:
        return NOBODY
    if user is not None and user.startswith(SESSION_PREFIX):
        raise ApiError(400, "invalid_parameter", f"no user's id begins with {SESSION_PREFIX!r}", field="user")
    return Visitor(
        user_id=user or f"{SESSION_PREFIX}{session}",
        session=session,
        consent=request.query.get("consent", "true") not in ("false", "0"),
    )


async def _body(request: web.Request) -> bytes:
    """The request's body.

    Raises:
        ApiError: it is of another kind, or does not arrive.
    """
    if request.content_type not in ("application/json", "text/plain", "application/octet-stream"):
        raise ApiError(415, "media_type", "a body is application/json or text/plain")
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise ApiError(408, "slow_body", f"the body did not arrive within {BODY_S:.0f} s") from None


async def _common_headers(request: web.Request, response: web.StreamResponse) -> None:
    headers = response.headers
    headers["Server"] = "mmrec"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"  # an address may have a token
    gateway = request.app[GATEWAY]
    if request.path.startswith("/widget/"):
        headers["Access-Control-Allow-Origin"] = "*"
        return
    headers["Vary"] = "Origin, Authorization, Sec-GPC"
    origin = request.headers.get("Origin")
    if origin is not None and origin_allowed(
        origin, request.host, gateway.settings.storefront_origins, dev=gateway.dev
    ):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = "ETag, Retry-After"


def _event(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """A server-sent event. JSON has no line ends in it, and list ids no control characters."""
    head = f"id: {event_id}\n" if event_id is not None and event_id.isprintable() else ""
    return f"{head}event: {kind}\ndata: ".encode() + data + b"\n\n"


def _item_id(request: web.Request) -> str:
    return request.match_info["item_id"]
