"""`mmrec redrive`: publish dead letters again, once what was wrong with them is put right."""

from typing import Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.text import console
from mmrec_stream.contracts.dead_letters import Fault
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import Topics


def redrive(
    fault: Annotated[list[Fault] | None, typer.Option(help="Only letters with this fault; may be repeated.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Only letters from this topic (clicks, or a full name); may be repeated.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Topic to publish to. Default: where the letter came from.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Publish at most so many.")] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Publish also what would be refused again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Publish dead letters again, keyed by user, each once.

    Only events that would be accepted: those refused through a fault of ours, a setting (MMREC_MAX_EVENT_BYTES,
    MMREC_MAX_FUTURE_S) or a wrong partition. A letter that was published again is marked in the dead-letter topic, so
    that a second run leaves it out. Letters that were cut are completed from their origin while it is retained. A
    letter from a topic of your own goes to the topic of ours that fits.

    Examples: `mmrec redrive --dry-run`, `mmrec redrive --fault misplaced --topic clicks`
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from mmrec_stream.kafka.admin import Cluster
    from mmrec_stream.operations.letters import Wanted
    from mmrec_stream.operations.letters import redrive as publish_again

    settings = load_settings(bootstrap=bootstrap)
    topics = Topics.of(settings)
    wanted = Wanted(
        faults=fault or (),
        origins=[_full_name(topics, name) for name in topic or ()],
        to=_full_name(topics, to) if to is not None else None,
        anyway=anyway,
        limit=limit,
    )
    if wanted.to is not None and wanted.to not in Cluster(settings).partitions():
        raise UserError(f"topic {wanted.to} does not exist at {settings.bootstrap}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("dead letters", total=None)
        counts = publish_again(
            settings,
            wanted,
            dry_run=dry_run,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if not counts:
        typer.echo("no dead letters to publish again")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("from", "fault", "letters", ""):
        table.add_column(title, no_wrap=True, justify="right" if title == "letters" else "left")
    for (origin, cause, outcome), count in sorted(counts.items()):
        table.add_row(origin, cause, f"{count:,}", f"{outcome} (dry run)" if dry_run else outcome)
    console().print(table)


def _full_name(topics: Topics, name: str) -> str:
    """The full name of a topic that may be given by its short one."""
    full: str = getattr(topics, name) if name in ("clicks", "purchases", "feedback") else name
    return full
