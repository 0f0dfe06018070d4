"""The gateway with thousands of open pages: lists to pages, and from a page's event to its list, beside a worker."""

import http.client
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import psutil
import typer

from benchmarks.events import CATEGORIES, item_id, user_ids
from benchmarks.kafka import Cluster, running_broker
from benchmarks.peers.pages import Arrival
from benchmarks.processes import mmrec, peer, running
from benchmarks.release import write_synthetic_release
from benchmarks.results import Report, Target, console
from benchmarks.serving import announce
from benchmarks.workload import create_topics, worker_env
from mmrec_stream.brokers.base import free_port
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Recommended, Times, encode_list
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings, load_settings
from mmrec_stream.topics import Topics

PREFIX, APP = "front.", "storefront"

ITEMS = 10_000
SHOWN = 20
"""Items of a list; a page shows twelve of them."""

ROUNDS = 3

EVENTS_A_SECOND = 50
"""Clicks while the way from event to list is timed: what the workers' rate costs is the latency case's matter."""

BROWSER_EVENTS = 100
"""Events of the page in Chromium, each sent when the one before has its list on the screen."""

TIMED = """async (items) => {
  const row = document.querySelector("mmrec-recommendations:not([personalised=false])");
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const taken = [];
  for (const item_id of items) {
    const began = Date.now();
    const came = new Promise((done) => row.addEventListener("mmrec:list", function look({ detail }) {
      if (!(detail.list.times?.event >= began)) return;
      row.removeEventListener("mmrec:list", look);
      done({ ...detail.list.times, painted: detail.painted });
    }));
    row.track({ type: "view", item_id });
    taken.push(await Promise.race([came, pause(5_000).then(() => null)]));
    // Cards glide for 350 ms; nobody clicks faster. And at no fixed place between two frames.
    await pause(400 + 200 * Math.random());
  }
  return taken;
}"""
"""The page reports a view, and waits until the widget says that the list made of it is painted: when it passed each
step, ms since 1970."""

STEPS = ("event", "appended", "fetched", "folded", "scored", "published", "received", "sent", "painted")

UNHURRIED = {"storefront_rate": "100000", "storefront_address_rate": "1000000"}
"""All pages of the benchmark have one address."""


