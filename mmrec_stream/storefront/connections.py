"""Connections: how many there may be, what one may send, and who is told when it is gone."""

import asyncio
from collections import Counter
from collections.abc import Callable

from aiohttp import web

from mmrec_stream.storefront.access import address_of
from mmrec_stream.storefront.api import Complaint, ErrorAnswer, encode

IDLE_S = 75.0
"""How long a connection may wait for its next request, or take for the head of one. Balancers give up after 60 s."""

SPARE = 2_000
"""Connections beyond those of the streams; a page needs one or two, for as long as its requests take."""

BROWSER = 6
"""Connections that a browser opens to a host at most, so that an address may have as many for each of its streams."""

SLOW_S = 10.0
"""How long a reader may leave 64 KB unread without taking anything of it before it is cut. A stream comes back and gets
the newest list."""

MAX_LINE = 8_190
"""Bytes of the request line, which may have a token, and of one header."""

MAX_HEADERS = 64
"""Header lines; browsers behind two proxies send some 25."""


class Connection(web.RequestHandler):
    """One connection; tells whoever has asked for it when it is lost, and is cut when its reader does not read.

    Having the server cancel a request whose connection is lost would be simpler, and would cancel a beacon's too: a
    page that closes sends it and is gone.
    """

    __slots__ = ("_bounds", "_looking", "_unread", "address", "on_lost")

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop, bounds: "Bounds") -> None:
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
        self.address: str | None = None
        """Where it comes from, once it is let in."""
        self._bounds = bounds
        self._looking: asyncio.TimerHandle | None = None
        self._unread = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or close it where its address has as many as it may have."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        address = address_of(peer[0] if peer else None, (), 0)
        if self._bounds.enter(address):
            self.address = address
        elif self.transport is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        """More is unread than is kept for a reader: look later whether it reads."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """It has read."""
        self._look_no_more()
        super().resume_writing()

    def _look_later(self) -> None:
        if self.transport is not None:
            self._unread = self.transport.get_write_buffer_size()
            self._looking = self._loop.call_later(SLOW_S, self._look)

    def _look(self) -> None:
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() < self._unread:
            self._look_later()
            return
        self._bounds.cut()
        self.transport.abort()

    def _look_no_more(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

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
        self._look_no_more()
        if self.address is not None:
            self._bounds.leave(self.address)
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)


class Refused(asyncio.Protocol):
    """A connection beyond the bound: closed before anything is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()


class Bounds:
    """How many connections there may be, in all and from an address, and how many there are."""

    def __init__(self, most: int, per_address: int | None, cut: Callable[[], None]) -> None:
        """Prepare.

        Args:
            most: connections in all.
            per_address: those of one address; None: any number, as behind a proxy, whose address all have.
            cut: called for each that is cut, as nobody reads what is written to it.
        """
        self.most = most
        self.cut = cut
        self._per_address = per_address
        self._addresses: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection, unless the address has as many as it may have."""
        if self._per_address is not None and self._addresses[address] >= self._per_address:
            return False
        self._addresses[address] += 1
        return True

    def leave(self, address: str) -> None:
        """A connection is gone."""
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]


def factory(server: web.Server, bounds: Bounds) -> Callable[[], asyncio.Protocol]:
    """What makes the protocol of each connection that is accepted."""
    loop = asyncio.get_running_loop()
    return lambda: Connection(server, loop, bounds) if len(server.connections) < bounds.most else Refused()
