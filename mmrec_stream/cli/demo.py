"""`mmrec demo`: everything on this machine, from an empty broker to a shop with live lists."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.errors import UserError

if TYPE_CHECKING:
    import asyncio
    import threading

    from rich.console import Console

    from mmrec_stream.contracts.recommendations import RecommendationList
    from mmrec_stream.demo.supervisor import Supervisor
    from mmrec_stream.settings import Settings
    from mmrec_stream.storefront.gateway import Gateway

ONCE_S = 20.0
"""How long `--once` streams: a thousand events at the default rate, enough for a p99."""

SHOW_EVERY_S = 1.0
"""A list a second can be read; there are tens."""

OPEN_TIMEOUT_S = 120.0
"""How long the shop may take to have goods: drawing the pictures takes 5 s on an idle core."""

PICTURE_SIDE = 192
"""Pixels along an edge of a picture: as wide as a card. 288 take twice as long to draw, before anything is there."""


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Wait for the first model, stream for 20 s, print a summary, exit.")
    ] = False,
    users: Annotated[int, typer.Option(min=10, help="Shoppers.")] = 2000,
    items: Annotated[int, typer.Option(min=50, help="Products.")] = 2000,
    days: Annotated[float, typer.Option(min=1, help="Days of past behaviour to train on.")] = 14.0,
    rate: Annotated[float, typer.Option(min=1, help="Live events a second.")] = 50.0,
    data: Annotated[Path | None, typer.Option(help="Folder to keep everything in; default: a temporary one.")] = None,
) -> None:
    """Run everything on this machine: broker, worker, a shop to walk through, live shoppers and lists, a first model.

    The shop is open after some seconds, with what is popular; a model is trained beside it and takes over within a
    minute or two. Its panel shows what happens, trains again, and kills the worker, if you want to see what is lost.

    Needs neither Docker nor Java (with KAFKA_HOME set and Java there, it runs on Apache Kafka). Ctrl-C ends it;
    whatever it started, it stops.

    Example: `mmrec demo --rate 200`
    """
    import asyncio
    import logging
    import tempfile

    from rich.console import Console

    from mmrec_stream.brokers import choose_broker, free_port
    from mmrec_stream.kafka.plan import ensure_topics
    from mmrec_stream.settings import load_settings

    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mmrec-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(level=logging.INFO, filename=folder / "storefront.log", force=True)
        console.rule("1  a broker")
        broker = stack.enter_context(choose_broker(data=folder / "broker"))
        ports = {"web_port": free_port(), "storefront_port": free_port()}
        settings = load_settings(bootstrap=broker.bootstrap, data_dir=folder.absolute(), **ports)
        console.print(f"{broker.name} at {broker.bootstrap}; logs: {folder}")
        created = ensure_topics(settings)
        console.print(f"created {len(created)} topics: {', '.join(created)}")
        shop = ("--users", str(users), "--items", str(items), "--picture-side", str(PICTURE_SIDE))
        past = f"{days:g}" if not _has_events(settings) else "0"
        console.rule(f"2  a shop: {items:,} products, {users:,} shoppers, {past} days of behaviour, a worker")
        simulate = ("simulate", *shop, "--days-before", past, "--rate", f"{rate:g}", "--seed", "7")
        asyncio.run(_run(settings, folder, console, broker.name, simulate, once=once))


async def _run(
    settings: "Settings", folder: Path, console: "Console", broker: str, simulate: Sequence[str], *, once: bool
) -> None:
    """Run everything but the broker, until Ctrl-C or, `once`, until a model has served for a while."""
    import asyncio
    import signal
    import threading

    from mmrec_stream.demo.supervisor import Supervisor
    from mmrec_stream.demo.visit import visit
    from mmrec_stream.storefront.serving import serving

    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    began_ms = int(time() * 1000)
    supervisor = Supervisor(settings, folder)
    async with serving(settings, dev=True, controls=supervisor) as (gateway, port), supervisor.running() as worker:
        await supervisor.run("shoppers", *simulate)
        waiting = asyncio.create_task(ended.wait())

        async def unless_ended(work: "asyncio.Task[bool] | asyncio.Task[None]") -> bool:
            """Wait for `work`; whether it was done before the end was asked for. A worker that fails, fails us."""
            await asyncio.wait({work, waiting, worker}, return_when=asyncio.FIRST_COMPLETED)
            if worker.done():
                worker.result()
            if work.done():
                work.result()
                return True
            work.cancel()
            return False

        if not await unless_ended(asyncio.create_task(_await_goods(gateway, folder))):
            return
        url = f"http://127.0.0.1:{port}/shop/"
        console.rule("3  open")
        console.print(f"[bold]{url}[/bold]  changes what it shows with every click")
        console.print("a first model is trained beside it; until it takes over, lists are what is popular")
        if not once and sys.stdout.isatty():
            import webbrowser

            await asyncio.to_thread(webbrowser.open, f"{url}?panel")
        training = asyncio.create_task(_train(gateway, supervisor, began_ms))
        if once and not await unless_ended(training):
            return
        if once and not training.result():
            raise UserError(f"no release came into service: {supervisor.status()['happenings'][-1]['text']}")
        console.rule("4  live" + ("" if once else ", Ctrl-C ends it"))
        latencies: list[float] = []
        began, over = monotonic(), threading.Event()
        showing = asyncio.create_task(asyncio.to_thread(_show_lists, settings, console, latencies, over))
        span = asyncio.create_task(asyncio.sleep(ONCE_S) if once else ended.wait())
        try:
            await unless_ended(span)  # type: ignore[arg-type]
        finally:
            over.set()
            await showing
        await asyncio.sleep(0)
        if not once:
            training.cancel()
        _summarise(supervisor.figures, latencies, monotonic() - began, broker)
        if once:
            console.print(await asyncio.to_thread(visit, settings))


def _has_events(settings: "Settings") -> bool:
    """Whether a demo of before has left its log in the broker's folder."""
    from mmrec_stream.kafka.reader import spans
    from mmrec_stream.topics import Topics

    return any(not span.empty for span in spans(settings, Topics.of(settings).clicks).values())


async def _await_goods(gateway: "Gateway", folder: Path) -> None:
    """Wait until the shop has something to show.

    Raises:
        UserError: it does not get anything.
    """
    from asyncio import sleep

    from mmrec_stream.demo.children import last_lines

    deadline = monotonic() + OPEN_TIMEOUT_S
    while not (gateway.ready and len(gateway.shelf)):
        if monotonic() > deadline:
            raise UserError(f"the shop has no goods: {last_lines(folder / 'shoppers.log')}")
        await sleep(0.05)


async def _train(gateway: "Gateway", supervisor: "Supervisor", began_ms: int) -> bool:
    """Train once the log has come to the present; whether a release serves."""
    from asyncio import sleep

    while gateway.desk.newest_ms < began_ms:
        await sleep(0.2)
    await supervisor.ready.wait()
    return await supervisor.train()


def _show_lists(
    settings: "Settings",
    console: "Console",
    latencies: list[float],
    over: "threading.Event",
) -> None:
    """Print a list a second until it is over; note the latency of the lists for live events, ms."""
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
            console.print(list_text(lists[-1], names, 3), markup=False, soft_wrap=True)
            shown = monotonic()
        if over.is_set():
            return


def _summarise(counts: Mapping[str, str], latencies: Sequence[float], seconds: float, broker: str) -> None:
    """What went in, what came out, how long it took."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

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
