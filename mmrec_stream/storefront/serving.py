"""Listening: sockets, their bounds, and the end."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator

from aiohttp import web

from mmrec_stream.errors import UserError
from mmrec_stream.processes import keep_what_is_loaded, run_steadily
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.access import is_loopback
from mmrec_stream.storefront.app import create_app
from mmrec_stream.storefront.connections import BROWSER, SPARE, Bounds, factory
from mmrec_stream.storefront.demo import Controls
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.tokens import Keys, parse_keys

BACKLOG = 1_024
"""Connections that may wait to be accepted: when a gateway restarts, all its readers come within seconds."""

OTHER_FILES = 200
"""Files beside connections: Kafka's sockets, libraries, pictures."""

SHUTDOWN_S = 5.0
"""How long requests may take to end. Streams are ended at once; events are confirmed within milliseconds."""

log = logging.getLogger(__name__)


def keys_of(settings: Settings, *, dev: bool) -> Keys | None:
    """The keys that tokens are checked with.

    Raises:
        UserError: there are none, and it is not the development mode; or they cannot be used.
    """
    if settings.storefront_keys is not None:
        return parse_keys(settings.storefront_keys.get_secret_value())
    if dev:
        return None
    raise UserError(
        "MMREC_STOREFRONT_KEYS is not set, so no token could be checked: `mmrec storefront --new-key` makes one; "
        "`--dev` believes everybody, on this machine alone"
    )


@contextlib.asynccontextmanager
async def serving(
    settings: Settings, *, dev: bool = False, controls: Controls | None = None
) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway that listens, for the length of a block, and its port. The demo gives its `controls`.

    Raises:
        UserError: there are no keys; the development mode would be open to others; or the port is taken.
    """
    host = settings.storefront_host
    if dev and not is_loopback(host):
        raise UserError(f"the development mode believes everybody, so it listens on loopback alone, not on {host}")
    gateway = Gateway(settings, keys_of(settings, dev=dev), dev=dev)
    runner = web.AppRunner(create_app(gateway, controls), shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        server = runner.server
        assert server is not None  # noqa: S101 - set by setup
        per_address = None if settings.storefront_proxies else BROWSER * settings.storefront_streams_per_address
        bounds = Bounds(settings.storefront_streams + SPARE, per_address, gateway.metrics.slow.inc)
        protocol = factory(server, bounds)
        try:
            listening = await asyncio.get_running_loop().create_server(
                protocol, host, settings.storefront_port, backlog=BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise UserError(f"cannot listen on {host}, port {settings.storefront_port}: {error.strerror}") from None
        try:
            yield gateway, _port(listening.sockets)
        finally:
            listening.close()
    finally:
        await runner.cleanup()


def raise_file_limit(connections: int) -> None:
    """Have the system allow as many open files as connections need, as far as it lets us; say where it does not."""
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning("%d open files are allowed, %d connections need %d: `ulimit -n`", allowed, connections, wanted)


async def serve(settings: Settings, *, dev: bool = False) -> None:
    """Serve until SIGINT or SIGTERM."""
    raise_file_limit(settings.storefront_streams + SPARE)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    run_steadily()
    async with serving(settings, dev=dev) as (gateway, port):
        log.info("storefront on http://%s:%d, described at /docs", settings.storefront_host, port)
        if dev:
            log.warning("development mode: no tokens, everybody is believed")
        keeping = asyncio.create_task(_keep(gateway))
        await ended.wait()
        keeping.cancel()
        log.info("ending")


async def _keep(gateway: Gateway) -> None:
    await gateway.filled.wait()
    keep_what_is_loaded()


def _port(sockets: tuple[socket.socket, ...]) -> int:
    port: int = sockets[0].getsockname()[1]
    return port
