"""`mmrec train`: from events and a catalogue to a release, once or on a schedule."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from mmrec_stream.data.dataset import Dataset
    from model_export.config import ModelConfig


def train(
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with events.jsonl and catalogue.jsonl (`mmrec simulate --out`)."),
    ] = None,
    source: Annotated[
        Literal["kafka"] | None, typer.Option("--from", help="Read the topics up to their end instead of a folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where releases are kept. Default: MMREC_DATA_DIR/releases.")
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Train again and again, such as every 15m, as events come in.")
    ] = None,
    announce: Annotated[
        bool | None,
        typer.Option(help="Tell the workers on the releases topic. Default: with --from kafka only."),
    ] = None,
    stage: Annotated[
        Literal["shadow", "canary", "live"],
        typer.Option(help="Where an announced release begins: on trial beside the live one, or for everybody at once."),
    ] = "live",
    share: Annotated[float, typer.Option(min=0.001, max=0.999, help="Of the users, while it is a canary.")] = 0.1,
    shadow_s: Annotated[float, typer.Option("--shadow", min=0, help="Least time in shadow, s.")] = 30.0,
    canary_s: Annotated[float, typer.Option("--canary", min=0, help="Least time as a canary, s.")] = 600.0,
    encoders: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Comma-separated: id, attributes, lstm, cnn, precomputed:COLUMN, sentence-transformers:MODEL, "
            "timm:MODEL. Default: id and all the data can feed.",
        ),
    ] = None,
    fusion: Annotated[
        Literal["weighted", "concat", "attention"], typer.Option(help="How the modalities become one vector.")
    ] = "weighted",
    image_size: Annotated[
        int, typer.Option(min=16, max=256, help="Pixels a side of the pictures that cnn sees; wider from 64 on.")
    ] = 32,
    pretext: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="PASSES",
            help="Passes over the catalogue from which lstm and cnn learn before behaviour is looked at.",
        ),
    ] = 0,
    user_encoder: Annotated[Literal["gru", "attention"], typer.Option(help="How a history becomes a vector.")] = "gru",
    associations: Annotated[
        Literal["auto", "counted", "regressed"],
        typer.Option(
            help="p_item's behaviour: co-occurrence, or a regression too (memory: 12 · items² bytes). "
            "auto: a regression for up to 5,000 items."
        ),
    ] = "auto",
    dim: Annotated[int, typer.Option(min=8, max=512, help="Width of the vectors.")] = 64,
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the data; training stops early by itself.")] = 30,
    minutes: Annotated[float | None, typer.Option(min=0, help="Most minutes of passes.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Saved after each pass; an interrupted training with the same data goes on."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, data and machine give the same model.")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to train.")] = "auto",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: half of the cores, the rest is the stream's.")
    ] = 0,
    bootstrap: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka. Default: MMREC_BOOTSTRAP.")] = None,
) -> None:
    """Train the hybrid model, write it as a release, and tell the workers.

    A release that is worse than the current one on the newest events is thrown away. What it learns: which item comes
    next, from text, pictures, attributes and behaviour.

    Examples: `mmrec train --from kafka --every 15m` keeps a running shop fresh; with `--stage shadow --canary 300` each
    release is tried first;
    `mmrec simulate --days-before 14 --rate 0 --out log && mmrec train --data log --minutes 1` needs no broker.
    """
    import torch
    from rich.console import Console

    from model_export.config import ModelConfig
    from model_export.rounds import interval_seconds, keep_training

    if checkpoint is not None and every is not None:
        raise UserError("--checkpoint is for a single training: each round of --every has data of its own")
    if (data is None) == (source is None):
        raise UserError("say where the data is: --data DIR, or --from kafka")
    settings = load_settings(bootstrap=bootstrap)
    threads = threads or max(1, (os.cpu_count() or 1) // 2)
    torch.set_num_threads(threads)
    config = ModelConfig(
        dim=dim,
        encoders=tuple(name.strip() for name in encoders.split(",") if name.strip()) if encoders else (),
        fusion=fusion,
        image_size=image_size,
        pretext=pretext,
        user_encoder=user_encoder,
        associations=associations,
        epochs=epochs,
        minutes=minutes,
        seed=seed,
        device=device,
    )
    store = out or settings.releases_dir
    announced = source is not None if announce is None else announce
    console = Console(stderr=True)

    def tell(path: Path) -> None:
        from mmrec_stream.operations.rollouts import announce_release

        announce_release(settings, path, stage=stage, share=share, shadow_s=shadow_s, canary_s=canary_s)
        console.print(f"announced to {settings.bootstrap}: {stage}")

    def one_round(dataset: "Dataset") -> None:
        path = _round(console, settings, dataset, store, config, threads, checkpoint)
        if announced:
            tell(path)
        typer.echo(path)

    if every is None:
        one_round(_read(console, settings, data))
        return
    try:
        keep_training(
            lambda: _read(console, settings, data),
            one_round,
            lambda line: console.print(line, style="yellow", markup=False, highlight=False),
            interval_seconds(every),
        )
    except KeyboardInterrupt:
        console.print("stopped")


def compress(
    release: Annotated[Path, typer.Argument(help="Folder of a release of full precision.")],
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder with events.jsonl and catalogue.jsonl, to judge on its end.")
    ],
    to: Annotated[list[str] | None, typer.Option(help="fp16, int8; may be given twice. Default: both.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the variants go. Default: beside the release.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads that are timed.")] = 1,
) -> None:
    """Write smaller variants of a release, and say what each costs in quality and gains in time.

    NDCG@10 and the overlap of lists with full precision are taken on the newest events of the data, times are the
    lower quartile of 60 runs here; both also go into the variant's manifest. The workers are not told:
    copy a variant to where releases are kept and announce it, if it is worth it.

    Example: `mmrec compress var/releases/20261124T064500Z-3f2a --data log --to int8`
    """
    from rich.console import Console

    from mmrec_stream.data.sources import read_folder
    from mmrec_stream.profiles.tastes import Tastes
    from model_export.compress import compress_and_measure, measure
    from model_export.rounds import release_split
    from model_export.terminal import variants_table

    wanted = to or ["fp16", "int8"]
    if wrong := [name for name in wanted if name not in ("fp16", "int8")]:
        raise UserError(f"--to {wrong[0]}: choose fp16 or int8")
    dataset = read_folder(data, Tastes.of(load_settings().preset))
    cases = release_split(dataset).test
    full = measure(release, dataset, cases, threads)
    measured = {release.name: full}
    for name in wanted:
        variant, found = compress_and_measure(
            release,
            "fp16" if name == "fp16" else "int8",
            out or release.parent,
            full,
            lambda path: measure(path, dataset, cases, threads),
        )
        measured[variant.name] = found
        typer.echo(variant)
    Console(stderr=True).print(variants_table(measured))


def _read(console: "Console", settings: Settings, data: Path | None) -> "Dataset":
    from mmrec_stream.data.sources import read_folder, read_topics
    from mmrec_stream.profiles.tastes import Tastes

    with console.status("reading events") as status:
        if data is not None:
            dataset = read_folder(data, Tastes.of(settings.preset))
        else:
            dataset = read_topics(settings, lambda events: status.update(f"reading events: {events:,}"))
    log = dataset.interactions
    console.print(f"{len(log):,} events of {dataset.users:,} users on {dataset.items:,} items")
    return dataset


def _round(
    console: "Console",
    settings: Settings,
    dataset: "Dataset",
    store: Path,
    config: "ModelConfig",
    threads: int,
    checkpoint: Path | None,
) -> Path:
    """One training, signed where a key is set; returns the release's folder.

    Raises:
        UserError: there is no release, or the key is none.
    """
    from mmrec_stream.releases import sign_release, verify_release
    from mmrec_stream.releases.signing import signing_key
    from model_export.rounds import train_round
    from model_export.terminal import TrainingBar, release_summary

    key = signing_key(settings)
    with TrainingBar(console) as bar:
        done = train_round(dataset, store, config, progress=bar.update, threads=threads, checkpoint=checkpoint)
    if done.path is None:
        raise UserError(f"the new model is thrown away, as it is worse: {done.verdict.reason}")
    console.print(release_summary(verify_release(done.path)))
    console.print(f"{done.verdict.reason}; {done.seconds:.0f} s in all")
    if key is not None:
        console.print(f"signed with key {sign_release(done.path, key)}")
    return done.path
