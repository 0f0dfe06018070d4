"""One round of training, from data to a release, with its progress on the terminal."""

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mmrec_stream.evaluation.splits import global_time
from mmrec_stream.settings import Settings
from model_export.config import ModelConfig
from model_export.data import read_folder, read_topics
from model_export.release import build_release
from model_export.training import Progress, fit


def train_once(settings: Settings, data: Path | None, store: Path, config: ModelConfig) -> Path:
    """Read, train, export; the release's folder."""
    console = Console(stderr=True)
    dataset = read_folder(data) if data else read_topics(settings)
    console.print(f"{len(dataset.interactions):,} events, {dataset.users:,} users, {dataset.items:,} items")
    split = global_time(dataset)
    with TrainingBar(console) as bar:
        model = fit(dataset, split, config, progress=bar.update)
    path = build_release(model, store, int(time.time() * 1000))
    console.print(path, model.report)
    return path


class TrainingBar:
    """Loss, validation metric, speed and time left, as a bar."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            TextColumn("pass {task.fields[epoch]}"),
            BarColumn(),
            TextColumn(
                "loss {task.fields[loss]:.3f}  ndcg@10 {task.fields[metric]:.4f}  {task.fields[speed]:,.0f} events/s"
            ),
            TimeElapsedColumn(),
            TextColumn("at most {task.fields[left]:,.0f} s left"),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, epoch=0, loss=0.0, metric=0.0, speed=0.0, left=0.0)

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
            epoch=progress.epoch,
            loss=progress.loss,
            metric=progress.metric,
            speed=progress.events_per_s,
            left=progress.seconds_left,
        )
