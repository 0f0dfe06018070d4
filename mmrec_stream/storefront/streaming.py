"""The event stream of an open page: its newest list, and changes of what that shows."""

import asyncio
import time
from random import SystemRandom

from aiohttp import web

from mmrec_stream.policies.policy import Visit
from mmrec_stream.storefront.api import ApiError, ItemNews, encode
from mmrec_stream.storefront.callers import caller_of
from mmrec_stream.storefront.connections import Connection
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.hub import Stream

HEARTBEAT_S = 15.0
"""How often a silent stream says that it lives: proxies cut connections that are silent for 30 to 60 s."""

RETRY_MS = (1_000, 5_000)
"""How long an EventSource waits before it connects again, drawn anew for each stream: when a gateway restarts, not all
of its readers come in the same second."""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "private, no-store",
    "X-Accel-Buffering": "no",  # nginx would collect events otherwise
}

_JITTER = SystemRandom()


async def get_stream(request: web.Request) -> web.StreamResponse:
    """Server-sent events: the newest list now and whenever there is another, and changes of what it shows."""
    caller = await caller_of(request)
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


def _event(kind: str, data: bytes, event_id: str | None = None) -> bytes:
    """A server-sent event. JSON has no line ends in it, and list ids no control characters."""
    head = f"id: {event_id}\n" if event_id is not None and event_id.isprintable() else ""
    return f"{head}event: {kind}\ndata: ".encode() + data + b"\n\n"
