"""Pictures from a real server and a real folder: what is one comes small, and what is none costs itself alone."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.pictures import reading
from mmrec_stream.pictures.reading import (
    MAX_REDIRECTS,
    READ_SIDE,
    Outcome,
    PictureReader,
    own_picture,
    picture_outcomes,
    with_pictures,
)
from mmrec_stream.pictures.sources import Sources
from mmrec_stream.pictures.thumbnails import thumbnail_pixels


def picture(kind: str = "JPEG", size: tuple[int, int] = (640, 320), mode: str = "RGB") -> bytes:
    buffer = BytesIO()
    Image.new(mode, size, "red").save(buffer, kind)
    return buffer.getvalue()


class Shop:
    """A server with all that a shop's may say."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failures = 0
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        match request.path.strip("/").split("/"):
            case ["good.jpg"]:
                return web.Response(body=picture(), content_type="image/jpeg")
            case ["good.webp"]:
                return web.Response(body=picture("WEBP", mode="RGBA"), content_type="image/webp")
            case ["page"]:
                return web.Response(text="<html>", content_type="text/html")
            case ["cut.jpg"]:
                return web.Response(body=picture()[:400], content_type="image/jpeg")
            case ["gif.png"]:
                return web.Response(body=picture("GIF"), content_type="image/png")
            case ["endless"]:
                response = web.StreamResponse(headers={"Content-Type": "image/jpeg"})
                await response.prepare(request)
                while not request.transport or not request.transport.is_closing():
                    await response.write(bytes(1 << 16))
                return response
            case ["never"]:
                await asyncio.sleep(3_600)
            case ["busy"] if self.failures:
                self.failures -= 1
                return web.Response(status=503)
            case ["busy"]:
                return web.Response(body=picture("PNG"), content_type="image/png")
            case ["hop", left]:
                raise web.HTTPFound(f"/hop/{int(left) - 1}" if left != "0" else "/good.jpg")
            case ["to", _]:
                raise web.HTTPFound(request.query["there"])
        raise web.HTTPNotFound


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    app = web.Application()
    app.router.add_get("/{tail:.*}", shop.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    shop.port = runner.addresses[0][1]
    yield shop
    await runner.cleanup()


async def read(sources: Sources, reference: str, retries_s: tuple[float, ...] = ()) -> Outcome:
    reader = PictureReader(sources, retries_s=retries_s)
    try:
        return await asyncio.wrap_future(reader.read(reference))
    finally:
        await asyncio.to_thread(reader.close)


def listed(shop: Shop) -> Sources:
    return Sources.of(None, [f"127.0.0.1:{shop.port}", "127.0.0.0/8"])


@pytest.mark.parametrize("path", ["good.jpg", "good.webp", "busy", f"hop/{MAX_REDIRECTS - 1}"])
async def test_a_picture_comes_as_a_small_jpeg(shop: Shop, path: str) -> None:
    outcome = await read(listed(shop), f"http://127.0.0.1:{shop.port}/{path}")
    assert outcome.kind == "read", outcome.reason
    assert outcome.picture is not None
    with Image.open(BytesIO(outcome.picture)) as image:
        assert (image.format, image.size) == ("JPEG", (READ_SIDE, READ_SIDE // 2))


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("page", "broken", "it is text/html"),
        ("cut.jpg", "broken", "it is no picture"),
        ("gif.png", "broken", "it is no picture"),
        ("endless", "broken", "more than 10 MB"),
        ("missing", "broken", "answers 404"),
        (f"hop/{MAX_REDIRECTS}", "broken", "redirected more than"),
        ("to/x?there=http://169.254.169.254/", "refused", "169.254.169.254:80 is not among"),
        ("to/x?there=file:///etc/passwd", "refused", "only http and https"),
        ("to/x?there=http://localhost:{port}/good.jpg", "refused", "localhost:{port} is not among"),
    ],
)
async def test_what_is_none_is_told_with_its_reason(shop: Shop, path: str, kind: str, reason: str) -> None:
    url = f"http://127.0.0.1:{shop.port}/{path.format(port=shop.port)}"
    outcome = await read(listed(shop), url)
    assert (outcome.kind, outcome.picture) == (kind, None)
    assert reason.format(port=shop.port) in outcome.reason
    assert "/good.jpg" not in shop.asked


async def test_a_listed_name_that_stands_for_a_private_address_is_not_asked(shop: Shop) -> None:
    url = f"http://localhost:{shop.port}/good.jpg"
    outcome = await read(Sources.of(None, [f"localhost:{shop.port}"]), url)
    assert outcome.kind == "refused"
    assert "no public address" in outcome.reason
    assert not shop.asked
    allowed = Sources.of(None, [f"localhost:{shop.port}", "127.0.0.0/8", "::1"])
    assert (await read(allowed, url)).kind == "read"


async def test_a_host_that_does_not_answer_is_tried_again_and_given_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.failures = 2
    assert (await read(listed(shop), f"http://127.0.0.1:{shop.port}/busy", (0.0, 0.0))).kind == "read"
    shop.failures = 2
    outcome = await read(listed(shop), f"http://127.0.0.1:{shop.port}/busy", (0.0,))
    assert (outcome.kind, outcome.reason) == ("unreachable", "its host answers 503")
    monkeypatch.setattr(reading, "TIMEOUT_S", 0.2)
    slow = await read(listed(shop), f"http://127.0.0.1:{shop.port}/never")
    assert slow.kind == "unreachable"
    nobody = await read(Sources.of(None, ["127.0.0.1:9", "127.0.0.0/8"]), "http://127.0.0.1:9/a.jpg")
    assert nobody.kind == "unreachable"


async def test_a_folder_has_pictures_too(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "lamp é.png").write_bytes(picture("PNG"))
    sources = Sources.of(tmp_path, [])
    assert (await read(sources, "/img/lamp%20é.png")).kind == "read"
    assert (await read(sources, "img/lamp é.png")).kind == "read"
    missing = await read(sources, "/img/rug.png")
    assert (missing.kind, "there is no file" in missing.reason) == ("broken", True)
    assert (await read(sources, "/img")).kind == "broken"


@pytest.mark.parametrize(("kind", "read"), [("JPEG", True), ("PNG", True), ("WEBP", False), ("GIF", False)])
def test_what_a_record_may_hold_itself_is_what_encoders_decode(kind: str, read: bool) -> None:
    item = CatalogueItem(item_id="lamp", thumbnail=picture(kind))
    ((_, told),) = picture_outcomes(Sources(), [item])
    assert told == own_picture(item)
    assert (told.kind == "read") is read
    assert read or told.reason == "what `thumbnail` holds is no JPEG or PNG"
    assert (thumbnail_pixels(picture(kind), 32) is not None) is read


def test_a_catalogue_is_given_the_pictures_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "lamp.jpg").write_bytes(picture())
    (tmp_path / "rug.jpg").write_bytes(b"no picture")
    own = picture(size=(8, 8))
    items = [
        CatalogueItem(item_id="lamp", image_url="/lamp.jpg"),
        CatalogueItem(item_id="rug", image_url="/rug.jpg"),
        CatalogueItem(item_id="vase", image_url="/lamp.jpg", thumbnail=own),
        CatalogueItem(item_id="sofa", image_url="https://cdn.example/sofa.jpg"),
    ]
    lamp, *others = with_pictures(Sources.of(tmp_path, []), items)
    assert lamp.thumbnail is not None
    assert lamp.thumbnail.startswith(b"\xff\xd8")
    assert others == items[1:]
    assert with_pictures(Sources(), items) == items
