"""`mmrec repartition`: copy a foreign topic into ours, with each event on its user's partition."""

from collections import Counter
from typing import Annotated

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.settings import load_settings


def repartition(
    source: Annotated[str, typer.Option("--from", metavar="TOPIC", help="Full name of the topic to copy.")],
    once: Annotated[bool, typer.Option("--once", help="End at the topic's present end; otherwise go on.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Copy a foreign behaviour topic into ours: same bytes, keyed by user id, on the partition murmur2 gives.

    For topics whose producer keys or partitions otherwise (`mmrec doctor` says so), or that have another number of
    partitions. What is no valid event goes to the dead letters. It goes on where it was ended, even by a crash; events
    of the last batch may then be copied twice. Do not name the topic in MMREC_BEHAVIOUR_TOPICS at the same time.

    Example: `mmrec repartition --from shop.clicks --once`
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mmrec_stream.operations.repartition import copy

    settings = load_settings(bootstrap=bootstrap)
    total: Counter[str] = Counter()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"joining the copiers of {source}")
        try:
            for counts in copy(settings, source, once=once):
                total += counts
                progress.update(task, description=f"{total.total():,} records of {source} copied")
        except KeyboardInterrupt:
            pass
    for destination, count in sorted(total.items()):
        typer.echo(f"{count:>12,}  {destination}")
    if not total:
        typer.echo("nothing to copy")
