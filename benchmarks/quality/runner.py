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


def run_sets(
    names: Sequence[str],
    wanted: Sequence[str],
    seeds: int,
    results: Path,
    against: Sequence[str] = (),
    *,
    kept: bool = False,
) -> list[str]:
    """Judge methods on sets; returns a line for every method that could not be judged.

    Args:
        names: The sets.
        wanted: The methods, or how their names begin; all for none.
        seeds: How often ours are trained.
        results: Where the figures go.
        against: Methods that each is compared with case by case.
        kept: Whether figures of earlier runs are compared, and no method is judged.
    """
    failed: list[str] = []
    for name in names:
        judged = load(name)
        trainings = Trainings()
        chosen = _chosen(methods_for(judged, trainings), wanted)
        figures: dict[str, table.Figures] = {}
        earlier = table.figures_of(results, judged.dataset.name)
        folder = results.parent / f"quality-{judged.dataset.name}"
        for label, factory in chosen.items():
            try:
                if kept:
                    figures[label] = earlier.get(label, {})
                else:
                    judgement = table.run(judged, label, factory, range(seeds if label.startswith("ours") else 1))
                    table.keep_values(folder / "values", judged, label, judgement)
                    figures[label] = judgement.figures
                    table.keep(results, list(table.lines_of(judged, label, figures[label])))
                for other in against:
                    if other != label:
                        figures[label] = {**figures[label], **table.above(folder / "values", judged, label, other)}
            except UserError as error:
                failed.append(f"{name}: {label}: {error}")
                continue
            table.keep(results, list(table.lines_of(judged, label, figures[label])))
        if name == "yoochoose" and not wanted:
            for label, lists in published_lists(data_folder(), judged).items():
                figures[label] = table.of_lists(judged, [lists]).figures
                table.keep(results, list(table.lines_of(judged, label, figures[label])))
        table.show(judged, figures)
        everything = table.figures_of(results, judged.dataset.name)
        page = reports.write(report_of(judged, everything, trainings), folder)
        console.print(f"report: {page}", highlight=False)
    console.print(f"written to {results}", highlight=False)
    return failed


def _chosen(known: dict[str, Factory], wanted: Sequence[str]) -> dict[str, Factory]:
    """The methods that are wanted by name, or by the beginning of their name, in the order of all; all for none.

    Raises:
        UserError: No method is called or begins like one of the wanted names.
    """
    chosen: set[str] = set()
    for name in wanted:
        found = {name} & known.keys() or {method for method in known if method.startswith(name)}
        if not found:
            raise UserError(f"--methods {name}: no such method; there are {', '.join(known)}")
        chosen |= found
    return {name: factory for name, factory in known.items() if not wanted or name in chosen}
