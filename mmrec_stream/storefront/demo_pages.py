"""The addresses of the demo shop: thin, over `demo`."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.recommendations import RecommendationList
from mmrec_stream.errors import UserError, first_line
from mmrec_stream.storefront import demo
from mmrec_stream.storefront.answers import json_answer
from mmrec_stream.storefront.api import DEFAULT_PLACES, ApiError
from mmrec_stream.storefront.gateway import Gateway
from mmrec_stream.storefront.publishing import CONFIRM_S
from mmrec_stream.storefront.speaking import product_of
from mmrec_stream.storefront.tokens import SESSION_PREFIX

MOST = 200
"""Most products of a page."""

DEMO = web.AppKey("demo", Gateway)
CONTROLS = web.AppKey("controls", demo.Controls)


def add_demo(app: web.Application, gateway: Gateway, controls: demo.Controls | None) -> None:
    """Serve the demo shop's addresses too; where there are `controls`, what runs behind it can be acted upon."""
    app[DEMO] = gateway
    app.router.add_get("/v1/shop", get_shop)
    app.router.add_get("/v1/categories", get_categories)
    app.router.add_get("/v1/catalogue", get_catalogue)
    app.router.add_get("/v1/panel", get_panel)
    app.router.add_put("/v1/items/{item_id}", put_item)
    app.router.add_patch("/v1/items/{item_id}", patch_item)
    if controls is not None:
        app[CONTROLS] = controls
        app.router.add_post("/v1/demo/{action}", post_action)


async def get_shop(request: web.Request) -> web.Response:
    """What the demo shop may offer, and whose shoulder one may look over."""
    gateway, controls = request.app[DEMO], request.app.get(CONTROLS)
    actions = controls.actions if controls is not None else ()
    return json_answer({"can": demo.CAN, "shoppers": gateway.desk.shoppers(gateway.shelf), "actions": actions})


async def get_categories(request: web.Request) -> web.Response:
    """The categories."""
    return json_answer({"categories": demo.categories(request.app[DEMO].shelf)})


async def get_catalogue(request: web.Request) -> web.Response:
    """Products, a page at a time."""
    query = request.query
    offset, limit = _number(query, "offset", 0), min(_number(query, "limit", 24), MOST)
    found = demo.search(request.app[DEMO].shelf, query.get("category"), query.get("q", ""))
    return json_answer({"total": len(found), "offset": offset, "items": found[offset : offset + limit]})


async def get_panel(request: web.Request) -> web.Response:
    """What the pipeline knows of a visitor."""
    gateway = request.app[DEMO]
    user_id = request.query.get("user") or f"{SESSION_PREFIX}{request.query.get('session', '')}"
    panel: dict[str, Any] = {
        "user": user_id,
        "release": gateway.release,
        "events": [
            {"type": seen.type, "item_id": seen.item_id, "title": _title(gateway, seen.item_id), "ts": seen.ts}
            for seen in gateway.desk.events(user_id)
        ],
        "tastes": gateway.desk.tastes(user_id, gateway.shelf),
        "modalities": demo.modalities_of(gateway.relations.manifest if gateway.relations is not None else None),
    }
    if (found := gateway.list_of(user_id)) is not None:
        panel |= {
            "release": found.release,
            "list_release": found.release,
            "strategy": found.strategy,
            "times": found.times,
        }
        if found.strategy != "popular":
            panel["alpha"] = found.alpha
            if spoke := await _spoke(gateway, found):
                panel |= {"modalities": spoke, "modalities_of": "list"}
    if (controls := request.app.get(CONTROLS)) is not None:
        panel |= controls.status()
    return json_answer(panel)


async def _spoke(gateway: Gateway, found: RecommendationList) -> demo.Shares:
    """How much each modality spoke for a list, where its release serves and its user has done something."""
    announced = gateway.announced
    if announced is None or announced.version != found.release:
        return []

    def products(item_ids: Iterable[str]) -> list[CatalogueItem]:
        cards = [card for item_id in item_ids if (card := gateway.shelf.get(item_id)) is not None]
        pictures = [gateway.pictures.get(card.item_id) for card in cards]
        return [product_of(card, kept[1] if kept else None) for card, kept in zip(cards, pictures, strict=True)]

    listed = products(item.item_id for item in found.items[:DEFAULT_PLACES])
    return await gateway.desk.spoke(found.list_id, announced, listed, products(gateway.trails.of(found.user_id)))


async def post_action(request: web.Request) -> web.Response:
    """Have something done to what runs behind the shop."""
    return json_answer({"text": await request.app[CONTROLS].act(request.match_info["action"])}, status=202)


async def put_item(request: web.Request) -> web.Response:
    """Publish a product; answered when Kafka has it."""
    item = demo.product_of(await request.read(), request.match_info["item_id"])
    return await _publish(request.app[DEMO], item)


async def patch_item(request: web.Request) -> web.Response:
    """Change a product's stock; answered when Kafka has it."""
    gateway, item_id = request.app[DEMO], request.match_info["item_id"]
    try:
        item = await demo.newest_record(gateway.settings, item_id)
    except UserError as error:
        raise ApiError(503, "not_confirmed", first_line(error), retry_after_s=5) from None
    if item is None:
        raise ApiError(404, "unknown_item", "the catalogue has no such item")
    return await _publish(gateway, demo.restocked(item, await request.read()))


async def _publish(gateway: Gateway, item: CatalogueItem) -> web.Response:
    assert gateway.publisher is not None  # noqa: S101 - requests come after the start
    delivery = gateway.publisher.send(gateway.topics.catalogue, *demo.record_of(item), ())
    await asyncio.wait([delivery], timeout=CONFIRM_S)
    if not delivery.done() or delivery.result() is not None:
        raise ApiError(503, "not_confirmed", "Kafka has not confirmed the product: try again", retry_after_s=2)
    return json_answer({"item_id": item.item_id}, status=202)


def _title(gateway: Gateway, item_id: str) -> str:
    card = gateway.shelf.get(item_id)
    return item_id if card is None else card.title


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return max(0, int(query.get(name, default)))
    except ValueError:
        raise ApiError(400, "invalid_parameter", "Expected `int`", field=name) from None
