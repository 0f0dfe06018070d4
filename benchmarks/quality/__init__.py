"""Quality of the lists: ours and the literature's methods on public data sets, from the raw files in one command."""

from pathlib import Path
from typing import Annotated

import typer

from mmrec_stream.errors import UserError

RESULTS = Path(__file__).parent.parent / "results" / "quality.jsonl"


def command(
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A set by name (a wrong one lists them), or a sequence file; repeatable. All if not given."
        ),
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Comma-separated names, or how names begin (`ours alpha`). All if not given."),
    ] = "",
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Seeds that our own model is trained with.")] = 3,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="A method that the others are compared with case by case; judged before, or first. Repeatable."
        ),
    ] = None,
    kept: Annotated[
        bool, typer.Option(help="Judge nothing, compare what earlier runs have kept of the methods.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="LastFM alone, one seed, without methods that take minutes.")] = False,
    results: Annotated[Path, typer.Option(help="Where the figures go, one JSON line each.")] = RESULTS,
) -> None:
    """Train and judge every method on every set; print a table a set, and keep each figure.

    The public sets are read from the folder MMREC_DATA. A file of your own has one user a line, the user and then the
    items in time order, and is judged by leave-one-out.

    Example: python -m benchmarks quality --set beauty --methods ours,popularity
    """
    from benchmarks.quality import runner

    if quick and not sets:
        sets = ["lastfm"]
    wanted = [name.strip() for name in methods.split(",") if name.strip()] or (list(runner.QUICK) if quick else [])
    failed = runner.run_sets(
        sets or list(runner.SETS), wanted, 1 if quick else seeds, results, against or (), kept=kept
    )
    if failed:
        raise UserError(f"not judged: {'; '.join(failed)}")
