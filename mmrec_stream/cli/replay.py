"""`mmrec replay`: real event files into the topics."""

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.progress import events_progress
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from rich.progress import Progress

    from mmrec_stream.replay.publishing import Publisher
    from mmrec_stream.replay.reading import Source
    from mmrec_stream.replay.rejects import Rejects

SHOW_EVERY_S = 0.1
"""A paced replay takes long over a batch of rows: its count is shown this often in between."""


class Now(StrEnum):
    """Which event of the file is to happen now."""

    FIRST = "first"
    LAST = "last"


def replay(
    file: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSON lines; .gz, .bz2 and .zst are unpacked on the way.")
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="jsonl (our own events), csv (with --mapping), rees46, yoochoose, yoochoose-clicks, yoochoose-buys, "
            "online-retail.",
        ),
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="TOML file that says what the columns of your own CSV or Parquet mean.")
    ] = None,
    speed: Annotated[
        str, typer.Option(help="max, or a factor: 1x as it happened, 10x ten times as fast, by event time.")
    ] = "max",
    now: Annotated[
        Now | None, typer.Option(help="Move all times so that the first or the last event is now. Default: keep them.")
    ] = None,
    catalogue: Annotated[
        bool, typer.Option("--catalogue", help="First publish what the file says of the items to the catalogue.")
    ] = False,
    anonymous_as: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What stands in for a missing user, e.g. invoice. Default: such rows are rejected."
        ),
    ] = None,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go. Default: FILE.rejects.csv.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish a file of events to the topics, in the file's order.

    Rows that cannot be events are counted, the first of each kind is shown, and all are written to a rejects file with
    line number, field and reason.

    Examples: `mmrec replay 2019-Oct.csv.gz --format rees46 --catalogue --speed 100x --now first`;
    `mmrec replay mine.csv --mapping mine.toml`. docs/replay.md explains mapping files.
    """
    from mmrec_stream.kafka.clients import BatchProducer
    from mmrec_stream.presets import load_preset
    from mmrec_stream.replay.pacing import parse_speed
    from mmrec_stream.replay.publishing import TopicPublisher, require_topics
    from mmrec_stream.replay.rejects import Rejects
    from mmrec_stream.topics import Topics

    factor = parse_speed(speed)
    settings = load_settings(bootstrap=bootstrap)
    source = _source(file, format_, mapping, anonymous_as, load_preset(settings.preset).events)
    topics = Topics.of(settings)
    require_topics(settings, topics)
    began = monotonic()
    with ExitStack() as stack:
        refused = stack.enter_context(Rejects(rejects or file.with_name(f"{file.name}.rejects.csv")))
        publisher = TopicPublisher(stack.enter_context(BatchProducer(settings)), topics)
        progress = stack.enter_context(events_progress())
        last = _last_time(source, progress) if now is Now.LAST else None
        if catalogue:
            _publish_items(source, publisher, progress)
        try:
            rows, events = _publish_events(source, publisher, refused, factor, now, last, progress)
        except KeyboardInterrupt:
            publisher.finish()
            raise typer.Exit(130) from None
        publisher.finish()
    _summary(rows, events, publisher, refused, monotonic() - began)
    if rows and not events:
        raise UserError(
            f"no row of {file} is an event: is it really {source.format.name if source.format else 'jsonl'}?"
        )


def _source(
    file: Path, name: str | None, mapping: Path | None, anonymous_as: str | None, events: dict[str, str]
) -> "Source":
    from mmrec_stream.replay.mapping import builtin, builtin_formats, load_mapping
    from mmrec_stream.replay.reading import Source

    if mapping is not None:
        if name not in (None, "csv"):
            raise UserError(f"--format {name} and --mapping {mapping} contradict each other: give one of them")
        return Source(file, load_mapping(mapping, events), anonymous_as)
    if name == "csv":
        raise UserError("--format csv needs --mapping FILE, which says what the columns mean: see docs/replay.md")
    if name is None and ".jsonl" not in file.suffixes:
        raise UserError(f"say what {file} is: --format jsonl, {', '.join(builtin_formats())}, or --mapping FILE")
    return Source(file, None if name in (None, "jsonl") else builtin(name), anonymous_as)


def _last_time(source: "Source", progress: "Progress") -> int | None:
    from mmrec_stream.replay.reading import read_events
    from mmrec_stream.replay.rows import Reject

    task = progress.add_task("finding the last event", total=1.0)
    last, events = None, 0
    for chunk in read_events(source):
        times = [outcome.ts for outcome in chunk.outcomes if not isinstance(outcome, Reject)]
        events += len(times)
        last = max([*times, last or 0]) or None
        progress.update(task, completed=chunk.done, events=events)
    return last


def _publish_items(source: "Source", publisher: "Publisher", progress: "Progress") -> None:
    from mmrec_stream.replay.reading import read_items

    task = progress.add_task("catalogue", total=None)
    count = 0
    for count, item in enumerate(read_items(source), 1):  # noqa: B007
        publisher.item(item)
    publisher.finish()
    progress.update(task, total=1, completed=1, events=count)


def _publish_events(
    source: "Source",
    publisher: "Publisher",
    refused: "Rejects",
    speed: float | None,
    now: Now | None,
    last: int | None,
    progress: "Progress",
) -> tuple[int, int]:
    """Publish the events at their times; returns how many rows were read and how many events published."""
    from msgspec.structs import replace

    from mmrec_stream.replay.pacing import Pace
    from mmrec_stream.replay.reading import read_events
    from mmrec_stream.replay.rows import Reject

    task = progress.add_task(source.path.name, total=1.0)
    rows = events = shift = 0
    shown = 0.0
    pace: Pace | None = None
    for chunk in read_events(source):
        for outcome in chunk.outcomes:
            if isinstance(outcome, Reject):
                refused.add(outcome)
                continue
            if pace is None:
                started = int(time() * 1000)
                anchor = {None: started, Now.FIRST: outcome.ts, Now.LAST: last or outcome.ts}[now]
                shift = started - anchor
                pace = Pace(speed, outcome.ts + shift, started)
            event = replace(outcome, ts=outcome.ts + shift) if shift else outcome
            if (due := pace.due(event.ts)) is not None:
                publisher.wait_until(due)
            publisher.event(event)
            events += 1
            if pace.speed is not None and monotonic() - shown > SHOW_EVERY_S:
                shown = monotonic()
                progress.update(task, events=events, rejects=refused.count)
        rows += chunk.rows
        progress.update(task, completed=chunk.done, events=events, rejects=refused.count)
    return rows, events


def _summary(rows: int, events: int, publisher: "Publisher", refused: "Rejects", seconds: float) -> None:
    typer.echo(f"{rows:>12,}  rows read")
    for topic, count in sorted(publisher.sent.items()):
        typer.echo(f"{count:>12,}  published to {topic}")
    if skipped := rows - events - refused.count:
        typer.echo(f"{skipped:>12,}  passed over")
    typer.echo(f"{refused.count:>12,}  rejected{f', see {refused.path}' if refused.count else ''}")
    for field, count in refused.by_field.most_common():
        first = refused.first[field]
        more = f", and {count - 1:,} more with a wrong {field or 'form'}" if count > 1 else ""
        typer.echo(f"{'':14}line {first.line}: {f'{field} ' if field else ''}{first.reason}{more}")
    typer.echo(f"{seconds:>12,.1f}  seconds, {events / seconds if seconds else 0:,.0f} events/s")
