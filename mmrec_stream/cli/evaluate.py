"""`mmrec evaluate`: how good a release is on events that it has not seen, as a report."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from mmrec_stream.evaluation.methods import Judgement


def evaluate(
    release: Annotated[
        Path | None, typer.Argument(help="The release's folder. Default: the newest in MMREC_DATA_DIR/releases.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with events.jsonl and catalogue.jsonl.")
    ] = None,
    source: Annotated[
        Literal["kafka"] | None, typer.Option("--from", help="Read the topics up to their end instead of a folder.")
    ] = None,
    split: Annotated[
        Literal["time", "leave-one-out", "last-basket"],
        typer.Option(help="Which events are judged: those after the release's training, or each user's last ones."),
    ] = "time",
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --split time: judge from here on, as 2026-11-24T06:00.")
    ] = None,
    k: Annotated[str, typer.Option(help="List lengths, comma-separated.")] = "10,20",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where report.html, report.md, figures.json go.")] = Path(
        "report"
    ),
    replay: Annotated[bool, typer.Option(help="Compare a live profile with a daily one over time.")] = True,
    bootstrap: Bootstrap = None,
) -> None:
    """Judge a release as it would serve: its own graphs on ONNX Runtime, the stream's own profiles, all items ranked.

    Beside it stand its two halves alone (α = 1, α = 0), and popularity, directed co-occurrence, item kNN and content
    kNN, learned from the likings before the judged ones. figures.json has all figures.

    Reports HR, NDCG, MRR, recall, coverage, novelty, calibration and popularity bias with intervals, by history length
    and item age, a replay over time, and example users with pictures.

    Example: `mmrec evaluate --from kafka` for the newest release;
    `mmrec evaluate var/releases/20261124T064500Z-3f2a --data log --k 10,50` for a folder of events.
    """
    from rich.console import Console

    from mmrec_stream.data.sources import read_folder, read_topics
    from mmrec_stream.evaluation import report as reports
    from mmrec_stream.evaluation.release_report import figures_json, judge_release, question_of, report_of
    from mmrec_stream.profiles.tastes import Tastes
    from mmrec_stream.ranking.repeats import Repeats
    from mmrec_stream.ranking.scorer import Scorer
    from mmrec_stream.releases import newest_release

    if (data is None) == (source is None):
        raise UserError("say where the events are: --data DIR, or --from kafka")
    ks = _lengths(k)
    settings = load_settings(bootstrap=bootstrap)
    path = release or newest_release(settings.releases_dir)
    if path is None:
        raise UserError(f"no release in {settings.releases_dir}; `mmrec train` makes one, or name its folder")
    console = Console(stderr=True)
    with console.status("reading events") as status:
        dataset = read_folder(data, Tastes.of(settings.preset)) if data is not None else read_topics(settings)
        status.update("loading the release")
        scorer = Scorer.load(path, provider=settings.provider, threads=settings.scoring_threads)
        manifest = scorer.release.manifest
        since_ms = manifest.data.last + 1 if since is None else _time_ms(since)
        question = question_of(dataset, manifest, split, since_ms)

        def show(what: str, done: int, of: int) -> None:
            status.update(f"{what}: {done:,} of {of:,} cases")

        judged = judge_release(
            scorer,
            dataset,
            question,
            ks,
            repeats=Repeats.of_days(settings.seen_days, settings.repurchase_days),
            replay_since_ms=since_ms if replay and split == "time" else None,
            progress=show,
        )
    page = reports.write(report_of(manifest, dataset, judged, ks), out)
    (out / "figures.json").write_bytes(figures_json(manifest, dataset, judged))
    console.print(f"{len(judged.cases):,} cases, all {dataset.items:,} items ranked; 95% intervals", highlight=False)
    for size in ks:
        console.print(_table(judged.methods, size))
    typer.echo(page)


def _table(methods: "Mapping[str, Judgement]", k: int) -> "Table":
    """The methods below each other, at one list length."""
    from rich.table import Table

    table = Table(title=f"at {k}", title_justify="left", box=None, pad_edge=False)
    table.add_column("method")
    for metric in ("NDCG", "HR", "MRR", "Recall", "coverage"):
        table.add_column(metric, justify="right")
    for name, judgement in methods.items():
        ndcg = judgement.figures[f"NDCG@{k}"]
        others = [f"{judgement.figures[f'{metric}@{k}'].value:.4f}" for metric in ("HR", "MRR", "Recall", "coverage")]
        table.add_row(name, f"{ndcg.value:.4f} ({ndcg.low:.4f}…{ndcg.high:.4f})", *others)
    return table


def _lengths(text: str) -> tuple[int, ...]:
    try:
        ks = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UserError(f"--k {text}: whole numbers, separated by commas, as 10,20") from None
    if not 1 <= ks[0] <= ks[-1] <= 1000:
        raise UserError(f"--k {text}: list lengths go from 1 to 1000")
    return ks


def _time_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(f"--since {text}: a time looks like 2026-11-24 or 2026-11-24T06:00") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
