"""Runs methods on a set, and shows and keeps what came out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from benchmarks.quality.methods import Factory
from benchmarks.quality.sets import Judged
from benchmarks.results import console
from mmrec_stream.data.dataset import Interactions
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.methods import Judgement, judge, recommend, targets_among
from mmrec_stream.evaluation.metrics import Figure, Lists, Values

Figures = Mapping[str, Figure]


class Line(msgspec.Struct, frozen=True):
    """One figure as it is written."""

    set: str
    method: str
    metric: str
    value: float
    low: float | None
    high: float | None


def run(judged: Judged, name: str, factory: Factory, seeds: Sequence[int]) -> Judgement:
    """Fit a method once a seed and judge it on the test cases.

    Per-case values are averaged over seeds before the bootstrap, so that the interval speaks of users; how much seeds
    move a metric is given beside it, as "NDCG@10 seed-sd", and the seconds of one fit as "fit-seconds".
    """
    lists: list[Lists] = []
    seconds: list[float] = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{judged.dataset.name}: {name}", total=None)
        for seed in seeds:
            if len(seeds) > 1:
                progress.update(task, description=f"{judged.dataset.name}: {name}, seed {seed}")
            method = factory(seed)
            began = time.monotonic()
            method.fit(judged.dataset, judged.split)
            seconds.append(time.monotonic() - began)
            lists.append(
                recommend(
                    method,
                    judged.split.test,
                    judged.dataset.items,
                    max(judged.ks),
                    mask_history=judged.split.mask_history,
                    seed=seed,
                )
            )
    judgement = of_lists(judged, lists)
    return replace(judgement, figures={**judgement.figures, "fit-seconds": Figure(float(np.mean(seconds)))})


def of_lists(judged: Judged, lists: Sequence[Lists]) -> Judgement:
    """The judgement of one method's lists for the test cases, one array of lists a seed: means over the seeds."""
    judgements = [judge(judged.dataset, _learned(judged), judged.split.test, each, judged.ks) for each in lists]
    first = judgements[0]
    if len(lists) == 1:
        return first
    values = {name: np.mean([each.values[name] for each in judgements], axis=0) for name in first.values}
    figures = {name: metrics.bootstrap(per_case, first.users[name]) for name, per_case in values.items()}
    for name in first.figures:
        seeds = [each.figures[name].value for each in judgements]
        if name in values:
            figures[f"{name} seed-sd"] = Figure(float(np.std(seeds, ddof=1)))
        else:
            figures[name] = Figure(float(np.mean(seeds)))
    return Judgement(first.lists, values, first.users, figures)


def keep_values(folder: Path, judged: Judged, method: str, judgement: Judgement) -> None:
    """Write what each case has of the main metrics, so that other methods can be compared with this one by case."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {name: judgement.values[name] for name in _compared(judged) if name in judgement.values}
    np.savez_compressed(_values_at(folder, method), allow_pickle=False, **shown)


def above(folder: Path, judged: Judged, method: str, other: str) -> Figures:
    """How far a method's main metrics are above another's on the same cases, with intervals of the difference.

    Raises:
        UserError: One of them has not been judged on these cases.
    """
    mine, theirs = _kept_values(folder, judged, method), _kept_values(folder, judged, other)
    test, known = judged.split.test, np.bincount(_learned(judged).items, minlength=judged.dataset.items) > 0
    users = {"": test.users} | {
        part: test.users[targets_among(test, wanted)[0]] for part, wanted in ((" warm", known), (" cold", ~known))
    }
    figures: dict[str, Figure] = {}
    for name in mine.keys() & theirs.keys():
        owners = users[name.removeprefix(name.split(" ")[0])]
        if not len(mine[name]) == len(theirs[name]) == len(owners):
            raise UserError(
                f"{method} and {other} were judged on different cases of {judged.dataset.name}; judge again"
            )
        figures[f"{name} above {other}"] = metrics.bootstrap(mine[name] - theirs[name], owners)
    return dict(sorted(figures.items()))


def _kept_values(folder: Path, judged: Judged, method: str) -> dict[str, Values]:
    path = _values_at(folder, method)
    if not path.exists():
        raise UserError(f"{method}: not judged on {judged.dataset.name} yet, so that nothing can be compared with it")
    with np.load(path, allow_pickle=False) as values:
        return dict(values)


def _learned(judged: Judged) -> Interactions:
    """What methods have learned from in the end."""
    return judged.split.refit if judged.split.refit is not None else judged.split.train


def _compared(judged: Judged) -> list[str]:
    return [f"{metric}{part}" for metric in judged.main for part in ("", " warm", " cold")]


def _values_at(folder: Path, method: str) -> Path:
    return folder / f"{method.replace(' ', '_').replace('=', '_')}.npz"


def lines_of(judged: Judged, method: str, figures: Figures) -> Iterator[Line]:
    """The figures of one method as they are written."""
    for metric, figure in figures.items():
        yield Line(judged.dataset.name, method, metric, figure.value, figure.low, figure.high)


def keep(path: Path, lines: Sequence[Line]) -> None:
    """Write lines to `path`, in place of earlier ones of the same set, method and metric.

    So a table can be filled set by set, and a run that is cut short loses nothing that it had.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = {(line.set, line.method) for line in lines}
    kept = [line for line in _read(path) if (line.set, line.method) not in fresh]
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in [*kept, *lines])
    beside = path.with_suffix(".part")
    beside.write_bytes(text)
    beside.replace(path)


