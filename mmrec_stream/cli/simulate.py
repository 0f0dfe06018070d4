"""`mmrec simulate`: a synthetic shop's catalogue, past log and live shoppers, into the topics or into files."""

from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.progress import events_progress
from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from mmrec_stream.replay.publishing import Publisher
    from mmrec_stream.simulator import Shoppers
    from mmrec_stream.simulator.reactions import ListReader

BAR_STEP = 500
"""Events between two looks at the progress bar: a look costs as much as twenty events."""


def simulate(
    users: Annotated[int, typer.Option(min=1, help="Shoppers. A fifth of them comes in as time goes on.")] = 2000,
    items: Annotated[
        int, typer.Option(min=12, help="Products. Some are launched later, some sell out and come back.")
    ] = 2000,
    days_before: Annotated[float, typer.Option(min=0, max=3650, help="Days of past log, up to now.")] = 14.0,
    rate: Annotated[float, typer.Option(min=0, help="Live events a second after that; 0: none.")] = 50.0,
    seconds: Annotated[float | None, typer.Option(min=0, help="Live time; without, until Ctrl-C.")] = None,
    react: Annotated[bool, typer.Option(help="Whether shoppers see and click the lists published for them.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same shop and shoppers.")] = 7,
    picture_side: Annotated[
        int, typer.Option(min=48, max=512, help="Pixels along an edge of a picture: 48 for models, 288 for people.")
    ] = 48,
    out: Annotated[
        Path | None, typer.Option(help="Folder for catalogue.jsonl and events.jsonl, instead of the topics.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Fill the topics with a synthetic shop: catalogue with pictures, a past log, then live shoppers.

    Shoppers have tastes, friends and habits, so there is something to learn: from text, pictures, attributes and
    from what follows what. While live they also see some of the lists that workers publish for them, and click.

    Examples: `mmrec simulate --rate 200` streams until Ctrl-C; `mmrec simulate --days-before 30 --rate 0 --out log`
    writes a month of events to `log/events.jsonl`.
    """
    from mmrec_stream.simulator import Shoppers, make_shop

    if out is not None and rate > 0 and seconds is None:
        raise UserError("live events into files would never end: give --seconds N, or --rate 0 for the past log alone")
    shoppers = Shoppers(make_shop(items, seed, side=picture_side), users, seed)
    with ExitStack() as stack:
        publisher, lists = _open(stack, out, react, bootstrap)
        now = int(time() * 1000)
        try:
            _publish_past(publisher, shoppers, days_before, now)
            if rate > 0 and seconds != 0:
                _publish_live(publisher, shoppers, rate, seconds, now if out else int(time() * 1000), lists, seed)
        except KeyboardInterrupt:
            publisher.finish()
    for place, count in sorted(publisher.sent.items()):
        typer.echo(f"{count:>12,}  {place}")


def _open(
    stack: ExitStack, out: Path | None, react: bool, bootstrap: str | None
) -> "tuple[Publisher, ListReader | None]":
    """Where to publish, and where lists come from; closed with `stack`."""
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.replay.publishing import FilePublisher, TopicPublisher, require_topics
    from mmrec_stream.simulator.reactions import ListReader
    from mmrec_stream.topics import Topics

    if out is not None:
        return stack.enter_context(FilePublisher(out)), None
    settings: Settings = load_settings(bootstrap=bootstrap)
    topics = Topics.of(settings)
    require_topics(settings, topics)
    producer = stack.enter_context(BatchProducer(settings))
    return TopicPublisher(producer, topics), stack.enter_context(ListReader(settings, topics)) if react else None


def _publish_past(publisher: "Publisher", shoppers: "Shoppers", days: float, now: int) -> None:
    """The catalogue of the beginning, then the log with what comes in, sells out and comes back."""
    from mmrec_stream.contracts.catalogue import CatalogueItem
    from mmrec_stream.simulator.shoppers import DAY_MS

    for item in shoppers.first_items:
        publisher.item(item)
    events = 0
    with events_progress() as progress:
        task = progress.add_task(f"past log, {days:g} days", total=days * DAY_MS)
        for each in shoppers.with_catalogue(shoppers.past(days, now)):
            if isinstance(each, CatalogueItem):
                publisher.item(each)
                continue
            publisher.event(each)
            events += 1
            if events % BAR_STEP == 0:
                progress.update(task, completed=each.ts - now + days * DAY_MS, events=events)
        publisher.finish()
        progress.update(task, completed=days * DAY_MS, events=events)


def _publish_live(
    publisher: "Publisher",
    shoppers: "Shoppers",
    rate: float,
    seconds: float | None,
    start: int,
    lists: "ListReader | None",
    seed: int,
) -> None:
    """Live events at their times, changes of the catalogue among them, and what shoppers do with the lists they get."""
    import numpy as np

    from mmrec_stream.contracts.catalogue import CatalogueItem
    from mmrec_stream.simulator.reactions import Merged, reactions

    rng = np.random.default_rng([seed, 4])
    coming = Merged(shoppers.live(rate, start))
    end = float("inf") if seconds is None else start + seconds * 1000
    events = 0
    with events_progress() as progress:
        task = progress.add_task(f"live, {rate:g} events/s", total=None if seconds is None else seconds * 1000)
        for each in shoppers.with_catalogue(takewhile(lambda event: event.ts < end, coming)):
            if isinstance(each, CatalogueItem):
                publisher.item(each)
                continue
            publisher.wait_until(each.ts)
            publisher.event(each)
            events += 1
            progress.update(task, completed=each.ts - start, events=events)
            if lists is not None:
                coming.add(reactions(shoppers, lists.take(), rng, int(time() * 1000)))
        publisher.finish()