def command(
    quick: Annotated[bool, typer.Option(help="A fifth of the pages and of the time, for a look.")] = False,
    streams: Annotated[int, typer.Option(help="Pages with an open event stream.")] = 5_000,
    rate: Annotated[int, typer.Option(help="Lists a second.")] = 2_000,
) -> None:
    """Open event streams, lists a second to them, and the way from a page's event to its list; beside a worker."""
    streams, seconds = (streams // 5, 3.0) if quick else (streams, 15.0)
    with running_broker() as broker, tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        report = Report("storefront", quick=quick, broker=broker.name, streams=streams, items=ITEMS)
        create_topics(Cluster(broker.bootstrap), prefix=PREFIX, app_id=APP)
        settings = load_settings(bootstrap=broker.bootstrap, prefix=PREFIX, app_id=APP)
        with console.status("exporting a release, publishing a catalogue"):
            announce(broker, PREFIX, write_synthetic_release(Path(folder) / "releases", ITEMS))
            _publish_catalogue(settings)
        more = UNHURRIED | {"storefront_streams_per_address": str(streams + 10)}
        env = worker_env(broker, prefix=PREFIX, app_id=APP, data_dir=folder, **more)
        port, arrivals = free_port(), Path(folder) / "arrivals.json"
        serve = mmrec("storefront", "--dev", "--port", str(port))
        with running(mmrec("worker"), env=env) as worker, running(serve, env=env) as gateway:
            worker.logged("ready: partitions", timeout=60)
            gateway.logged("ready:", timeout=60)
            process = psutil.Process(gateway.process.pid)
            before = process.memory_info().rss
            with running(peer("pages", port, streams, arrivals)) as pages:
                pages.milestone("open", timeout=120)
                each = (process.memory_info().rss - before) / streams / 1024
                report.add("memory an open stream", "mmrec", each, "KiB", streams=streams)
                pushed = [_push(settings, process, streams, rate, seconds, number) for number in range(ROUNDS)]
                clicked = _click(port, streams, seconds * 2)
                painted = _in_browser(port, BROWSER_EVENTS // 5 if quick else BROWSER_EVENTS)
            came = msgspec.json.decode(arrivals.read_bytes(), type=list[Arrival])
        _record(report, rate, pushed, clicked, came)
        _record_browser(report, painted)
        report.close()


def _publish_catalogue(settings: Settings) -> None:
    topic = Topics.of(settings).catalogue
    with BatchProducer(settings) as producer:
        for row in range(ITEMS):
            item = CatalogueItem(
                item_id=item_id(row),
                title=f"Ember suede ankle boots, number {row}",
                description="Made for the road, and for whatever comes after it. " * 4,
                category=CATEGORIES[row % len(CATEGORIES)],
                brand=f"brand{row % 200:03d}",
                price=5.9 + row % 400,
                stock=7,
            )
            producer.send(topic, encode_item(item), key=item.item_id.encode())


class Pushed(msgspec.Struct):
    """A round of lists."""

    sent: int
    seconds: float
    cores: float
    """Processor time of the gateway a second."""


def _push(settings: Settings, process: psutil.Process, streams: int, rate: int, seconds: float, number: int) -> Pushed:
    """Publish lists of random users at a rate; their ids say the round and when they were published."""
    topic, random = Topics.of(settings).recommendations, np.random.default_rng(number)
    users = user_ids(streams)
    count = int(rate * seconds)
    chosen = random.integers(0, streams, count).tolist()
    items = [item_id(row) for row in random.integers(0, ITEMS, 4_000).tolist()]
    used = _cpu(process)
    began = time.perf_counter()
    with BatchProducer(settings, linger_ms=1) as producer:
        for place, user in enumerate(chosen):
            while (ahead := began + place / rate - time.perf_counter()) > 0:
                producer.poll(min(ahead, 0.001))
            start = place * 7 % (len(items) - SHOWN)
            value = encode_list(list_of(users[user], items[start : start + SHOWN], number))
            producer.send(topic, value, key=users[user].encode())
    took = time.perf_counter() - began
    cores = (_cpu(process) - used) / took
    time.sleep(2)  # what is under way comes in
    return Pushed(count, took, cores)


def list_of(user: str, items: Sequence[str], number: int) -> RecommendationList:
    now = time.time() * 1000
    return RecommendationList(
        list_id=f"round{number} {now:.3f}",
        user_id=user,
        items=[
            Recommended(item_id=item, score=0.5 / (1 + place), p_user=0.01, p_item=0.02)
            for place, item in enumerate(items)
        ],
        release="bench",
        strategy="hybrid",
        cause=Cause(topic="t", partition=0, offset=0),
        times=Times(event=now, appended=now, fetched=now, folded=now, scored=now, published=now),
        alpha=0.5,
    )


def _click(port: int, streams: int, seconds: float) -> list[tuple[str, float]]:
    """Send clicks through the gateway, each of another user; who and when (ms since 1970)."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    sent: list[tuple[str, float]] = []
    began = time.perf_counter()
    users = user_ids(streams)
    for place in range(min(int(seconds * EVENTS_A_SECOND), streams)):
        while (ahead := began + place / EVENTS_A_SECOND - time.perf_counter()) > 0:
            time.sleep(min(ahead, 0.001))
        event = {"type": "click", "item_id": item_id(place), "id": str(place)}
        sent.append((users[place], time.time() * 1000))
        connection.request(
            "POST", f"/v1/events?user={users[place]}", json.dumps(event), {"Content-Type": "application/json"}
        )
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 202, answer.status
    time.sleep(2)
    connection.close()
    return sent


def _in_browser(port: int, events: int) -> list[dict[str, float] | None]:
    """When each event of a page in Chromium passed each of `STEPS`, ms since 1970; None: no list came."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        console.print("no Chromium: the way to the screen is not measured", style="yellow")
        return []
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, which containers are, Chromium refuses its sandbox; the page is our own.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/shop/")
        page.locator("mmrec-recommendations li a").first.wait_for()
        page.evaluate(TIMED, [item_id(0)])  # The first one finds everything cold.
        painted: list[dict[str, float] | None] = page.evaluate(TIMED, [item_id(row) for row in range(1, events + 1)])
        browser.close()
    return painted


def _record_browser(report: Report, painted: Sequence[dict[str, float] | None]) -> None:
    ways = [way for way in painted if way is not None]
    if not ways:
        return
    there = [way["painted"] - way["event"] for way in ways]
    for q, limit in ((50, 20.0), (95, 50.0), (99, None)):
        report.add(
            f"event to repainted widget in Chromium, p{q}", "mmrec", float(np.percentile(there, q)), "ms",
            target=Target(limit, at_least=False) if limit else None,
            events=len(painted), unanswered=len(painted) - len(there),
        )  # fmt: skip
    for before, step in pairwise(STEPS):
        taken = float(np.median([way[step] - way[before] for way in ways]))
        report.add(f"of that: {before} to {step}, p50", "mmrec", taken, "ms")


def _record(
    report: Report, rate: int, pushed: Sequence[Pushed], clicked: Sequence[tuple[str, float]], came: Sequence[Arrival]
) -> None:
    latencies: defaultdict[str, list[float]] = defaultdict(list)
    own: defaultdict[str, list[float]] = defaultdict(list)
    for user, list_id, at in came:
        name, _, published = list_id.partition(" ")
        if published:
            latencies[name].append(at - float(published))
        else:
            own[user].append(at)
    rounds = [latencies[f"round{number}"] for number in range(len(pushed))]
    received = [len(found) / one.seconds for found, one in zip(rounds, pushed, strict=True)]
    # A page whose lists come faster than it takes them gets the newest: what it lacks was replaced.
    report.add("lists to open pages", "mmrec", received, "lists/s", target=Target(0.98 * rate), offered=rate)
    for q, limit in ((50, 20.0), (95, 50.0), (99, None)):
        values = [float(np.percentile(found, q)) for found in rounds]
        target = Target(limit, at_least=False) if limit else None
        report.add(f"published to page at {rate:,}/s, p{q}", "mmrec", values, "ms", target=target)
    report.add(f"processor at {rate:,}/s", "mmrec", [one.cores for one in pushed], "cores")
    answers = [min((at - sent for at in own[user] if at >= sent), default=np.inf) for user, sent in clicked]
    there = [latency for latency in answers if latency < np.inf]
    for q, limit in ((50, 20.0), (95, 50.0), (99, None)):
        target = Target(limit, at_least=False) if limit else None
        report.add(
            f"event to page, p{q}", "mmrec", float(np.percentile(there, q)), "ms", target=target,
            events=len(clicked), unanswered=len(answers) - len(there),
        )  # fmt: skip


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
