"""What the widget costs a page, by Lighthouse: the same page of a shop without it and with one live row of twelve.

Lighthouse comes through npx, which fetches it once; Chromium is the one that is installed. The page and the gateway
have different origins, as in production.
"""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
import typer

from benchmarks.kafka import Cluster, running_broker
from benchmarks.processes import mmrec, running
from benchmarks.results import Report, Target, console
from benchmarks.storefront import list_of
from benchmarks.workload import create_topics, worker_env
from mmrec_stream.brokers.base import free_port
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.recommendations import encode_list
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings, load_settings
from mmrec_stream.simulator import make_shop
from mmrec_stream.simulator.pictures import SHOP_SIDE
from mmrec_stream.topics import Topics

PREFIX, APP = "lighthouse.", "lighthouse"

LIGHTHOUSE = "lighthouse@12.8.2"
"""The last one that runs on Node 20, which Debian and the long-term releases have."""

MOST_LOST = 10.0
"""Points of the performance score that the widget may cost."""

ITEMS = 36
"""Products: twelve in the page's own grid, and others in the row."""

ROW = """<script src="{gateway}/widget/mmrec-recommendations.js" defer></script>
<style>
mmrec-recommendations:not(:defined) {{
  display: block; min-height: calc(4rem + 8px + 5.3em + var(--mmrec-card-width, 11.5rem));
}}
</style>
<mmrec-recommendations gateway="{gateway}" user="alice" url="/products/{{id}}" why></mmrec-recommendations>"""
"""The tag as docs/widget.md has it, with the place that it says to reserve."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="A shop.">
<title>A shop</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem; }}
main ul {{ list-style: none; padding: 0; display: grid; gap: 1rem; }}
main ul {{ grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }}
main img {{ width: 100%; height: auto; aspect-ratio: 1; }}
</style>
</head>
<body>
<header><h1>A shop</h1><p>Shoes, bags and coats for every day.</p></header>
{row}
<main><h2>Our range</h2><ul>{cards}</ul></main>
</body>
</html>"""

CARD = '<li><img src="{gateway}/v1/items/{id}/image" width="288" height="288" alt="" loading="lazy"><p>{title}</p></li>'

AUDITS = {
    "first contentful paint": ("first-contentful-paint", "ms"),
    "largest contentful paint": ("largest-contentful-paint", "ms"),
    "total blocking time": ("total-blocking-time", "ms"),
    "cumulative layout shift": ("cumulative-layout-shift", "CLS"),
}
"""What the score is made of, by Lighthouse's names."""


def command(
    quick: Annotated[bool, typer.Option(help="One look at each page.")] = False,
    runs: Annotated[int, typer.Option(help="Looks at each page; the median counts, as Lighthouse advises.")] = 5,
) -> None:
    """Lighthouse's score of a page without the widget and with it: points lost, and what they are made of."""
    npx, chromium = _needed("npx", "Node.js"), _needed("chromium", "Chromium")
    runs = 1 if quick else runs
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        report = Report("lighthouse", quick=quick, lighthouse=LIGHTHOUSE, runs=runs)
        create_topics(Cluster(broker.bootstrap), prefix=PREFIX, app_id=APP)
        settings = load_settings(bootstrap=broker.bootstrap, prefix=PREFIX, app_id=APP)
        shop = list(make_shop(ITEMS, side=SHOP_SIDE))
        _publish(settings, shop)
        port = free_port()
        with _pages(f"http://127.0.0.1:{port}", shop) as site:
            env = worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder)
            with running(mmrec("storefront", "--dev", "--port", str(port)), env=env) as gateway:
                gateway.logged("ready:", timeout=60)
                found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
                for number in range(runs):
                    for name, looks in found.items():
                        with console.status(f"{name} the widget, {number + 1} of {runs}"):
                            looks.append(_look(npx, chromium, f"{site}/{name}", Path(folder)))
        _record(report, found)
        report.close()


def _needed(program: str, name: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise UserError(f"Lighthouse needs {name}: there is no `{program}` on this machine's path")
    return path


def _publish(settings: Settings, shop: list[CatalogueItem]) -> None:
    topics = Topics.of(settings)
    made = list_of("alice", [item.item_id for item in shop[12:]], 0)
    with BatchProducer(settings) as producer:
        for item in shop:
            producer.send(topics.catalogue, encode_item(item), key=item.item_id.encode())
        producer.send(topics.recommendations, encode_list(made), key=b"alice")


@contextmanager
def _pages(gateway: str, shop: list[CatalogueItem]) -> Iterator[str]:
    """The shop's own server, with the pages `/without` and `/with`; its origin."""
    cards = "".join(CARD.format(gateway=gateway, id=item.item_id, title=item.title) for item in shop[:12])
    rows = {"/without": "", "/with": ROW.format(gateway=gateway)}
    pages = {path: PAGE.format(row=row, cards=cards).encode() for path, row in rows.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path, b"")
            self.send_response(HTTPStatus.OK if body else HTTPStatus.NOT_FOUND)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _look(npx: str, chromium: str, url: str, folder: Path) -> dict[str, Any]:
    """Lighthouse's report on a page: an emulated phone on a slow network, its default."""
    path = folder / "lighthouse.json"
    path.unlink(missing_ok=True)
    flags = ["--only-categories=performance,accessibility", "--output=json", f"--output-path={path}", "--quiet"]
    # As root, which containers are, Chromium refuses its sandbox; the page is our own.
    done = subprocess.run(
        [npx, "--yes", LIGHTHOUSE, url, *flags, "--chrome-flags=--headless=new --no-sandbox"],
        env={**os.environ, "CHROME_PATH": chromium},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode or not path.exists():
        raise UserError(
            f"Lighthouse could not be had or did not end well: {(done.stderr or done.stdout).strip()[-500:]}"
        )
    seen: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    if trouble := seen.get("runtimeError"):
        raise UserError(f"Lighthouse could not read {url}: {trouble['message']}")
    return seen


def _record(report: Report, found: dict[str, list[dict[str, Any]]]) -> None:
    points = {
        name: [100 * look["categories"]["performance"]["score"] for look in looks] for name, looks in found.items()
    }
    for name, looks in found.items():
        page = f"{name} the widget"
        report.add("performance score", page, points[name], "points")
        for case, (audit, unit) in AUDITS.items():
            values = [look["audits"][audit]["numericValue"] for look in looks]
            target = Target(0.0, at_least=False) if (unit, name) == ("CLS", "with") else None
            report.add(case, page, values, unit, target=target)
        accessible = [100 * look["categories"]["accessibility"]["score"] for look in looks]
        report.add("accessibility score", page, accessible, "points")
    lost = median(points["without"]) - median(points["with"])
    report.add("points lost", "mmrec", lost, "points", target=Target(MOST_LOST, at_least=False))
