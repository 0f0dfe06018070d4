"""What training shows on the terminal: a bar while it runs, and a summary of what came of it."""

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from mmrec_stream.releases import Manifest, folder
from model_export.compress import COMPARED, TIMED_BATCHES, Measured
from model_export.training import Progress


class TrainingBar:
    """Loss, validation metric, speed and time left, as a bar."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("pass {task.fields[passes]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TextColumn("NDCG@10 {task.fields[metric]:.4f}"),
            TextColumn("{task.fields[speed]:,.0f} events/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]:,.0f} s left at most"),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, passes="–", loss=0.0, metric=0.0, speed=0.0, left=0.0)

    def __enter__(self) -> "TrainingBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show where training is."""
        self._bar.update(
            self._task,
            total=progress.epochs * progress.steps,
            completed=(progress.epoch - 1) * progress.steps + progress.step,
            passes=f"{progress.epoch}/{progress.epochs}",
            loss=progress.loss,
            metric=progress.metric,
            speed=progress.events_per_s,
            left=progress.seconds_left,
        )


def release_summary(manifest: Manifest) -> Table:
    """What a release is and how good it was on validation."""
    table = Table(title=f"release {manifest.version}", show_header=False, title_justify="left")
    size = manifest.dimensions
    table.add_row("items", f"{size.items:,}, vectors of {size.vector}, {size.neighbours} neighbours each")
    table.add_row("encoders", ", ".join(manifest.encoders.values()))
    table.add_row("fusion", manifest.fusion)
    table.add_row("modalities", _pairs(manifest.modality_weights))
    table.add_row("α by history length", ", ".join(f"{b.min_history}+: {b.alpha:.2f}" for b in manifest.alpha))
    table.add_row("validation", _pairs(manifest.metrics))
    table.add_row("compression", manifest.compression)
    return table


def variants_table(measured: dict[str, Measured]) -> Table:
    """Variants of a release beside each other, graph by graph; the one of full precision first."""
    full = next(iter(measured.values()))
    table = Table(
        "release", "graph", "KB", "NDCG@10", "µs each, alone", f"µs each, {TIMED_BATCHES[1]} at once", "overlap"
    )
    for name, one in measured.items():
        lists, alike = one.overlap(full)
        for graph, ndcg, us, overlap in (
            (folder.RANKER, f"{one.ndcg:.4f}", one.us_per_user, lists),
            (folder.ITEM_ENCODER, "", one.us_per_item, alike),
        ):
            kilobytes = f"{one.graph_bytes[graph] / 1000:,.0f}"
            table.add_row(name, graph, kilobytes, ndcg, *(f"{value:,.1f}" for value in us.values()), f"{overlap:.1%}")
    table.caption = (
        f"each: a user, or an item with its picture decoded; overlap: share of the {COMPARED} best, or of the "
        f"{COMPARED} items nearest by vector, that full precision names too"
    )
    return table


def _pairs(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
