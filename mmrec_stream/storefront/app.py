"""The web application: what is answered at each address. Thin: what decides lies in the modules it calls."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from pathlib import Path

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.storefront.access import origin_allowed
from mmrec_stream.storefront.answers import cacheable, json_answer, refusal
from mmrec_stream.storefront.api import (
    DEFAULT_PLACES,
    ApiError,
    Card,
    EventBatch,
    EventsAnswer,
    JoinAnswer,
    JoinRequest,
    Places,
    ShownList,
    Surface,
    WhyAnswer,
    encode,
)
from mmrec_stream.storefront.callers import GATEWAY, admit, caller_of
from mmrec_stream.storefront.demo import MAX_PRODUCT, Controls
from mmrec_stream.storefront.demo_pages import add_demo
from mmrec_stream.storefront.explanation import explanation
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.openapi import Query, Route, document, page
from mmrec_stream.storefront.related import Kind
from mmrec_stream.storefront.shaping import POPULAR
from mmrec_stream.storefront.streaming import get_stream
from mmrec_stream.storefront.submitting import post_events, post_join
from mmrec_stream.storefront.tokens import NOBODY

STATIC = Path(__file__).parent / "static"

MAX_BODY = 128 * 1024
"""Bytes of a request: 200 events have 40 KB. Browsers keep a beacon below 64 KB."""

PUBLIC_S = 15
"""How long a browser or proxy may keep a popular list. Its order moves by the hour; a sold-out item is told at once."""

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

LIST_QUERY = (
    Query("surface", Surface, "where the list is shown", "home"),
    Query("k", Places, "most items wanted", DEFAULT_PLACES),
    Query("why", bool, "1: with the reason of each place"),
    Query("personalised", bool, "false: the list that is the same for everybody"),
)
CART_QUERY = Query("items", str, "beside a cart: ids of what is in it, by commas; else what the visitor's events say")

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


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


async def get_recommendations(request: web.Request) -> web.Response:
    """The newest list of a user, or what is popular."""
    caller = await caller_of(request)
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
    caller = await caller_of(request)
    card = caller.gateway.shelf.get(_item_id(request))
    if card is None:
        raise ApiError(404, "unknown_item", "the catalogue has no such item")
    return cacheable(request, encode(card), "public, max-age=5")


async def get_image(request: web.Request) -> web.Response:
    """A product's picture, as the catalogue has it."""
    caller = await caller_of(request)
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
    caller = await caller_of(request)
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


async def get_why(request: web.Request) -> web.Response:
    """The main parameters, for everybody to read."""
    caller = await caller_of(request)
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
        admit(request, gateway)
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


def _item_id(request: web.Request) -> str:
    return request.match_info["item_id"]
