"""Reads pictures from files and over HTTP on a thread of its own, within bounds of size, type, time and redirects."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from socket import AddressFamily
from typing import Literal, NamedTuple

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import first_line
from mmrec_stream.pictures.sources import RefusedError, Sources
from mmrec_stream.pictures.thumbnails import KEPT, thumbnail, thumbnail_pixels

MAX_BYTES = 10 << 20
"""A photo of a shop has some hundred kilobytes; ten megabytes are what cameras write."""

TYPES = frozenset({"image/jpeg", "image/png", "image/webp"})

TIMEOUT_S = 10.0
"""For a picture, redirects included. Whoever needs longer holds one of few places that others wait for."""

MAX_REDIRECTS = 3
"""From http to https, to another host, to a resized variant: nobody needs more."""

AT_ONCE = 8
"""Pictures that are read at a time: at 50 ms each, 160 a second."""

RETRIES_S = (5.0, 60.0)
"""When a picture is tried again whose host did not answer or had an error of its own: it may be restarting."""


READ_SIDE = 256
"""Most pixels along an edge of what is kept of a read picture, some 12 KB: what large encoders look at is 224."""

UNDER_WAY = 256
"""Pictures that are asked for ahead of the one whose turn it is, where all of a catalogue are read."""

PROBED_SIDE = 8
"""Pixels that a product's own picture is looked at with, to see whether it is one at all."""

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of a picture."""

    picture: bytes | None
    """A small JPEG (`thumbnail`)."""
    kind: Literal["read", "none", "refused", "unreachable", "broken"]
    reason: str = ""


class _UnreachableError(Exception):
    """It may be there later."""


class PictureReader:
    """Pictures by reference, one client for all."""

    def __init__(self, sources: Sources, *, retries_s: tuple[float, ...] = RETRIES_S) -> None:
        """Start the thread.

        Args:
            sources: what may be read.
            retries_s: seconds before each further try of one that cannot be reached.
        """
        self._sources = sources
        self._retries_s = retries_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pictures", daemon=True)
        self._thread.start()
        self._session, self._places = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def read(self, reference: str) -> "Future[Outcome]":
        """Begin to read what a catalogue's `image_url` names; any thread may ask, and nothing is raised."""
        return asyncio.run_coroutine_threadsafe(self._read(reference), self._loop)

    def close(self) -> None:
        """Give up what is under way."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> tuple[aiohttp.ClientSession, asyncio.Semaphore]:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_PublicResolver(self._sources), limit=AT_ONCE, ttl_dns_cache=60),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": ", ".join(sorted(TYPES)), "Accept-Encoding": "identity", "User-Agent": "mmrec-stream"},
            trust_env=False,  # a proxy would resolve names by itself
        )
        return session, asyncio.Semaphore(AT_ONCE)

    async def _close(self) -> None:
        under_way = asyncio.all_tasks() - {asyncio.current_task()}
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._session.close()

    async def _read(self, reference: str) -> Outcome:
        for wait_s in (*self._retries_s, None):
            try:
                async with self._places:
                    place = self._sources.place(reference)
                    data = await self._bytes(place)
                    return Outcome(await asyncio.to_thread(thumbnail, data, READ_SIDE), "read")
            except RefusedError as error:
                return Outcome(None, "refused", str(error))
            except ValueError as error:
                return Outcome(None, "broken", str(error))
            except _UnreachableError as error:
                if wait_s is None:
                    return Outcome(None, "unreachable", str(error))
            await asyncio.sleep(wait_s)
        raise AssertionError

    def _bytes(self, place: Path | URL) -> Awaitable[bytes]:
        return asyncio.to_thread(_file, place) if isinstance(place, Path) else self._over_http(place)

    async def _over_http(self, url: URL) -> bytes:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                for _ in range(MAX_REDIRECTS + 1):
                    found = await self._ask(url)
                    if isinstance(found, bytes):
                        return found
                    url = self._sources.address(found)
        except TimeoutError:
            raise _UnreachableError(f"it takes more than {TIMEOUT_S:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, _ForbiddenError):
                raise RefusedError(str(error.os_error)) from None
            raise _UnreachableError(first_line(error)) from None
        except aiohttp.ClientError as error:
            raise _UnreachableError(first_line(error) or type(error).__name__) from None
        raise ValueError(f"it is redirected more than {MAX_REDIRECTS} times")

    async def _ask(self, url: URL) -> bytes | URL:
        """The picture, or where else it is said to be."""
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status in (301, 302, 303, 307, 308):
                if (location := answer.headers.get("Location")) is None:
                    raise ValueError("it is redirected to nowhere")
                return url.join(URL(location))
            if answer.status >= 500 or answer.status == 429:
                raise _UnreachableError(f"its host answers {answer.status}")
            if answer.status != 200:
                raise ValueError(f"its host answers {answer.status}")
            if answer.content_type not in TYPES:
                raise ValueError(f"it is {answer.content_type}, not one of {', '.join(sorted(TYPES))}")
            data = bytearray()
            async for chunk in answer.content.iter_chunked(1 << 16):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise ValueError(f"it has more than {MAX_BYTES >> 20} MB")
            return bytes(data)


def own_picture(item: CatalogueItem) -> Outcome:
    """What becomes of the picture in an item's record: it is what encoders can decode, or broken."""
    if item.thumbnail is None:
        return Outcome(None, "none")
    if thumbnail_pixels(item.thumbnail, PROBED_SIDE) is None:
        return Outcome(None, "broken", f"what `thumbnail` holds is no {' or '.join(KEPT)}")
    return Outcome(item.thumbnail, "read")


