"""`mmrec audit`: compares the profiles with the events in the log."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import AsJson, Bootstrap
from mmrec_stream.cli.text import console
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from mmrec_stream.operations.audit import Audit


def audit(
    names: Annotated[int, typer.Option(min=0, help="How many lost and doubled users to name.")] = 20,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Compare, for every user, the events in the log with the events in the profile.

    Reads behaviour topics, profile changelog, dead letters and the workers' committed offsets from Kafka alone, while
    workers run or not. Events not committed yet are under way and counted as pending. Where retention has deleted the
    beginning of a log, profiles with more events than the log are counted as not judged, and so are users who asked to
    be forgotten.

    Ends with status 1 when an event is lost or counted twice.

    Example: `mmrec audit --names 100`
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mmrec_stream.operations.audit import audit as compare

    settings = load_settings(bootstrap=bootstrap)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", completed=0)
        read = 0

        def show(topic: str, records: int) -> None:
            nonlocal read
            read += records
            progress.update(task, description=f"{read:,} records, {topic}")

        result = compare(settings, show)
    if as_json:
        sys.stdout.write(_json(result, names) + "\n")
    else:
        _print(console(), result, names)
    if not result.ok:
        raise typer.Exit(1)


def _print(out: "Console", result: "Audit", names: int) -> None:
    from rich.markup import escape
    from rich.table import Table

    sources = Table(box=None, pad_edge=False)
    counts = ("folded", "dead letters", "erased", "pending", "lost")
    for title in ("topic", "partition", "records", *counts, "from offset"):
        sources.add_column(title, justify="left" if title == "topic" else "right", no_wrap=True)
    for source in result.sources:
        found = (source.folded, source.dead, source.erased, source.pending, source.lost)
        numbers = (source.partition, sum(found), *found, source.first)
        sources.add_row(source.topic, *(f"{number:,}" for number in numbers))
    out.print(sources)
    for cause, count in result.dead_letters.most_common():
        out.print(f"dead letters, {cause}: {count:,}")
    lost = [fault for fault in result.faults if fault.missing > 0]
    doubled = [fault for fault in result.faults if fault.missing < 0]
    out.print(
        f"users: {result.users:,}; agree: {result.agreeing:,}; with lost events: {len(lost):,}; "
        f"with doubled events: {len(doubled):,}; not judged: {result.unjudged:,}"
    )
    for title, faults in (("lost", lost), ("doubled", doubled)):
        for fault in sorted(faults, key=lambda fault: -abs(fault.missing))[:names]:
            out.print(
                f"[red]{title}[/] user {escape(repr(fault.user))}: {fault.in_log:,} events in the log, "
                f"{fault.folded:,} folded",
                highlight=False,
            )
        if len(faults) > names:
            out.print(f"… and {len(faults) - names:,} more ({title}); --names {len(faults)} shows all")
    for topic, partition, offset in result.lost_places[:names]:
        out.print(f"[red]lost[/] record {topic}, partition {partition}, offset {offset}", highlight=False)
    if result.forgotten:
        out.print(f"{result.forgotten:,} users asked to be forgotten: what is missing of them may be erased or lost")
    if trimmed := result.unjudged - result.forgotten:
        out.print(
            f"{trimmed:,} profiles have more events than their log, whose beginning retention has deleted: "
            "only losses can be seen there, not doubles"
        )
    if result.dead_letters_trimmed:
        out.print("retention has deleted dead letters: what they held may be counted as lost")
    if unreadable := result.changelog.unreadable:
        place, reason = result.changelog.examples[0]
        out.print(f"{unreadable:,} changelog records are no profile, the first at offset {place}: {escape(reason)}")
    out.print("[green]the profiles agree with the log[/]" if result.ok else "[red]the profiles do not agree[/]")


def _json(result: "Audit", names: int) -> str:
    import msgspec

    faults = sorted(result.faults, key=lambda fault: -abs(fault.missing))
    document = {
        "ok": result.ok,
        "users": result.users,
        "agreeing": result.agreeing,
        "lost_users": sum(fault.missing > 0 for fault in faults),
        "doubled_users": sum(fault.missing < 0 for fault in faults),
        "unjudged_users": result.unjudged,
        "forgotten_users": result.forgotten,
        "dead_letters": dict(result.dead_letters),
        "dead_letters_trimmed": result.dead_letters_trimmed,
        "unreadable_profiles": result.changelog.unreadable,
        "sources": result.sources,
        "faults": faults[:names],
        "lost_records": result.lost_places[:names],
    }
    return msgspec.json.encode(document).decode()
