"""Who sends a request, and what its parameters say: what handlers ask before they answer."""

import asyncio
import time
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from mmrec_stream.contracts.fields import Id
from mmrec_stream.policies.policy import Visit
from mmrec_stream.storefront.access import address_of, bearer, consents, host_allowed, origin_allowed
from mmrec_stream.storefront.api import DEFAULT_PLACES, ApiError, Places, Surface
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.tokens import MAX_SESSION, NOBODY, SESSION_PREFIX, Denial, Visitor
from mmrec_stream.storefront.trails import IN_CART

GATEWAY = web.AppKey("gateway", Gateway)

BODY_S = 10.0
"""How long a body may take to arrive. A phone on a bad line sends 2 KB a second."""

SessionId = Annotated[str, Meta(min_length=1, max_length=MAX_SESSION)]


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


def admit(request: web.Request, gateway: Gateway) -> None:
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


async def caller_of(request: web.Request, named: tuple[object, object] = (None, None)) -> Caller:
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
    limit(gateway, "address", gateway.by_address.wait_s(address, now))
    visitor = _believed(request, named) if gateway.dev else _proven(request, gateway, named)
    if visitor.user_id is not None:
        limit(gateway, "user", gateway.by_user.wait_s(visitor.user_id, now))
    return Caller(request, gateway, visitor, address)


def limit(gateway: Gateway, by: str, wait_s: float) -> None:
    """Refuse what is too much.

    Raises:
        ApiError: there is still time to wait.
    """
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


async def body_of(request: web.Request) -> bytes:
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
