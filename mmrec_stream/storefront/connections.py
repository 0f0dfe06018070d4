"""Connections: how many there may be, what one may send, and who is told when it is gone."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from mmrec_stream.storefront.api import Complaint, ErrorAnswer, encode

IDLE_S = 75.0
"""How long a connection may wait for its next request, or take for the head of one. Balancers give up after 60 s."""

SPARE = 2_000
"""Connections beyond those of the streams; a page needs one or two, for as long as its requests take."""

MAX_LINE = 8_190
"""Bytes of the request line, which may have a token, and of one header."""

MAX_HEADERS = 64
"""Header lines; browsers behind two proxies send some 25."""


class Connection(web.RequestHandler):
    """One connection; tells whoever has asked for it when it is lost.

    Having the server cancel a request whose connection is lost would be simpler, and would cancel a beacon's too: a
    page that closes sends it and is gone.
    """

    __slots__ = ("on_lost",)

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # addresses have tokens in them
            keepalive_timeout=IDLE_S,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            auto_decompress=False,  # 128 KB may unpack to gigabytes
        )
        self.on_lost: Callable[[], None] | None = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP. Nothing of it is repeated, and no line goes to the log: strangers could fill it."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        complaint = Complaint(code="malformed", message="this is no request that can be read")
        response = web.Response(
            body=encode(ErrorAnswer(error=complaint)), status=status, content_type="application/json"
        )
        response.force_close()
        return response

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell, and clean up."""
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)


class Refused(asyncio.Protocol):
    """A connection beyond the bound: closed before anything is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


def factory(server: web.Server, most: int) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each connection that is accepted; `most` may be open at a time."""
    loop = asyncio.get_running_loop()
    return lambda: Connection(server, loop) if len(server.connections) < most else Refused()