def figures_of(path: Path, name: str) -> dict[str, dict[str, Figure]]:
    """The figures at `path` of the set `name`, by method: also those of earlier runs."""
    found: dict[str, dict[str, Figure]] = {}
    for line in _read(path):
        if line.set == name:
            found.setdefault(line.method, {})[line.metric] = Figure(line.value, line.low, line.high)
    return found


def show(judged: Judged, results: Mapping[str, Figures]) -> None:
    """Print a set's tables: the main metrics with their intervals and targets, then the rest."""
    main = judged.main
    split, dataset = judged.split, judged.dataset
    console.print(
        f"{dataset.name}: {dataset.users:,} users, {dataset.items:,} items, {len(dataset.interactions):,} events,"
        f" {len(split.test):,} cases; {judged.note}; all items ranked,"
        f" history {'masked' if split.mask_history else 'not masked'}, ties at random,"
        " 95% bootstrap intervals over users",
        highlight=False,
    )
    table = Table("method", *(Column(metric, justify="right") for metric in (*main, "fit, s")))
    best = {metric: max((r[metric].value for r in results.values() if metric in r), default=0.0) for metric in main}
    for name, figures in results.items():
        cells = [_cell(figures.get(metric), best[metric]) for metric in main]
        table.add_row(name, *cells, f"{figures['fit-seconds'].value:.0f}" if "fit-seconds" in figures else "")
    if judged.targets:
        table.add_section()
        table.add_row("must pass", *(f"{target.passing:.4f} ({target.whose})" for target in judged.targets))
        table.add_row("aim", *(f"{target.aim:.4f}" for target in judged.targets))
    console.print(table)
    k = judged.ks[-1]
    parts = [f"{metric} {part}" for metric in main for part in ("warm", "cold")]
    further = [*parts, *(f"{name}@{k}" for name in ("coverage", "novelty", "popularity-lift", "miscalibration"))]
    there = [metric for metric in further if any(metric in figures for figures in results.values())]
    rest = Table(Column("method", overflow="fold"), *(Column(m, justify="right", overflow="fold") for m in there))
    for name, figures in results.items():
        rest.add_row(name, *(f"{figures[metric].value:.4g}" if metric in figures else "" for metric in there))
    console.print(rest)


def _read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    return [msgspec.json.decode(text, type=Line) for text in path.read_bytes().splitlines()]


def _cell(figure: Figure | None, best: float) -> str:
    if figure is None:
        return ""
    text = f"[bold green]{figure.value:.4f}[/]" if figure.value >= best > 0 else f"{figure.value:.4f}"
    return text if figure.low is None else f"{text} [dim]{figure.low:.4f}…{figure.high:.4f}[/]"
