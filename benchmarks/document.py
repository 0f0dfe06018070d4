"""Puts the figures of `results/` into docs/performance.md, between the markers that name their case."""

import re
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from benchmarks.results import RESULTS, Figure, Target, console, describe, readable

DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def command(
    document: Annotated[Path, typer.Option(help="The Markdown file whose tables are renewed.")] = DOCUMENT,
    results: Annotated[Path, typer.Option(help="Folder with the figures.")] = RESULTS,
) -> None:
    """Renew the tables of the performance page from the figures that were measured last."""
    text = document.read_text()
    document.write_text(_BLOCK.sub(lambda block: f"{block[1]}{table(results / f'{block[2]}.jsonl')}{block[3]}", text))
    console.print(f"renewed {document}", highlight=False)


def table(path: Path) -> str:
    """The figures of one case as a Markdown table with a line on where they were measured."""
    if not path.exists() or not path.stat().st_size:
        return "Not measured yet.\n"
    figures = [msgspec.json.decode(line, type=Figure) for line in path.read_bytes().splitlines()]
    lines = ["| case | system | median | low … high | unit | target |", "|---|---|---|---|---|---|"]
    previous = ""
    for figure in figures:
        case = figure.case.partition(".")[2]
        spread = f"{readable(min(figure.samples))} … {readable(max(figure.samples))}" if len(figure.samples) > 1 else ""
        lines.append(
            f"| {case if case != previous else ''} | {figure.system} | {readable(figure.value)} | {spread} "
            f"| {figure.unit} | {_verdict(figure)} |"
        )
        previous = case
    context = figures[0].context
    loads = [figure.context["load"] for figure in figures]
    quick = ", a quick run, not for quoting" if context["quick"] else ""
    broker = f", {context['broker']}" if "broker" in context else ""
    place = (
        f"{context['began'][:16].replace('T', ' ')} UTC on {describe(context)}{broker}; "
        f"load average {min(loads):.1f} to {max(loads):.1f}{quick}."
    )
    return "\n".join([place, "", *lines, ""])


def _verdict(figure: Figure) -> str:
    if figure.target is None or figure.met is None:
        return ""
    # Which side the target lies on follows from the value and whether it is met; at the target itself both do, and one
    # of 0 can only be an upper bound.
    at_least = figure.target > 0 and (figure.value >= figure.target) == figure.met
    return f"{Target(figure.target, at_least=at_least)} {'met' if figure.met else '**missed**'}"
