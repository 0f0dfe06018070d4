"""The gateway as a service: its pages, its health, its command, and readers that do not read."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from mmrec_stream.settings import Settings
from mmrec_stream.storefront import app as storefront
from mmrec_stream.storefront import connections
from mmrec_stream.storefront.app import ROUTES, STATIC
from mmrec_stream.storefront.connections import Bounds, factory
from tests.conftest import Outcome, environment
from tests.integration.workers import wait_for
from tests.storefront.shop import bearer, open_shop, product, publish, recommended, token, until


@pytest.mark.usefixtures("topics")
class TestPages:
    async def test_the_description_names_every_address_and_what_it_answers(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"]))
        async with open_shop(settings) as shop:
            described = (await shop.get("/openapi.json")).json
            assert set(described["paths"]) == {route.path for route in ROUTES}
            schemas = described["components"]["schemas"]
            references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
            assert references <= set(schemas)
            assert "user_id" not in schemas["Click"]["properties"]
            # What is answered is what is described.
            answer = (await shop.get("/v1/recommendations", bearer("alice"), why="1")).json
            assert set(answer) | {"alpha", "times"} == set(schemas["ShownList"]["properties"])
            assert set(answer["items"][0]) == set(schemas["Place"]["properties"])

    async def test_the_page_of_it_needs_nothing_from_elsewhere(self, settings: Settings) -> None:
        async with open_shop(settings) as shop:
            page = await shop.get("/docs")
            text = page.body.decode()
            assert "/v1/sessions/join" in text
            assert re.findall(r"""(?:src|href)=["']([^"']+)""", text) == ["/openapi.json"]
            assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")

    async def test_files_of_widget_and_demo_shop_and_no_others(self, settings: Settings, tmp_path: Path) -> None:
        async with open_shop(settings, dev=True) as shop:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(storefront, "STATIC", tmp_path / "static")
                for folder in ("widget", "shop"):
                    (tmp_path / "static" / folder).mkdir(parents=True)
                (tmp_path / "static" / "widget" / "w.js").write_text("export {}")
                (tmp_path / "static" / "shop" / "index.html").write_text("<h1>Shop</h1>")
                (tmp_path / "static" / "secret").write_text("no")
                found = await shop.get("/widget/w.js", {"Origin": "https://any.example"})
                assert (found.status, found.headers["Access-Control-Allow-Origin"]) == (200, "*")
                assert "javascript" in found.headers["Content-Type"]
                page = await shop.get("/shop")
                assert (page.body, page.headers["Content-Type"]) == (b"<h1>Shop</h1>", "text/html")
                assert "script-src 'self'" in page.headers["Content-Security-Policy"]
                for path in ("%2e%2e/secret", "..%2fsecret", "../secret", "missing.js", "%00"):
                    for folder in ("widget", "shop"):
                        assert (await shop.get(f"/{folder}/{path}")).status == 404, (folder, path)
        async with open_shop(settings) as shop:  # a demo is for the development mode
            assert (await shop.get("/shop/")).status == 404
        assert STATIC.name == "static"

    async def test_an_unknown_address_and_method_are_answered_as_everything_else(self, settings: Settings) -> None:
        async with open_shop(settings) as shop:
            assert (await shop.get("/v1/nothing")).code == "not_found"
            wrong = await shop.post("/v1/recommendations", {})
            assert (wrong.status, wrong.code) == (405, "method_not_allowed")
            for header, value in (("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")):
                assert wrong.headers[header] == value

    async def test_a_fault_of_ours_is_an_answer_too_and_tells_no_secret(
        self, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_shop(settings) as shop:
            shop.gateway.lists = None  # type: ignore[assignment]
            secret = token(sub="alice")
            answer = await shop.get("/v1/recommendations", token=secret)
            assert (answer.status, answer.code) == (500, "internal")
            assert "GET /v1/recommendations failed" in caplog.text
            assert secret not in caplog.text
            shop.gateway.lists = type(shop.gateway)(settings, shop.gateway.keys).lists


@pytest.mark.usefixtures("topics")
class TestFigures:
    async def test_what_happens_is_counted(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"]))
        async with open_shop(settings) as shop, shop.stream(bearer("alice")) as reader:
            await reader.event("recommendations")
            publish(settings, recommended("alice", ["a"], list_id="l-2"))
            await reader.event("recommendations")
            await shop.post("/v1/events", {"type": "click", "item_id": "a", "id": "1"}, bearer("alice"))
            await shop.get("/v1/recommendations", bearer("alice", alg="none", key=""))
            text = (await shop.get("/metrics")).body.decode()
            for line in (
                "mmrec_storefront_streams 1.0",
                "mmrec_storefront_lists_pushed_total 1.0",
                'mmrec_storefront_events_total{outcome="accepted"} 1.0',
                'mmrec_storefront_denied_total{reason="malformed"} 1.0',
                'mmrec_storefront_requests_total{route="/v1/events",status="202"} 1.0',
                "mmrec_storefront_products 1.0",
                "mmrec_storefront_lists_held 1.0",
            ):
                assert line in text
            assert re.search(r"mmrec_storefront_push_seconds_count 1\.0", text)

    async def test_ready_says_what_is_there(self, settings: Settings) -> None:
        publish(settings, product("a"), recommended("alice", ["a"]))
        async with open_shop(settings) as shop:
            status = (await shop.get("/readyz")).json
            assert (status["ready"], status["products"], status["lists"]) == (True, 1, 1)


@pytest.mark.usefixtures("topics")
async def test_a_reader_that_does_not_read_is_cut_and_holds_up_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SLOW_S", 1.0)
    items = [f"item-{n}" for n in range(100)]
    publish(settings, *(product(item, title="A long title " * 78) for item in items))
    async with open_shop(settings) as shop, shop.stream(bearer("bob"), k="1") as reader:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.connect(("127.0.0.1", shop.port))
        slow.sendall(f"GET /v1/stream?k=100&token={token(sub='alice')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until("both are open", lambda: len(shop.gateway.hub) == 2)
        number = 0
        while len(shop.gateway.hub) == 2:
            number += 1
            assert number < 2_000
            await asyncio.to_thread(
                publish,
                settings,
                recommended("alice", items, list_id=f"a-{number}"),
                recommended("bob", items, list_id=f"b-{number}"),
            )
            while (await reader.event("recommendations"))["list_id"] != f"b-{number}":
                pass
        assert (await shop.get("/metrics")).body.decode().count("mmrec_storefront_slow_readers_total 1.0") == 1
        slow.close()


@pytest.mark.usefixtures("topics")
async def test_who_asks_and_never_reads_the_answers_is_cut_too(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SLOW_S", 0.5)
    publish(settings, *(product(f"item-{n}", title="A long title " * 70) for n in range(100)))
    async with open_shop(settings) as shop:
        asker = socket.create_connection(("127.0.0.1", shop.port))
        asker.sendall(150 * b"GET /v1/recommendations?k=100 HTTP/1.1\r\nHost: x\r\n\r\n")

        async def cut() -> bool:
            return "mmrec_storefront_slow_readers_total 1.0" in (await shop.get("/metrics")).body.decode()

        async with asyncio.timeout(30):
            while not await cut():
                await asyncio.sleep(0.05)
        asker.close()


@pytest.mark.usefixtures("topics")
async def test_a_storm_of_readers_who_come_and_go_leaves_nothing_behind(settings: Settings) -> None:
    publish(settings, product("a"), recommended("alice", ["a"]))
    async with open_shop(settings, storefront_address_rate=1_000, storefront_rate=1_000) as shop:
        asked = f"GET /v1/stream?token={token(sub='alice')}&last_event_id=%s HTTP/1.1\r\nHost: x\r\n\r\n"
        lasts = ["l-1", "", "x" * 7_000, "%0Aevent:%20other%0A%0A", "%00", "%FF%FE", "%F0%9F%92%A9"]

        async def come_and_go(number: int) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", shop.port)
            writer.write((asked % lasts[number % len(lasts)]).encode())
            head = await reader.readline() if number % 3 else b""
            writer.transport.abort()
            return head

        for _ in range(3):
            heads = await asyncio.gather(*(come_and_go(number) for number in range(60)))
            assert {head[9:12] for head in heads} <= {b"200", b"429", b""}
        await until("they are gone", lambda: len(shop.gateway.hub) == 0)
        async with shop.stream(bearer("alice"), last_event_id="x" * 7_000) as reader:
            assert (await reader.event("recommendations"))["list_id"] == "l-1"


async def test_a_connection_beyond_the_bound_is_closed_at_once() -> None:
    async def hello(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    def fail() -> None:
        raise AssertionError("nobody was slow")

    server = web.Server(hello)
    listening = await asyncio.get_running_loop().create_server(factory(server, Bounds(2, None, fail)), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    first = await asyncio.open_connection("127.0.0.1", port)
    second = await asyncio.open_connection("127.0.0.1", port)
    await until("both are open", lambda: len(server.connections) == 2)
    third, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionResetError):
        assert await third.read() == b""
    second[1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await second[0].readline()).startswith(b"HTTP/1.1 200")
    for each in (first[1], second[1], writer):
        each.close()
    listening.close()
    await server.shutdown(1)


async def test_an_address_may_open_as_many_connections_as_its_browsers_need_and_no_more() -> None:
    cut: list[int] = []

    async def hello(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    server = web.Server(hello)
    bounds = Bounds(100, 2, lambda: cut.append(1))
    listening = await asyncio.get_running_loop().create_server(factory(server, bounds), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def ask(local: str) -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(local, 0))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return await reader.readline(), writer
        except ConnectionError:
            return b"", writer

    mine = [await ask("127.0.0.1") for _ in range(3)]
    assert [bool(line) for line, _ in mine] == [True, True, False]
    other = await ask("127.0.0.2")
    assert other[0]
    mine[0][1].close()
    await until("one is gone", lambda: len(server.connections) == 2)
    assert (await ask("127.0.0.1"))[0]
    assert not cut
    listening.close()
    await server.shutdown(1)


class TestTheCommand:
    def test_a_new_key_is_one_to_use(self, settings: Settings, mmrec: Callable[..., Outcome]) -> None:
        outcome = mmrec(settings, "storefront", "--new-key")
        assert outcome.exit_code == 0
        assert json.loads(outcome.stdout)["keys"][0]["kty"] == "oct"

    def test_without_keys_it_says_what_to_do(self, settings: Settings, mmrec: Callable[..., Outcome]) -> None:
        outcome = mmrec(settings, "storefront")
        assert outcome.exit_code == 1
        assert "--new-key" in outcome.stderr
        assert "--dev" in outcome.stderr

    def test_the_development_mode_is_for_this_machine_alone(
        self, settings: Settings, mmrec: Callable[..., Outcome]
    ) -> None:
        outcome = mmrec(settings, "storefront", "--dev", "--host", "0.0.0.0")  # noqa: S104 - refused
        assert outcome.exit_code == 1
        assert "loopback alone" in outcome.stderr

    def test_a_port_that_is_taken_is_said(self, settings: Settings, mmrec: Callable[..., Outcome]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            outcome = mmrec(settings, "storefront", "--dev", "--port", str(taken.getsockname()[1]))
        assert outcome.exit_code == 1
        assert "cannot listen" in outcome.stderr

    @pytest.mark.usefixtures("topics")
    def test_it_serves_and_ends_when_told_to(self, settings: Settings, tmp_path: Path) -> None:
        publish(settings, product("a"))
        log = tmp_path / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mmrec_stream", "storefront", "--dev", "--port", "0"],
                env={**os.environ, **environment(settings)},
                stderr=file,
            )
        try:
            found = wait_for("its address", lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()))
            wait_for("ready", lambda: "ready: 1 products" in log.read_text())
            with urllib.request.urlopen(f"{found[0]}/v1/recommendations", timeout=10) as answer:  # noqa: S310
                assert [item["item_id"] for item in json.load(answer)["items"]] == ["a"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in log.read_text()
