"""`mmrec demo`: everything on this machine, from an empty broker to live lists."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmrec_stream.errors import UserError

if TYPE_CHECKING:
    import subprocess

    from rich.console import Console

    from mmrec_stream.contracts.recommendations import RecommendationList
    from mmrec_stream.settings import Settings

ONCE_S = 20.0
"""How long `--once` streams: a thousand events at the default rate, enough for a p99."""

TRAIN_MINUTES = 0.5
"""Most minutes of passes over the data, so that the first lists come within a minute or two. More passes gain a few
percent of NDCG, which nobody sees in a demo."""

SHOW_EVERY_S = 1.0
"""A list a second can be read; there are tens."""

START_TIMEOUT_S = 120.0
"""A worker starts in 2 s. The first one on a machine compiles the fold, and may share the cores with others."""

STOP_TIMEOUT_S = 20.0


def demo(
    once: Annotated[bool, typer.Option("--once", help="Stream for 20 s, print a summary, exit.")] = False,
    users: Annotated[int, typer.Option(min=10, help="Shoppers.")] = 2000,
    items: Annotated[int, typer.Option(min=50, help="Products.")] = 2000,
    days: Annotated[float, typer.Option(min=1, help="Days of past behaviour to train on.")] = 14.0,
    rate: Annotated[float, typer.Option(min=1, help="Live events a second.")] = 50.0,
    data: Annotated[Path | None, typer.Option(help="Folder to keep everything in; default: a temporary one.")] = None,
) -> None:
    """Run everything on this machine: broker, first model, worker, a shop to walk through, live shoppers and lists.

    Needs neither Docker nor Java (with KAFKA_HOME set and Java there, it runs on Apache Kafka). Ctrl-C ends it;
    whatever it started, it stops.

    Example: `mmrec demo --rate 200`
    """
    import tempfile

    from rich.console import Console

    from mmrec_stream.brokers import choose_broker, free_port
    from mmrec_stream.kafka.plan import ensure_topics
    from mmrec_stream.settings import load_settings

    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmrec-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        console.rule("1  a broker")
        broker = stack.enter_context(choose_broker(data=folder / "broker"))
        ports = {"web_port": free_port(), "storefront_port": free_port()}
        settings = load_settings(bootstrap=broker.bootstrap, data_dir=folder.absolute(), **ports)
        console.print(f"{broker.name} at {broker.bootstrap}")
        console.rule(f"2  a shop: {items:,} products, {users:,} shoppers, {days:g} days of behaviour")
        shop = ["--users", str(users), "--items", str(items)]
        created = ensure_topics(settings)
        console.print(f"created {len(created)} topics: {', '.join(created)}")
        _run(settings, "simulate", *shop, "--days-before", f"{days:g}", "--rate", "0")
        console.rule("3  a first model")
        _run(settings, "train", "--from", "kafka", "--minutes", f"{TRAIN_MINUTES:g}")
        console.rule("4  a worker")
        worker = stack.enter_context(_background(settings, folder / "worker.log", "worker"))
        status = _await_ready(settings, worker, folder / "worker.log")
        console.print(
            f"serving release {status['release']} on http://127.0.0.1:{settings.web_port} (/health, /metrics); "
            f"its log: {folder / 'worker.log'}"
        )
        console.rule("5  a shop to walk through")
        serve = ("storefront", "--dev", "--port", str(settings.storefront_port))
        pages = stack.enter_context(_background(settings, folder / "storefront.log", *serve))
        shop_url = _await_shop(settings, pages, folder / "storefront.log")
        console.print(f"open [bold]{shop_url}[/bold]: what it shows changes with every click")
        if not once and sys.stdout.isatty():
            import webbrowser

            webbrowser.open(shop_url)
        console.rule(f"6  live: {rate:g} events a second" + ("" if once else ", Ctrl-C ends it"))
        live = [*shop, "--days-before", "0", "--rate", f"{rate:g}", "--seed", "7"]
        stack.enter_context(_background(settings, folder / "shoppers.log", "simulate", *live))
        latencies: list[float] = []
        began = monotonic()
        try:
            _show_lists(settings, console, latencies, ONCE_S if once else None, worker)
        except KeyboardInterrupt:
            console.print()
        _summarise(settings, latencies, monotonic() - began, broker.name)
        if once:
            console.print(_visit(settings))


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mmrec_stream", *arguments]


def _environment(settings: "Settings") -> dict[str, str]:
    import os

    own = {
        "MMREC_BOOTSTRAP": settings.bootstrap,
        "MMREC_DATA_DIR": str(settings.data_dir),
        "MMREC_WEB_PORT": str(settings.web_port),
        "MMREC_STOREFRONT_PORT": str(settings.storefront_port),
    }
    return os.environ | own


def _run(settings: "Settings", *arguments: str) -> None:
    """A step in the foreground, with its own progress display."""
    import subprocess

    from mmrec_stream.processes import die_with_parent

    done = subprocess.run(_command(*arguments), env=_environment(settings), preexec_fn=die_with_parent, check=False)
    if done.returncode:
        raise UserError(f"`mmrec {arguments[0]}` ended with status {done.returncode}; what it printed is above")


@contextmanager
def _background(settings: "Settings", log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A step in the background, out of reach of the terminal's Ctrl-C; stopped at the end."""
    import subprocess

    from mmrec_stream.processes import die_with_parent

    with log.open("wb") as file:
        process = subprocess.Popen(
            _command(*arguments),
            env=_environment(settings),
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(settings: "Settings", worker: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    from time import sleep

    deadline = monotonic() + START_TIMEOUT_S
    while worker.poll() is None and monotonic() < deadline:
        status = _status(settings)
        if status.get("ready"):
            return status
        sleep(0.1)
    raise UserError(f"the worker did not start: {''.join(log.read_text().splitlines(keepends=True)[-5:])}")


def _status(settings: "Settings") -> dict[str, Any]:
    """The worker's health page; empty while it does not answer."""
    import json
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{settings.web_port}/ready", timeout=2) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except OSError:
        return {}


def _await_shop(settings: "Settings", pages: "subprocess.Popen[bytes]", log: Path) -> str:
    """The address of the demo shop, once the gateway serves it."""
    from time import sleep

    deadline = monotonic() + START_TIMEOUT_S
    while pages.poll() is None and monotonic() < deadline:
        if _get(settings.storefront_port, "/readyz") is not None:
            return f"http://127.0.0.1:{settings.storefront_port}/shop/"
        sleep(0.1)
    raise UserError(f"the storefront did not start: {''.join(log.read_text().splitlines(keepends=True)[-5:])}")


def _get(port: int, path: str) -> bytes | None:
    """What a page on this machine says; None while it does not answer, or not well."""
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return None


def _visit(settings: "Settings") -> str:
    """See that the shop is there, and that it shows a shopper the list that a worker has made for him.

    Raises:
        UserError: it does not.
    """
    import json
    from itertools import islice

    from mmrec_stream.kafka.reader import read
    from mmrec_stream.topics import Topics

    if _get(settings.storefront_port, "/shop/") is None:
        raise UserError("the shop does not answer")
    lists = islice(read(settings, Topics.of(settings).recommendations), 50)
    users = {(message.key() or b"").decode() for message in lists}
    for user in sorted(users):
        shown = _get(settings.storefront_port, f"/v1/recommendations?user={user}")
        if shown is not None and (answer := json.loads(shown)).get("personalised") and answer["items"]:
            return f"the shop shows {user} {len(answer['items'])} products of list {answer['list_id'][:8]}…"
    raise UserError(f"the shop shows none of {len(users)} shoppers a list of their own")


def _show_lists(
    settings: "Settings",
    console: "Console",
    latencies: list[float],
    seconds: float | None,
    worker: "subprocess.Popen[bytes]",
) -> None:
    """Print a list a second; note the latency of the lists for live events, ms."""
    from mmrec_stream.cli.tail import list_text
    from mmrec_stream.contracts.recommendations import decode_list
    from mmrec_stream.kafka.reader import follow, spans
    from mmrec_stream.operations.names import load_names
    from mmrec_stream.topics import Topics

    topics = Topics.of(settings)
    names, read = load_names(settings)
    found = {topics.recommendations: spans(settings, topics.recommendations), topics.catalogue: read}
    starts = {topic: {partition: span.high for partition, span in each.items()} for topic, each in found.items()}
    # Lists for the past log tell how long ago that was published.
    began_ms = time() * 1000
    end = monotonic() + seconds if seconds is not None else None
    shown = 0.0
    for messages in follow(settings, starts):
        lists: list[RecommendationList] = []
        for message in messages:
            if message.topic() == topics.catalogue:
                names.learn([message])
            else:
                lists.append(decode_list(message.value() or b""))
        latencies.extend(one.times.published - one.times.appended for one in lists if one.times.appended > began_ms)
        if lists and monotonic() - shown > SHOW_EVERY_S:
            console.print(list_text(lists[-1], names, 3), markup=False)
            shown = monotonic()
        if worker.poll() is not None:
            raise UserError(f"the worker ended: its log is in {settings.data_dir / 'worker.log'}")
        if end is not None and monotonic() > end:
            return


def _summarise(settings: "Settings", latencies: Sequence[float], seconds: float, broker: str) -> None:
    """What went in, what came out, how long it took."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    counts = _metrics(settings)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("broker", broker)
    table.add_row("model", counts.get("release", "none"))
    table.add_row("provider", counts.get("provider", "none"))
    table.add_row("events in", f"{int(float(counts.get('events', 0))):,} (live: {seconds:.0f} s)")
    table.add_row("events folded", f"{int(float(counts.get('folds', 0))):,}")
    table.add_row("dead letters", f"{int(float(counts.get('dead_letters', 0))):,}")
    table.add_row("lists out", f"{int(float(counts.get('lists', 0))):,}, {len(latencies):,} of them live")
    if latencies:
        p50, p99 = np.percentile(np.array(latencies), [50, 99])
        table.add_row("latency, event in Kafka to list published", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    Console().print(table)
    if not latencies:
        raise UserError("no list came out; the worker's log says why")


def _metrics(settings: "Settings") -> dict[str, str]:
    """The worker's counters, summed over their labels, and what serves."""
    from urllib.request import urlopen

    from prometheus_client.parser import text_string_to_metric_families

    with urlopen(f"http://127.0.0.1:{settings.web_port}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: dict[str, str] = {}
    for family in families:
        totals = [sample.value for sample in family.samples if sample.name.endswith("_total")]
        if totals:
            found[family.name.removeprefix("mmrec_")] = str(sum(totals))
        for sample in family.samples:
            if sample.name == "mmrec_release_info":
                found |= {"release": sample.labels["version"], "provider": sample.labels["provider"].upper()}
    return found
