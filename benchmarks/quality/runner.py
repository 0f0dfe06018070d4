"""Goes through sets and methods, and keeps each method's figures as soon as they are there."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality import table
from benchmarks.quality.methods import Factory, methods_for
from benchmarks.quality.ours import Trainings
from benchmarks.quality.published import published_lists
from benchmarks.quality.set_report import report_of
from benchmarks.quality.sets import SETS, data_folder, load
from benchmarks.results import console
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation import report as reports

__all__ = ["QUICK", "SETS", "run_sets"]

QUICK = ("popularity", "item-knn", "cooccurrence", "ours")
"""Methods that take seconds each."""


def run_sets(names: Sequence[str], wanted: Sequence[str], seeds: int, results: Path) -> list[str]:
    """Judge methods on sets; returns a line for every method that could not be judged."""
    failed: list[str] = []
    for name in names:
        judged = load(name)
        trainings = Trainings()
        chosen = _chosen(methods_for(judged, trainings), wanted)
        figures: dict[str, table.Figures] = {}
        for label, factory in chosen.items():
            try:
                figures[label] = table.run(judged, label, factory, range(seeds if label.startswith("ours") else 1))
            except UserError as error:
                failed.append(f"{name}: {label}: {error}")
                continue
            table.keep(results, list(table.lines_of(judged, label, figures[label])))
        if name == "yoochoose" and not wanted:
            for label, lists in published_lists(data_folder(), judged).items():
                figures[label] = table.of_lists(judged, [lists])
                table.keep(results, list(table.lines_of(judged, label, figures[label])))
        table.show(judged, figures)
        page = reports.write(report_of(judged, figures, trainings), results.parent / f"quality-{judged.dataset.name}")
        console.print(f"report: {page}", highlight=False)
    console.print(f"written to {results}", highlight=False)
    return failed


def _chosen(known: dict[str, Factory], wanted: Sequence[str]) -> dict[str, Factory]:
    """The methods whose name begins with a wanted one, in the order of all; all where none is named.

    Raises:
        UserError: No method begins like one of the wanted names.
    """
    for prefix in wanted:
        if not any(name.startswith(prefix) for name in known):
            raise UserError(f"--methods {prefix}: no such method; there are {', '.join(known)}")
    return {name: known[name] for name in known if not wanted or any(name.startswith(prefix) for prefix in wanted)}
