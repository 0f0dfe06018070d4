"""Answers as bytes: JSON, and what may be cached."""

import math

from aiohttp import web

from mmrec_stream.storefront.api import ApiError, ErrorAnswer, encode
from mmrec_stream.storefront.shaping import etag


def json_answer(answer: object, *, status: int = 200, cache: str = "no-store") -> web.Response:
    """An answer that is not to be kept, unless `cache` says so."""
    return web.Response(
        body=encode(answer), status=status, content_type="application/json", headers={"Cache-Control": cache}
    )


def cacheable(request: web.Request, body: bytes, cache: str, kind: str = "application/json") -> web.Response:
    """An answer with a validator; 304 where the caller has it already."""
    tag = etag(body)
    headers = {"ETag": tag, "Cache-Control": cache}
    known = [part.strip().removeprefix("W/") for part in request.headers.get("If-None-Match", "").split(",")]
    if tag in known:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type=kind, headers=headers)


def refusal(error: ApiError) -> web.Response:
    """An answer that says what is wrong, and when to come back."""
    response = json_answer(ErrorAnswer(error=error.complaint), status=error.status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
