"""Ten thousand forged, expired, foreign, replayed and malformed tokens and requests: none gets in, none breaks it."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import aiohttp
import pytest

from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.storefront.shop import Shop, bearer, events, open_shop, product, publish, recommended, token
from tests.storefront.test_tokens import forgeries

T = TypeVar("T")
R = TypeVar("R")

CLICK: dict[str, object] = {"type": "click", "item_id": "a", "ts": 1_790_000_000_000}
TOKENS, REQUESTS, REPLAYS = 6_000, 3_000, 1_000
AT_ONCE = 32

GOOD = b"GET /v1/recommendations HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.slow
async def test_ten_thousand_attempts(settings: Settings, topics: Topics, caplog: pytest.LogCaptureFixture) -> None:
    publish(settings, product("a"), product("b"), recommended("alice", ["b"], list_id="hers"))
    async with open_shop(settings) as shop:
        with caplog.at_level(logging.ERROR):
            statuses = await with_forged_tokens(shop, TOKENS)
            assert sum(statuses.values()) == TOKENS
            assert set(statuses) == {401}
            answers = await with_malformed_requests(shop, REQUESTS)
            assert sum(answers.values()) == REQUESTS
            assert set(answers) <= {
                "400",
                "401",
                "403",
                "404",
                "405",
                "408",
                "411",
                "413",
                "414",
                "415",
                "431",
                "closed",
            }
            assert events(settings, topics.clicks) == []
            await with_replays(shop, REPLAYS)
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
        assert len(events(settings, topics.clicks)) == 1
        assert (await shop.get("/v1/recommendations", bearer("alice"))).json["list_id"] == "hers"
        assert (await shop.get("/healthz")).status == 200
        assert len(shop.gateway.hub) == 0


async def with_forged_tokens(shop: Shop, count: int) -> Counter[int]:
    """Each forged token at one of the addresses that look at tokens, in the header or in the address."""

    async def attempt(place: int, text: str) -> int:
        address = ["/v1/recommendations", "/v1/stream", "/v1/events", "/v1/sessions/join"][place % 4]
        try:
            headers, query = ({"Authorization": f"Bearer {text}"}, {}) if place % 8 < 4 else ({}, {"token": text})
            if place % 4 < 2:
                return (await shop.get(address, headers, user="alice", **query)).status
            return (await shop.post(address, CLICK | {"session": "s"}, headers, **query)).status
        except (ValueError, aiohttp.ClientError):  # this client does not send what has control characters in it
            return (await shop.get(address if place % 4 < 2 else "/v1/stream", token=text)).status

    return Counter(await in_turn(attempt, forgeries(count, seed=1, now_s=time.time())))


async def with_malformed_requests(shop: Shop, count: int) -> Counter[str]:
    """Requests that are none, or that no page may send; the status of each answer, or that it was closed."""
    draw = random.Random(2)
    good = token(sub="alice").encode()
    body = b'{"type":"click","item_id":"a","ts":1790000000000}'
    post = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + good + b"\r\n"
    kinds: list[Callable[[], bytes]] = [
        lambda: draw.randbytes(draw.randrange(1, 400)) + b"\r\n\r\n",
        lambda: GOOD.replace(b"HTTP/1.1", draw.choice([b"HTTP/9.9", b"HTTPS/1.1", b"", b"\x00"])),
        lambda: b"GET /" + b"a" * draw.randrange(9_000, 60_000) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: GOOD[:-2] + b"X: " + b"y" * draw.randrange(9_000, 60_000) + b"\r\n\r\n",
        lambda: GOOD[:-2] + b"".join(b"X%d: y\r\n" % n for n in range(draw.randrange(200, 1_000))) + b"\r\n",
        lambda: GOOD[:-2] + b"Origin: https://evil.example\r\n\r\n",
        lambda: GOOD[:-2] + b"Origin: null\r\n\r\n",
        lambda: GOOD[:-2] + b"Authorization: Basic YTpi\r\n\r\n",
        lambda: GOOD.replace(b"?", b"").replace(b" HTTP", b"?k=%d HTTP" % draw.choice([0, -1, 10**30, 101])),
        lambda: GOOD.replace(b" HTTP", b"?surface=..%2f..%2f HTTP"),
        lambda: b"GET /widget/..%2f..%2fsettings.py HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /widget/%2e%2e/%2e%2e/settings.py HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /widget/" + b"a/" * draw.randrange(200, 3_000) + b"b" * 300 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"GET /v1/items/%00%ff%0d%0aSet-Cookie:x/image HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: b"DELETE /v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
        lambda: post + b"Content-Type: application/json\r\nContent-Length: 9000000\r\n\r\n" + b" " * 140_000,
        lambda: post + b"Content-Type: application/json\r\nContent-Length: -5\r\n\r\n",
        lambda: post + b"Content-Type: application/json\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + body,
        lambda: post + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
        lambda: (
            post
            + b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body.replace(b"{", b"\x1f")
        ),
        lambda: post + b"Content-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        lambda: (
            post
            + b"Content-Type: application/json\r\nOrigin: https://evil.example\r\nContent-Length: %d\r\n\r\n"
            % len(body)
            + body
        ),
        lambda: (
            (bad := mutated(body, draw))
            and post + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(bad) + bad
        ),
    ]
    requests = [kinds[place % len(kinds)]() for place in range(count)]

    async def attempt(_: int, request: bytes) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
        try:
            writer.write(request)
            writer.write_eof()
            async with asyncio.timeout(20):
                line = await reader.readline()
            return line.split(b" ")[1].decode() if line.startswith(b"HTTP/1.") else "closed"
        except ConnectionError:
            return "closed"
        finally:
            writer.close()

    return Counter(await in_turn(attempt, requests))


def with_length(head: bytes, body: bytes) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def mutated(body: bytes, draw: random.Random) -> bytes:
    """A body that is no event any more."""
    return draw.choice(
        [
            body[: draw.randrange(1, len(body) - 1)],
            body.replace(b"click", b"hover"),
            body.replace(b"item_id", b"item"),
            body.replace(b"1790000000000", b"1e400"),
            body.replace(b'"a"', b"[" * 5_000),
            body.replace(b"{", b'{"user_id":"bob",', 1),
            body.replace(b"}", b',"position":-3}'),
            b"null",
            b"\xef\xbb\xbf" + body + b"\x00",
        ]
    )


async def with_replays(shop: Shop, count: int) -> None:
    """One good request again and again: it counts once; and, when its token has expired, not at all."""
    request = CLICK | {"id": "e-1"}
    short = token(sub="alice", lasts_s=-28)  # two seconds, with the leeway for clocks
    headers = {"Authorization": f"Bearer {short}"}
    first = await shop.post("/v1/events", request, headers)
    assert first.json["accepted"] == 1

    async def attempt(_: int, again: dict[str, object]) -> int:
        answer = await shop.post("/v1/events", again, bearer("alice"))
        assert answer.json == {"accepted": 0, "duplicates": 1, "withheld": 0}
        return answer.status

    assert set(await in_turn(attempt, [request] * (count // 2))) == {202}
    deadline = time.monotonic() + 10
    while (await shop.post("/v1/events", request, headers)).status != 401:
        assert time.monotonic() < deadline

    async def late(_: int, again: dict[str, object]) -> int:
        return (await shop.post("/v1/events", again | {"id": str(random.random())}, headers)).status

    assert set(await in_turn(late, [request] * (count - count // 2))) == {401}


async def in_turn(attempt: Callable[[int, T], Awaitable[R]], requests: Sequence[T]) -> list[R]:
    """What came of each request, `AT_ONCE` at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(place: int, request: T) -> R:
        async with gate:
            return await attempt(place, request)

    return await asyncio.gather(*(one(place, request) for place, request in enumerate(requests)))
