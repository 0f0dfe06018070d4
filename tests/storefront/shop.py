"""A shop for the gateway to serve: its keys and tokens, products and lists in topics, and a client."""

import asyncio
import contextlib
import json
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import aiohttp
import jwt
from jwt.warnings import InsecureKeyLengthWarning
from pydantic import SecretStr

from mmrec_stream.contracts.behaviour import BehaviourEvent, decode_event, encode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Recommended, Times, encode_list
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.serving import serving
from mmrec_stream.storefront.tokens import AUDIENCE, new_key_set
from mmrec_stream.topics import Topics

KEYS = new_key_set("now")
SECRET = json.loads(KEYS)["keys"][0]["k"]
JPEG = b"\xff\xd8\xff\xe0a picture"
NOW = int(time.time() * 1000)


def token(
    *,
    key: str = SECRET,
    kid: str = "now",
    alg: str = "HS256",
    lasts_s: float = 300,
    now_s: float | None = None,
    **claims: Any,
) -> str:
    """A token of the shop's server; `claims` replace the usual ones, and those that are None are left out.

    It is made at `now_s` (seconds since the epoch; none: the moment of the call, so call it in the test: what is made
    when tests are collected has expired by the time that the last ones run).
    """
    usual: dict[str, Any] = {"aud": AUDIENCE, "exp": int((time.time() if now_s is None else now_s) + lasts_s)}
    payload = {name: value for name, value in (usual | claims).items() if value is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)  # forgeries use algorithms that want longer ones
        return jwt.encode(payload, jwt.utils.base64url_decode(key) if key else key, algorithm=alg, headers={"kid": kid})


def bearer(user: str | None = None, **more: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(sub=user, **more)}"}


def product(item_id: str, **more: Any) -> CatalogueItem:
    fields: dict[str, Any] = {"title": f"The {item_id}", "price": 10.0, "stock": 5, "category": "chairs"}
    return CatalogueItem(item_id=item_id, **(fields | more))


def recommended(
    user: str, items: Iterable[str], *, list_id: str = "l-1", strategy: Any = "hybrid"
) -> RecommendationList:
    now = time.time() * 1000
    return RecommendationList(
        list_id=list_id,
        user_id=user,
        items=[
            Recommended(item_id=item, score=1 / (1 + place), p_user=0.9, p_item=0.1) for place, item in enumerate(items)
        ],
        release="r-1",
        strategy=strategy,
        cause=Cause(topic="t", partition=0, offset=0),
        times=Times(event=now, appended=now, fetched=now, folded=now, scored=now, published=now),
        alpha=0.5,
    )


def publish(settings: Settings, *messages: object) -> None:
    """Products, lists and events into their topics; an item's id alone takes the product out."""
    topics = Topics.of(settings)
    with BatchProducer(settings, linger_ms=0) as producer:
        for message in messages:
            match message:
                case CatalogueItem():
                    producer.send(topics.catalogue, encode_item(message), key=message.item_id.encode())
                case RecommendationList():
                    producer.send(topics.recommendations, encode_list(message), key=message.user_id.encode())
                case str():
                    producer.send(topics.catalogue, None, key=message.encode())
                case _:
                    event: Any = message
                    producer.send(topics.of_event(event), encode_event(event), key=event.user_id.encode())


def events(settings: Settings, topic: str) -> list[BehaviourEvent]:
    """What lies in a behaviour topic."""
    return [decode_event(message.value() or b"") for message in read(settings, topic)]


class Shop:
    """A gateway that serves, and what one asks of it."""

    def __init__(self, settings: Settings, gateway: Gateway, port: int, session: aiohttp.ClientSession) -> None:
        self.settings = settings
        self.gateway = gateway
        self.port = port
        self.session = session
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path: str, headers: Mapping[str, str] | None = None, **query: str) -> "Answer":
        async with self.session.get(self.url + path, params=query, headers=headers) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    async def post(self, path: str, body: object, headers: Mapping[str, str] | None = None, **query: str) -> "Answer":
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | dict(headers or {})
        async with self.session.post(self.url + path, data=data, params=query, headers=headers) as response:
            return Answer(response.status, response.headers.copy(), await response.read())

    @contextlib.asynccontextmanager
    async def stream(self, headers: Mapping[str, str] | None = None, **query: str) -> AsyncIterator["Reader"]:
        async with self.session.get(f"{self.url}/v1/stream", params=query, headers=headers) as response:
            assert response.status == 200, await response.text()
            yield Reader(response)


class Answer:
    """A response, read whole."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code; empty where it is none."""
        return str(self.json.get("error", {}).get("code", "")) if self.status >= 400 else ""

    @property
    def items(self) -> list[str]:
        assert self.status == 200, self.body
        return [item["item_id"] for item in self.json["items"]]


class Reader:
    """An event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def frame(self, timeout_s: float = 20) -> dict[str, str]:
        """The next frame that has fields, by name; a comment is under the empty name. Empty at the end."""
        found: dict[str, str] = {}
        async with asyncio.timeout(timeout_s):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    return found
                name, _, value = line.rstrip("\n").partition(": ")
                found[name if name != ":" else ""] = value
        return found

    async def event(self, kind: str, timeout_s: float = 20) -> dict[str, Any]:
        """The data of the next event of a kind; others are passed over."""
        while True:
            frame = await self.frame(timeout_s)
            assert frame, f"the stream ended before {kind}"
            if frame.get("event") == kind:
                data: dict[str, Any] = json.loads(frame["data"])
                return data


@contextlib.asynccontextmanager
async def open_shop(settings: Settings, *, dev: bool = False, ready: bool = True, **more: Any) -> AsyncIterator[Shop]:
    """A gateway; where it is to be `ready`, one that has loaded what there is."""
    usual: dict[str, Any] = {
        "storefront_port": 0,
        "storefront_keys": SecretStr(KEYS),
        "storefront_rate": 10_000,
        "storefront_address_rate": 100_000,
    }
    settings = settings.model_copy(update=usual | more)
    async with serving(settings, dev=dev) as (gateway, port), aiohttp.ClientSession() as session:
        if ready:
            await until("loaded", lambda: gateway.ready)
        yield Shop(settings, gateway, port, session)


async def until(what: str, condition: Callable[[], Any], timeout_s: float = 30) -> Any:
    """The condition's first true value; it is asked again until then."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}"
        await asyncio.sleep(0.01)
    return value
