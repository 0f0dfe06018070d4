"""`mmrec train`: from events and a catalogue to a release, once or on a schedule."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmrec_stream.settings import load_settings


def train(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with events.jsonl and catalogue.jsonl, as `mmrec simulate --out` writes."),
    ] = None,
    source: Annotated[Literal["kafka"] | None, typer.Option("--from", help="Read the topics up to their end.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where releases are kept. Default: releases in MMREC_DATA_DIR.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the data; training stops early by itself.")] = 30,
    minutes: Annotated[float | None, typer.Option(min=0, help="Most minutes of passes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and data give the same model.")] = 0,
) -> None:
    """Train the hybrid model and write it as a release that workers can load.

    Example: `mmrec simulate --days-before 14 --rate 0 --out log && mmrec train --data log --minutes 1`
    """
    from model_export.config import ModelConfig
    from model_export.rounds import train_once

    settings = load_settings()
    config = ModelConfig(epochs=epochs, minutes=minutes, seed=seed)
    train_once(settings, data if source is None else None, out or settings.releases_dir, config)
