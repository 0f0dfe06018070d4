"""A gateway for browser tests: it speaks the storefront's HTTP contract over a small synthetic shop, in memory.

It runs in a thread of its own, can be stopped and started again on the same port, keeps every event it was sent, and
ranks by the visitor's last clicks, so that a page that closes the loop sees its lists change. Pages of a test are put
into `pages` and served beside it.
"""

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import time
from typing import Any

import msgspec
from aiohttp import web

import mmrec_stream
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.simulator import make_shop
from mmrec_stream.simulator.pictures import SIDE

STATIC = Path(mmrec_stream.__file__).parent / "storefront" / "static"
SHOP_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
SHOPPERS = {"ada": "likes dresses and retro colours", "ben": "sneakers, backpacks, bottles", "cleo": "new here"}
KINDS = ("similar", "complementary", "also_viewed")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Json = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """A page of a test: its HTML, and headers such as a policy."""

    html: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Gateway:
    """The contract's endpoints. `events` has every event in order of arrival, `requests` every path with its query."""

    def __init__(self, items: int = 120, side: int = SIDE) -> None:
        self.shop = make_shop(items, side=side)
        self.catalogue: dict[str, CatalogueItem] = {item.item_id: item for item in self.shop}
        self.rows = {item.item_id: row for row, item in enumerate(self.shop)}
        self.pages: dict[str, Page] = {}
        self.events: list[Json] = []
        self.requests: list[str] = []
        self.tokens: dict[str, str] | None = None
        """Tokens that are believed, with their user; None: development mode, `user` and `session` are."""
        self.answer_events: list[int] = []
        """Status codes for the next requests that bring events, before they succeed again."""
        self.why = True
        self.kinds = set(KINDS)
        self.can = ["catalogue", "panel", "publish", "stock", "join", "why"]
        self.happenings: list[Json] = []
        """What the panel tells of what runs behind the shop."""
        self.alter: Callable[[Json], Json] = lambda card: card
        """Applied to every product card that goes out."""
        self._serial = count(1)
        self._seen_ids: set[str] = set()
        self._taste: dict[str, list[str]] = defaultdict(list)
        self._carts: dict[str, list[str]] = defaultdict(list)
        self._lists: dict[str, Json] = {}
        self._streams: set[tuple[str, str, int, asyncio.Queue[str]]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Gateway":
        """Serve; on the same port as before, where there was one."""
        self._wait(self._start())
        return self

    def stop(self) -> None:
        """Go away as a killed process does: open connections end in the middle."""
        self._wait(self._stop())

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def streams(self) -> list[str]:
        """Whose streams are open."""
        return [who for who, *_ in self._streams]

    def push(self, user: str, surface: str = "home", first: str | None = None) -> Json:
        """Send a new list once a stream wants it; `first` is put at its head. Returns the list."""
        made: Json = self._wait(self._push_to_open(user, surface, first))
        return made

    def sell_out(self, item_id: str) -> None:
        """The product is gone: every open stream is told."""
        self._wait(self._changed(item_id, {"stock": 0}))

    def of(self, kind: str) -> list[Json]:
        """The events of a type."""
        return [event for event in list(self.events) if event["type"] == kind]

    def _wait(self, todo: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(todo, self._loop).result(30)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._around], client_max_size=2**21)
        app.add_routes(
            [
                web.get("/v1/recommendations", self._recommendations),
                web.get("/v1/stream", self._stream),
                web.post("/v1/events", self._events),
                web.post("/v1/sessions/join", self._join),
                web.get("/v1/items/{id}", self._item),
                web.put("/v1/items/{id}", self._publish),
                web.patch("/v1/items/{id}", self._patch),
                web.get("/v1/items/{id}/image", self._image),
                web.get("/v1/items/{id}/related", self._related),
                web.get("/v1/shop", self._shop),
                web.get("/v1/categories", self._categories),
                web.get("/v1/catalogue", self._catalogue),
                web.get("/v1/panel", self._panel),
                web.get("/v1/why", self._why),
                web.post("/v1/demo/train", self._train),
                web.post("/v1/demo/kill", self._kill),
                web.static("/widget", STATIC / "widget"),
                web.get("/shop/", self._index),
                web.static("/shop", STATIC / "shop"),
                web.get("/{page}", self._page),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        for *_, queue in self._streams:
            queue.put_nowait("")
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        if request.method == "OPTIONS":
            response: web.StreamResponse = web.Response()
        else:
            response = await handler(request)
        if not response.prepared:
            self._headers(request, response)
        return response

    def _headers(self, request: web.Request, response: web.StreamResponse) -> None:
        if request.path.startswith("/shop/"):
            response.headers["Content-Security-Policy"] = SHOP_CSP
        response.headers["Access-Control-Allow-Origin"] = "*"
        response.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type, Last-Event-ID"
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, PATCH"

    def _who(self, request: web.Request) -> str:
        """Whose request this is; 401 where a token is wanted and none that counts is there."""
        if request.query.get("personalised") == "0":
            return ""
        if self.tokens is None:
            return request.query.get("user") or request.query.get("session") or ""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ") or request.query.get("token", "")
        if given not in self.tokens:
            raise web.HTTPUnauthorized(headers={"Access-Control-Allow-Origin": "*"})
        return self.tokens[given]

    async def _recommendations(self, request: web.Request) -> web.Response:
        who = self._who(request)
        return web.json_response(self._current(who, request.query.get("surface", "home"), int(request.query["k"])))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        who, surface, k = self._who(request), request.query.get("surface", "home"), int(request.query["k"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._headers(request, response)
        await response.prepare(request)
        queue: asyncio.Queue[str] = asyncio.Queue()
        stream = (who, surface, k, queue)
        self._streams.add(stream)
        try:
            current = self._current(who, surface, k)
            await response.write(b": open\n\n")
            if request.headers.get("Last-Event-ID") != current["list_id"]:
                await response.write(self._message(current).encode())
            while message := await queue.get():
                await response.write(message.encode())
        except ConnectionResetError:
            pass
        finally:
            self._streams.discard(stream)
        return response

    def _message(self, made: Json) -> str:
        made["times"]["sent"] = time() * 1000
        return f"event: recommendations\nid: {made['list_id']}\ndata: {json.dumps(made)}\n\n"

    async def _events(self, request: web.Request) -> web.Response:
        who = self._who(request)
        if self.answer_events:
            return web.Response(status=self.answer_events.pop(0), headers={"Retry-After": "0"})
        body = json.loads(await request.read())
        given = body.get("events", [body])
        if any(event["type"] == "nonsense" for event in given):
            return web.json_response({"error": {"code": "bad_event", "message": "no such type"}}, status=400)
        new = [event for event in given if event["id"] not in self._seen_ids]
        for event in new:
            self._seen_ids.add(event["id"])
            self.events.append({"user": who, **event})
        for event in new:
            if event["type"] == "add_to_cart":
                self._carts[who].append(event["item_id"])
            elif event["type"] in ("remove_from_cart", "purchase"):
                self._carts[who] = [item_id for item_id in self._carts[who] if item_id != event["item_id"]]
        acted = [event for event in new if event["type"] != "impression"]
        if acted and who:
            self._taste[who] += [event["item_id"] for event in acted if event["type"] != "remove_from_cart"]
            for key in [key for key in self._lists if key.startswith(f"{who}/")]:
                del self._lists[key]
            for surface in ("home", "product", "cart"):
                await self._push(who, surface, cause=acted[-1]["ts"])
        return web.json_response({"accepted": len(new), "duplicates": len(given) - len(new)}, status=202)

    async def _push_to_open(self, user: str, surface: str, first: str | None) -> Json:
        async with asyncio.timeout(10):
            while not any((who, at) == (user, surface) for who, at, *_ in self._streams):
                await asyncio.sleep(0.02)
        return await self._push(user, surface, first)

    async def _push(self, user: str, surface: str, first: str | None = None, cause: float | None = None) -> Json:
        made: Json = {}
        for who, at, k, queue in list(self._streams):
            if (who, at) == (user, surface):
                made = self._made(user, surface, k, first, cause)
                queue.put_nowait(self._message(made))
        return made

    def current(self, who: str, surface: str = "home", k: int = 12) -> Json:
        """The newest list, as `/v1/recommendations` gives it."""
        made: Json = self._wait(self._later(who, surface, k))
        return made

    async def _later(self, who: str, surface: str, k: int) -> Json:
        return self._current(who, surface, k)

    def _current(self, who: str, surface: str, k: int) -> Json:
        key = f"{who}/{surface}/{k}"
        if key not in self._lists:
            self._made(who, surface, k)
        return self._lists[key]

    def _made(self, who: str, surface: str, k: int, first: str | None = None, cause: float | None = None) -> Json:
        recent = self._taste[who][-8:] if who else []
        scores: dict[str, tuple[float, str | None]] = {}
        for item_id, item in self.catalogue.items():
            if not item.offered or item_id in recent:
                continue
            row = self.rows.get(item_id)
            score, source = float(self.shop.popularity[row]) * 4 if row is not None else 0.5, None
            for age, liked in enumerate(reversed(recent)):
                near = self._likeness(item, self.catalogue[liked]) * 0.7**age
                if near > 0.4 and source is None:
                    source = liked
                score += near
            scores[item_id] = (score + 99 * (item_id == first), source)
        cart = self._carts[who] if surface == "cart" else []
        for item_id in cart:
            row = self.rows.get(item_id)
            for other in [] if row is None else self.shop.complements[row].tolist():
                if self.shop[other].item_id in scores:
                    scores[self.shop[other].item_id] = (99.0, item_id)
        best = sorted((item_id for item_id in scores if item_id not in cart), key=lambda item_id: -scores[item_id][0])
        best = best[:k]
        now = time() * 1000
        event = cause or now - 9
        made = {
            **self._list(best, surface, [scores[item_id] for item_id in best]),
            "strategy": "complementary" if cart else "hybrid" if recent else "popular",
            "personalised": bool(recent),
            "alpha": round(min(0.85, 0.2 + 0.08 * len(self._taste[who])), 2) if recent else 0.0,
            "times": {
                "event": event,
                "appended": min(event + 1.2, now - 3.4),
                "fetched": now - 3.1,
                "folded": now - 2.9,
                "scored": now - 1.3,
                "published": now - 1.1,
                "received": now - 0.3,
            },
        }
        self._lists[f"{who}/{surface}/{k}"] = made
        return made

    def _likeness(self, one: CatalogueItem, other: CatalogueItem) -> float:
        tags = len(set(one.tags) & set(other.tags))
        return (one.category == other.category) + 0.5 * (one.brand == other.brand) + 0.3 * tags

    def _list(self, items: list[str], surface: str, scored: list[tuple[float, str | None]]) -> Json:
        return {
            "list_id": f"list-{next(self._serial)}",
            "surface": surface,
            "release": "20261124T073247Z-df3f",
            "strategy": "association",
            "personalised": False,
            "generated": time() * 1000,
            "items": [
                self._card(self.catalogue[item_id])
                | {"position": position, "score": score}
                | ({"why": self._reason(source)} if self.why else {})
                for position, (item_id, (score, source)) in enumerate(zip(items, scored, strict=True))
            ],
        }

    def _reason(self, source: str | None) -> Json:
        if source is None:
            return {"text": "Many shoppers look at this right now.", "kind": "popular"}
        text = f"You looked at {self.catalogue[source].title}."
        return {"text": text, "kind": "similar", "source_item_id": source}

    def _card(self, item: CatalogueItem) -> Json:
        card = {
            "item_id": item.item_id,
            "title": item.title,
            "price": item.price,
            "currency": "EUR",
            "image": f"/v1/items/{item.item_id}/image",
            "url": f"/shop/#/product/{item.item_id}",
            "brand": item.brand,
            "category": item.category,
            "in_stock": item.offered,
        }
        return self.alter(card)

    def _found(self, request: web.Request) -> CatalogueItem:
        item = self.catalogue.get(request.match_info["id"])
        if item is None:
            raise web.HTTPNotFound
        return item

    async def _item(self, request: web.Request) -> web.Response:
        item = self._found(request)
        more = {"description": item.description, "tags": item.tags, "stock": item.stock}
        return web.json_response(self._card(item) | more)

    async def _image(self, request: web.Request) -> web.Response:
        item = self._found(request)
        if item.thumbnail is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": "public, max-age=60"}
        return web.Response(body=item.thumbnail, content_type="image/jpeg", headers=headers)

    async def _related(self, request: web.Request) -> web.Response:
        item, kind, k = self._found(request), request.query["kind"], int(request.query["k"])
        if kind not in self.kinds:
            raise web.HTTPNotFound(headers={"Access-Control-Allow-Origin": "*"})
        row = self.rows.get(item.item_id)
        chosen: list[str] = []
        if row is not None:
            rows = self.shop.complements[row] if kind == "complementary" else self.shop.successors[row]
            chosen = [self.shop[other].item_id for other in dict.fromkeys(rows.tolist())]
        if kind != "complementary":
            near = sorted(self.catalogue.values(), key=lambda other: -self._likeness(item, other))
            chosen += [other.item_id for other in near if other.item_id not in {item.item_id, *chosen}]
        kept = [item_id for item_id in chosen if self.catalogue[item_id].offered][:k]
        return web.json_response(self._list(kept, "product", [(1.0, item.item_id)] * len(kept)))

    async def _publish(self, request: web.Request) -> web.Response:
        item_id = request.match_info["id"]
        item = msgspec.json.decode(
            json.dumps(json.loads(await request.read()) | {"item_id": item_id}), type=CatalogueItem
        )
        self.catalogue[item_id] = item
        await self._renew()
        return web.json_response({"item_id": item_id}, status=202)

    async def _patch(self, request: web.Request) -> web.Response:
        await self._changed(self._found(request).item_id, json.loads(await request.read()))
        return web.json_response({"item_id": request.match_info["id"]}, status=202)

    async def _changed(self, item_id: str, change: Json) -> None:
        self.catalogue[item_id] = msgspec.structs.replace(self.catalogue[item_id], **change)
        data = json.dumps({"item_id": item_id, "in_stock": self.catalogue[item_id].offered})
        for *_, queue in self._streams:
            queue.put_nowait(f"event: item\ndata: {data}\n\n")
        await self._renew()

    async def _renew(self) -> None:
        """The catalogue changed: lists are made anew, and sent to those who look."""
        self._lists.clear()
        for who, surface, k, queue in self._streams:
            queue.put_nowait(self._message(self._made(who, surface, k)))

    async def _join(self, request: web.Request) -> web.Response:
        self._taste[request.query["user"]] += self._taste.pop(request.query["session"], [])
        self._lists.clear()
        return web.json_response({})

    async def _shop(self, _request: web.Request) -> web.Response:
        shoppers = [{"user": user, "text": text} for user, text in SHOPPERS.items()]
        actions = [
            {"id": "train", "title": "Train now", "path": "/v1/demo/train"},
            {"id": "kill", "title": "Kill the worker", "path": "/v1/demo/kill"},
        ]
        return web.json_response({"name": "Kiosk", "can": self.can, "shoppers": shoppers, "actions": actions})

    async def _categories(self, _request: web.Request) -> web.Response:
        found: dict[str, list[CatalogueItem]] = defaultdict(list)
        for item in self.catalogue.values():
            found[item.category or "other"].append(item)
        rows = [
            {
                "id": category,
                "title": category.rsplit(".")[-1].capitalize(),
                "count": len(items),
                "image": f"/v1/items/{items[0].item_id}/image",
            }
            for category, items in sorted(found.items())
        ]
        return web.json_response({"categories": rows})

    async def _catalogue(self, request: web.Request) -> web.Response:
        category, words = request.query.get("category", ""), request.query.get("q", "").lower().split()
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 24))

        def fits(item: CatalogueItem) -> bool:
            text = " ".join([item.title, item.brand or "", item.category or "", *item.tags, item.description]).lower()
            inside = f"{item.category}.".startswith(f"{category}.") if category else True
            return inside and all(word in text for word in words)

        found = sorted(filter(fits, self.catalogue.values()), key=lambda item: not item.offered)
        cards = [self._card(item) for item in found[offset : offset + limit]]
        return web.json_response({"total": len(found), "offset": offset, "items": cards})

    async def _panel(self, request: web.Request) -> web.Response:
        who = self._who(request)
        mine = [event for event in reversed(self.events) if event["user"] == who][:20]
        weights: dict[tuple[str, str], float] = defaultdict(float)
        for age, item_id in enumerate(reversed(self._taste[who])):
            item = self.catalogue[item_id]
            values = [("category", item.category), ("brand", item.brand), *(("tag", tag) for tag in item.tags)]
            for kind, name in values:
                weights[kind, name or ""] += 0.8**age
        most = max(weights.values(), default=1)
        tastes = sorted(weights.items(), key=lambda taste: -taste[1])[:8]
        current = self._current(who, "home", 12)
        return web.json_response(
            {
                "user": who,
                "release": current["release"],
                "strategy": current["strategy"],
                "alpha": current["alpha"],
                "events": [
                    {name: event[name] for name in ("type", "item_id", "ts")}
                    | {"title": self.catalogue[event["item_id"]].title}
                    for event in mine
                ],
                "tastes": [
                    {"kind": kind, "name": name, "weight": round(weight / most, 3)} for (kind, name), weight in tastes
                ],
                "modalities": [
                    {"name": "behaviour", "share": 0.44},
                    {"name": "picture", "share": 0.27},
                    {"name": "text", "share": 0.21},
                    {"name": "attributes", "share": 0.08},
                ],
                "modalities_of": "list" if current["personalised"] else "release",
                "times": current["times"],
                "lag": {"events": 0},
                "workers": 1,
                "training_s": None,
                "happenings": self.happenings,
            }
        )

    async def _why(self, _request: web.Request) -> web.Response:
        parameters = [
            {"name": "own_behaviour", "text": "What you looked at, put into the cart and bought.", "weight": 0.6},
            {"name": "others_behaviour", "text": "What other shoppers chose after that.", "weight": 0.4},
            {"name": "availability", "text": "What is sold out is left out.", "weight": None},
        ]
        options = [{"name": "personalised=false", "text": "The same recommendations for everybody.", "weight": None}]
        text = "Recommendations are ordered by how likely you are to choose a product next."
        return web.json_response({"text": text, "parameters": parameters, "options": options, "release": "r"})

    async def _train(self, _request: web.Request) -> web.Response:
        return web.json_response({"text": "A new release is being trained."}, status=202)

    async def _kill(self, _request: web.Request) -> web.Response:
        now = int(time() * 1000)
        texts = ("Worker 4711 ended (SIGKILL); another is started.", "Worker 4802 has taken over, 2.1 s later.")
        self.happenings += [
            {"number": len(self.happenings) + n, "ts": now, "text": text} for n, text in enumerate(texts, 1)
        ]
        return web.json_response({"text": "The worker is dead."}, status=202)

    async def _index(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC / "shop" / "index.html")

    async def _page(self, request: web.Request) -> web.Response:
        page = self.pages.get(request.path)
        if page is None:
            raise web.HTTPNotFound
        return web.Response(text=page.html, content_type="text/html", headers=dict(page.headers))
