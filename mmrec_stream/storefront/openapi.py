"""The gateway's description of itself: an OpenAPI document made from the routes and their structs, and a page of it."""

import base64
import hashlib
import html
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from mmrec_stream import __version__
from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.storefront import api

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REFUSALS = {
    400: "A parameter or a field is wrong; `error.field` names it.",
    401: "There is no token, or it is not good; `error.code` says why.",
    403: "The token is good, and not for this; or the page's origin is not allowed.",
    404: "There is no such thing.",
    409: "The session is another user's already.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    429: "Too much, too fast; `Retry-After` says how many seconds to wait.",
    503: "Kafka does not answer; `Retry-After` says when to try again.",
}
"""What an answer other than success means, wherever it comes."""


@dataclass(frozen=True)
class Query:
    """A parameter in the address."""

    name: str
    type: Any
    text: str
    default: object = None


@dataclass(frozen=True)
class Route:
    """An address, what it takes and what it answers."""

    method: str
    path: str
    handler: Handler
    summary: str
    text: str = ""
    query: Sequence[Query] = ()
    bodies: Sequence[Any] = ()
    """Types of which the JSON body is one; empty where there is none."""
    answers: Any = None
    """Type of the JSON answer; a string is a media type."""
    status: int = 200
    refusals: Sequence[int] = ()
    token: bool = False
    """Whether a token is looked at."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the routes."""
    types: list[Any] = [api.ErrorAnswer]
    for route in routes:
        types += [query.type for query in route.query]
        types += route.bodies
        types += [route.answers] if route.answers is not None and not isinstance(route.answers, str) else []
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of = {id(kind): found for kind, found in zip(types, schemas, strict=True)}
    for member in BehaviourEvent.__args__:
        _without_user(components[member.__name__])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mmrec storefront",
            "version": __version__,
            "description": "Behaviour events in, recommendation lists out. Every error has the body `ErrorAnswer`.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def page(found: dict[str, Any]) -> tuple[str, str]:
    """A document as a page that needs nothing from elsewhere, and the policy (CSP) it is served with."""
    parts = []
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            parts.append(_section(method.upper(), path, operation))
    schemas = "".join(
        f"<details id='{_text(name)}'><summary><code>{_text(name)}</code></summary><pre>{_json(schema)}</pre></details>"
        for name, schema in sorted(found["components"]["schemas"].items())
    )
    info = found["info"]
    body = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{_text(info['title'])}</title><style>{_STYLE}</style><main><h1>{_text(info['title'])}</h1>"
        f"<p>{_text(info['description'])} The same as <a href='/openapi.json'>openapi.json</a>.</p>"
        f"{''.join(parts)}<h2>Schemas</h2>{schemas}</main></html>"
    )
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return body, f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"


_STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{margin:0}main{max-width:60rem;margin:auto;padding:1.5rem}
h2{margin-top:2.5rem}summary{cursor:pointer;padding:.5rem 0}
details{border-top:1px solid #8884}pre{overflow:auto;background:#8881;padding:.75rem;font-size:.85rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}
.m{display:inline-block;min-width:3.5rem;font-weight:700}
"""


def _operation(route: Route, of: dict[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary, "operationId": route.handler.__name__}
    if route.text:
        operation["description"] = route.text
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    for query in route.query:
        schema = dict(of[id(query.type)])
        if query.default is not None:
            schema["default"] = query.default
        parameters.append({"name": query.name, "in": "query", "description": query.text, "schema": schema})
    if parameters:
        operation["parameters"] = parameters
    if route.bodies:
        schemas = [of[id(body)] for body in route.bodies]
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}, "text/plain": {"schema": schema}},
        }
    if isinstance(route.answers, str):
        content: dict[str, Any] = {route.answers: {}}
    else:
        content = {"application/json": {"schema": of[id(route.answers)]} if route.answers is not None else {}}
    operation["responses"] = {str(route.status): {"description": route.summary, "content": content}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    for status in route.refusals:
        operation["responses"][str(status)] = {"description": REFUSALS[status], "content": error}
    if route.token:
        operation["security"] = [{"bearer": []}, {"query": []}]
    return operation


def _without_user(schema: dict[str, Any]) -> None:
    """An event as a page sends it: the token says whose it is, and an id of the page's makes it count once."""
    schema["required"] = [name for name in schema["required"] if name not in ("user_id", "ts")]
    del schema["properties"]["user_id"]
    schema["properties"]["id"] = {"type": "string", "maxLength": 64, "description": "the page's own id of the event"}
    schema["properties"]["surface"] = {"type": "string", "description": "where it happened"}


def _section(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{_text(one['name'])}</code><td>{_text(one['in'])}<td>{_text(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td><code>{status}</code><td>{_text(one['description'])}<td><code>{_text(_named(one))}</code>"
        for status, one in operation["responses"].items()
    )
    body = f"<p>Body: <code>{_text(_named(operation['requestBody']))}</code></p>" if "requestBody" in operation else ""
    return (
        f"<details><summary><span class='m'>{method}</span> <code>{_text(path)}</code> — {_text(operation['summary'])}"
        f"</summary><p>{_text(operation.get('description', ''))}</p>{body}"
        f"<table>{rows}</table><table>{answers}</table></details>"
    )


def _named(one: dict[str, Any]) -> str:
    for kind, content in one.get("content", {}).items():
        schema = content.get("schema")
        if schema is None:
            return str(kind)
        parts = [part for one in (schema, *schema.get("anyOf", ())) for part in (one, *one.get("anyOf", ()))]
        refs = dict.fromkeys(part.get("$ref", "") for part in parts)
        return ", ".join(ref.rsplit("/", 1)[-1] for ref in refs if ref) or str(kind)
    return ""


def _text(value: object) -> str:
    return html.escape(str(value))


def _json(value: object) -> str:
    return _text(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())
