"""The demo's worker is killed from the shop's page, and nothing is lost."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mmrec_stream.brokers import free_port
from mmrec_stream.contracts.behaviour import Click
from mmrec_stream.demo.supervisor import Supervisor
from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.serving import serving
from tests.storefront.shop import NOW, product, publish


@asynccontextmanager
async def demo(settings: Settings, folder: Path) -> AsyncIterator[tuple[Supervisor, Any]]:
    """A supervised worker and its shop, and a question to the shop."""
    logging.getLogger("mmrec_stream").setLevel(logging.ERROR)
    settings = settings.model_copy(update={"web_port": free_port(), "storefront_port": 0, "group_protocol": "auto"})
    supervisor = Supervisor(settings, folder)
    async with (
        serving(settings, dev=True, controls=supervisor) as (_, port),
        supervisor.running() as worker,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):

        async def ask(method: str, path: str) -> tuple[int, Any]:
            assert not worker.done(), worker.result()
            async with session.request(method, path) as response:
                return response.status, await response.json()

        yield supervisor, ask


@pytest.mark.slow
@pytest.mark.usefixtures("topics")
async def test_a_worker_that_is_killed_comes_back_and_nothing_is_lost(settings: Settings, tmp_path: Path) -> None:
    publish(settings, product("a"), *(Click(user_id=f"u-{n % 50}", item_id="a", ts=NOW + n) for n in range(500)))
    async with asyncio.timeout(150), demo(settings, tmp_path) as (supervisor, ask):
        await supervisor.ready.wait()
        assert [action["id"] for action in (await ask("GET", "/v1/shop"))[1]["actions"]] == ["train", "kill"]
        assert (await ask("POST", "/v1/demo/kill"))[0] == 202
        assert (await ask("POST", "/v1/demo/kill"))[0] == 409  # There is none at the moment.
        assert (await ask("POST", "/v1/demo/reboot"))[0] == 404
        publish(settings, *(Click(user_id=f"u-{n % 50}", item_id="a", ts=NOW + n) for n in range(500, 700)))
        texts: list[str] = []
        while not any(text.startswith("Audit") for text in texts):
            await asyncio.sleep(0.1)
            panel = (await ask("GET", "/v1/panel?user=u-1"))[1]
            texts = [one["text"] for one in panel["happenings"]]
        assert "SIGKILL" in texts[0]
        assert "has taken over" in texts[1]
        assert ", 0 lost, none counted twice." in texts[2]
        assert panel["workers"] == 1
        while (await ask("GET", "/v1/panel"))[1]["lag"] != {"events": 0}:
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("topics")
async def test_a_worker_that_cannot_start_is_no_endless_loop(settings: Settings, tmp_path: Path) -> None:
    broken = settings.model_copy(update={"web_port": free_port(), "retrieval": "nonsense"})
    supervisor = Supervisor(broken, tmp_path)
    async with asyncio.timeout(100), supervisor.running() as worker:
        with pytest.raises(UserError, match="MMREC_RETRIEVAL"):
            await worker


@pytest.mark.usefixtures("topics")
async def test_a_gateway_that_nobody_supervises_has_no_controls(settings: Settings) -> None:
    dev = settings.model_copy(update={"storefront_port": 0})
    async with serving(dev, dev=True) as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/v1/shop") as response:
            assert (await response.json())["actions"] == []
        async with session.post("/v1/demo/kill") as response:
            assert response.status == 404
