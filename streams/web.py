"""A worker's own pages: whether it lives, whether it works, and its metrics. Loopback unless told otherwise."""

import logging

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from streams.worker import Worker

log = logging.getLogger(__name__)


class WorkerWeb:
    """Serves `/health` (200 while work goes on), `/ready` (200 once partitions are served), `/metrics` (Prometheus)."""

    def __init__(self, app: Worker) -> None:
        self._app = app
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        site_app = web.Application()
        site_app.router.add_get("/health", self._health)
        site_app.router.add_get("/ready", self._ready)
        site_app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(site_app, access_log=None)
        await self._runner.setup()
        settings = self._app.settings
        site = web.TCPSite(self._runner, settings.web_host, settings.web_port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        log.info("health and metrics on http://%s:%d", settings.web_host, self.port)

    async def stop(self) -> None:
        """Close."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        status = self._app.status()
        return web.json_response(status, status=200 if status["well"] else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        status = self._app.status()
        return web.json_response(status, status=200 if status["ready"] else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        self._app.observe()
        return web.Response(
            body=generate_latest(self._app.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )
