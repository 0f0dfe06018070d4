"""`mmrec release`: what is announced and how far it has come; verify, announce, promote, roll back, compare."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmrec_stream.cli.options import Bootstrap
from mmrec_stream.cli.text import console, printable
from mmrec_stream.errors import UserError
from mmrec_stream.settings import load_settings

if TYPE_CHECKING:
    from mmrec_stream.releases import Manifest
    from mmrec_stream.settings import Settings

app = typer.Typer(
    help="Releases of the model: on trial beside the live one (`shadow`, then `canary`), for everybody (`live`), or "
    "withdrawn. Workers promote and withdraw by themselves; these commands show it and do it by hand.",
    no_args_is_help=True,
)

Which = Annotated[str, typer.Argument(metavar="RELEASE", help="A version in the releases' folder, or a folder.")]
Why = Annotated[str, typer.Option("--reason", help="Why, for whoever asks later; kept with the release.")]


@app.command("list")
def list_(bootstrap: Bootstrap = None) -> None:
    """Show the releases that are announced, oldest first: stage, since when, why, and what was counted.

    Example: `mmrec release list`
    """
    from rich.table import Table
    from rich.text import Text

    from mmrec_stream.operations.rollouts import read_state
    from mmrec_stream.releases import rollout

    state = read_state(load_settings(bootstrap=bootstrap))
    table = Table(box=None, pad_edge=False)
    for title in ("release", "stage", "since", "why"):
        table.add_column(title)
    for one in state.rollouts:
        why = one.reason
        if one == state.candidate and (evidence := state.evidence(one)):
            why = f"{one.reason}; so far: {rollout.summary(evidence)}"
        row = one.version, state.standing(one), _time(one.at), why
        table.add_row(*(Text(printable(cell)) for cell in row))
    if not state.rollouts:
        typer.echo("no release is announced; `mmrec train` makes one, `mmrec release announce` tells the workers")
        return
    console().print(table)


@app.command()
def show(release: Which) -> None:
    """Show what a release says of itself: sizes, encoders, what it was trained on, metrics.

    Example: `mmrec release show 20261124T064500Z-3f2a`
    """
    from mmrec_stream.releases import verify_release

    for name, value in _facts(verify_release(_folder(load_settings(), release))).items():
        typer.echo(f"{name:<16} {printable(value)}")


@app.command()
def verify(release: Which) -> None:
    """Check a release as a worker does before it serves: hashes, format, graphs, golden outputs.

    Ends with status 1 and the reason where a worker would refuse it.

    Example: `mmrec release verify var/releases/20261124T064500Z-3f2a`
    """
    from mmrec_stream.ranking.inspection import inspect_release
    from mmrec_stream.releases.signing import trusted_keys

    settings = load_settings()
    folder, keys = _folder(settings, release), trusted_keys(settings)
    for line in inspect_release(folder, settings.provider, settings.scoring_threads, keys):
        typer.echo(line)


@app.command()
def sign(release: Which) -> None:
    """Sign a release with the private key in MMREC_RELEASE_SIGNING_KEY (PEM, or the path of its file).

    Workers that have the public key in MMREC_RELEASE_KEYS load nothing that is not signed. What is signed is the
    manifest, which names every file by its hash. `mmrec train` signs by itself where the key is set.

    Example: `MMREC_RELEASE_SIGNING_KEY=/run/secrets/release.pem mmrec release sign 20261124T064500Z-3f2a`
    """
    from mmrec_stream.releases import sign_release
    from mmrec_stream.releases.signing import signing_key

    settings = load_settings()
    key = signing_key(settings)
    if key is None:
        raise UserError("MMREC_RELEASE_SIGNING_KEY is not set; `mmrec release new-key FILE` makes a key")
    folder = _folder(settings, release)
    typer.echo(f"{folder.name}: signed with key {sign_release(folder, key)}")


@app.command("new-key")
def new_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; it must not exist.")],
) -> None:
    """Make a pair of keys: the private one into FILE, for its owner alone, the public one to standard output.

    Example: `mmrec release new-key release.pem > release.pub`, then MMREC_RELEASE_KEYS=release.pub for the workers
    """
    import os

    from mmrec_stream.releases.signing import new_key as new_pair

    private, public = new_pair()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as stream:
        stream.write(private)
    typer.echo(public, nl=False)


@app.command()
def announce(
    release: Which,
    stage: Annotated[
        Literal["shadow", "canary", "live"], typer.Option(help="Where it begins; `live` skips the trial.")
    ] = "shadow",
    share: Annotated[float, typer.Option(min=0.001, max=0.999, help="Of the users, while it is a canary.")] = 0.1,
    shadow_s: Annotated[float, typer.Option("--shadow", min=0, help="Least time in shadow, s.")] = 30.0,
    canary_s: Annotated[float, typer.Option("--canary", min=0, help="Least time as a canary, s.")] = 600.0,
    bootstrap: Bootstrap = None,
) -> None:
    """Verify a release and tell the workers of it.

    In shadow it makes lists that nobody sees, beside the live release's; as a canary a fixed share of the users see
    its lists. Where a guard is raised (errors, empty lists, scoring time, agreement, coverage, clicks, carts) it is
    withdrawn; where none is, it becomes live. The first release of all is live at once.

    Example: `mmrec release announce 20261124T064500Z-3f2a --share 0.05 --canary 3600`
    """
    from mmrec_stream.operations.rollouts import announce_release, read_state
    from mmrec_stream.ranking.inspection import inspect_release
    from mmrec_stream.releases.signing import trusted_keys

    settings = load_settings(bootstrap=bootstrap)
    folder = _folder(settings, release)
    inspect_release(folder, settings.provider, settings.scoring_threads, trusted_keys(settings))
    first = read_state(settings).live is None
    version = announce_release(settings, folder, stage=stage, share=share, shadow_s=shadow_s, canary_s=canary_s)
    at_once = first and stage != "live"
    typer.echo(f"{version} is announced: {stage}{', and live at once, as no other release is' if at_once else ''}")


@app.command()
def promote(
    version: Annotated[str | None, typer.Argument(help="Default: the release on trial.")] = None,
    to: Annotated[Literal["canary", "live"], typer.Option(help="Where to.")] = "live",
    reason: Why = "",
    bootstrap: Bootstrap = None,
) -> None:
    """Bring a release further than its guards have, by hand.

    Example: `mmrec release promote --to canary --reason 'seen enough'`
    """
    from mmrec_stream.operations.rollouts import set_stage

    before = set_stage(load_settings(bootstrap=bootstrap), version, to, reason)
    typer.echo(f"{before.version}: {before.stage} → {to}")


@app.command()
def rollback(
    version: Annotated[str | None, typer.Argument(help="Default: the release on trial, else the live one.")] = None,
    reason: Why = "",
    bootstrap: Bootstrap = None,
) -> None:
    """Withdraw a release: the one that was live before it serves again.

    Its folder must still lie where it was announced; workers keep the present one where it does not.

    Example: `mmrec release rollback --reason 'lists of shoes to everybody'`
    """
    from mmrec_stream.operations.rollouts import set_stage

    before = set_stage(load_settings(bootstrap=bootstrap), version, "withdrawn", reason)
    typer.echo(f"{before.version}: {before.stage} → withdrawn")


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="RELEASE", help="A version, or a folder.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="A version, or a folder.")],
) -> None:
    """Show where two releases differ: files by hash, sizes, encoders, metrics, products.

    Example: `mmrec release diff 20261124T064500Z-3f2a 20261125T064500Z-91c0`
    """
    from mmrec_stream.releases import load_release

    settings = load_settings()
    one, other = (load_release(_folder(settings, release)) for release in (first, second))
    mine, theirs = _facts(one.manifest), _facts(other.manifest)
    for name in mine | theirs:
        if mine.get(name) != theirs.get(name):
            typer.echo(f"{name:<16} {printable(mine.get(name, 'none'))} → {printable(theirs.get(name, 'none'))}")
    same = [name for name, entry in one.manifest.files.items() if other.manifest.files.get(name) == entry]
    typer.echo(f"{'same files':<16} {', '.join(same) or 'none'}")
    before, after = set(one.item_ids), set(other.item_ids)
    more, gone, both = len(after - before), len(before - after), len(before & after)
    typer.echo(f"{'products':<16} {more} more, {gone} gone, {both} in both")


def _folder(settings: "Settings", release: str) -> Path:
    """The folder of a version, or a folder.

    Raises:
        UserError: there is neither.
    """
    kept = settings.releases_dir / release
    folder = kept if kept.is_dir() else Path(release)
    if not folder.is_dir():
        raise UserError(
            f"no release {printable(release)}: no such folder, and none of that name in {settings.releases_dir}"
        )
    return folder


def _facts(manifest: "Manifest") -> dict[str, str]:
    from mmrec_stream.releases.folder import OPTIONAL, RERANKER

    size, data = manifest.dimensions, manifest.data
    return {
        "version": manifest.version,
        "created": _time(manifest.created),
        "format": f"{manifest.format}, opset {manifest.opset}, {manifest.compression}",
        "size": f"{size.items} products, vectors of {size.vector}, {size.neighbours} neighbours, "
        f"histories of {size.history}",
        "tables": ", ".join(name.removesuffix(".npy") for name in OPTIONAL if name in manifest.files) or "none",
        "re-ranker": "yes" if RERANKER in manifest.files else "none",
        "encoders": ", ".join(f"{name}: {encoder}" for name, encoder in manifest.encoders.items()),
        "users": manifest.user_encoder,
        "fusion": manifest.fusion,
        "alpha": ", ".join(f"{one.alpha:.2f} from {one.min_history} events" for one in manifest.alpha),
        "trained on": f"{data.events} events of {data.users} users, to {_time(data.last)}",
        **{name: f"{value:.4f}" for name, value in manifest.metrics.items()},
        "bytes": f"{sum(entry.size for entry in manifest.files.values()):,}",
    }


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
