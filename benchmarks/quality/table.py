"""Runs methods on a set, and shows and keeps what came out."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from benchmarks.quality.methods import Factory
from benchmarks.quality.sets import Judged
from benchmarks.results import console
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.methods import judge, recommend
from mmrec_stream.evaluation.metrics import Figure, Lists

Figures = dict[str, Figure]


class Line(msgspec.Struct, frozen=True):
    """One figure as it is written."""

    set: str
    method: str
    metric: str
    value: float
    low: float | None
    high: float | None


def run(judged: Judged, name: str, factory: Factory, seeds: Sequence[int]) -> Figures:
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
    figures = of_lists(judged, lists)
    figures["fit-seconds"] = Figure(float(np.mean(seconds)))
    return figures


def of_lists(judged: Judged, lists: Sequence[Lists]) -> Figures:
    """The figures of one method's lists for the test cases, one array of lists a seed."""
    learned = judged.split.refit if judged.split.refit is not None else judged.split.train
    judgements = [judge(judged.dataset, learned, judged.split.test, each, judged.ks) for each in lists]
    figures = dict(judgements[0].figures)
    if len(lists) == 1:
        return figures
    for name in figures:
        if name in judgements[0].values:
            per_case = np.mean([judgement.values[name] for judgement in judgements], axis=0)
            figures[name] = metrics.bootstrap(per_case, judged.split.test.users)
        else:
            # Parts of the cases, and what is no mean over cases: the mean of the seeds, with the first one's interval.
            first = judgements[0].figures[name]
            figures[name] = Figure(float(np.mean([j.figures[name].value for j in judgements])), first.low, first.high)
    for name in judgements[0].values:
        values = [judgement.figures[name].value for judgement in judgements]
        figures[f"{name} seed-sd"] = Figure(float(np.std(values, ddof=1)))
    return figures


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


def figures_of(path: Path, name: str) -> dict[str, Figures]:
    """The figures at `path` of the set `name`, by method: also those of earlier runs."""
    found: dict[str, Figures] = {}
    for line in _read(path):
        if line.set == name:
            found.setdefault(line.method, {})[line.metric] = Figure(line.value, line.low, line.high)
    return found


def show(judged: Judged, results: dict[str, Figures]) -> None:
    """Print a set's tables: the main metrics with their intervals and targets, then the rest."""
    main = [target.metric for target in judged.targets] or [f"{name}@{judged.ks[0]}" for name in ("HR", "NDCG")]
    split, dataset = judged.split, judged.dataset
    console.print(
        f"{dataset.name}: {dataset.users:,} users, {dataset.items:,} items, {len(dataset.interactions):,} events,"
        f" {len(split.test):,} cases; {judged.note or 'leave one out'}; all items ranked,"
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