def picture_outcomes(
    sources: Sources, items: Iterable[CatalogueItem], *, retries_s: tuple[float, ...] = (1.0,)
) -> Iterator[tuple[CatalogueItem, Outcome]]:
    """What becomes of each item's picture, its own or one that lies elsewhere, in the order of the items.

    Where nothing may be read from anywhere, an address is no picture; where some may, another one is refused.
    """
    reader = PictureReader(sources, retries_s=retries_s)
    waiting: deque[tuple[CatalogueItem, Future[Outcome]]] = deque()
    try:
        for item in items:
            waiting.append((item, _begun(reader, sources, item)))
            if len(waiting) > UNDER_WAY:
                first, outcome = waiting.popleft()
                yield first, outcome.result()
        while waiting:
            first, outcome = waiting.popleft()
            yield first, outcome.result()
    finally:
        reader.close()


def with_pictures(sources: Sources, items: Iterable[CatalogueItem]) -> list[CatalogueItem]:
    """The items, those whose picture lies elsewhere with it as their thumbnail; the log says how many had none."""
    known = list(items)
    elsewhere = [item for item in known if sources.wanted(item) is not None]
    if not elsewhere:
        return known
    read = {
        item.item_id: outcome.picture
        for item, outcome in picture_outcomes(sources, elsewhere)
        if outcome.picture is not None
    }
    missing = len(elsewhere) - len(read)
    log.info("pictures: %d read, %d products do without (see `mmrec pictures`)", len(read), missing)
    return [
        msgspec.structs.replace(item, thumbnail=read[item.item_id]) if item.item_id in read else item for item in known
    ]


def _begun(reader: PictureReader, sources: Sources, item: CatalogueItem) -> "Future[Outcome]":
    if item.thumbnail is None and item.image_url and sources:
        return reader.read(item.image_url)
    known: Future[Outcome] = Future()
    known.set_result(own_picture(item))
    return known


class _ForbiddenError(OSError):
    """A name that stands for an address that may not be asked."""


class _PublicResolver(AbstractResolver):
    """Looks at what names stand for, at the moment of connecting: a name may stand for another address each time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, AddressFamily(family))
        try:
            for one in found:
                self._sources.check(ip_address(one["host"].partition("%")[0]))
        except RefusedError as error:
            raise _ForbiddenError(f"{host}: {error}") from None
        return found

    async def close(self) -> None:
        await self._inner.close()


def _file(path: Path) -> bytes:
    with suppress(OSError):
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 20} MB")
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
