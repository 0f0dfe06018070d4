"""`mmrec doctor`: checks the installation and the cluster, and says what to do about each finding."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from mmrec_stream.cli.options import AsJson, Bootstrap
from mmrec_stream.settings import Settings, load_settings

if TYPE_CHECKING:
    from mmrec_stream.operations.findings import Finding

PACKAGES = ("faust-streaming", "confluent-kafka", "msgspec", "numpy", "numba", "scipy", "pyarrow")
"""What the stream stands on; ONNX Runtime has names of its own."""

RUNTIMES = ("onnxruntime-gpu", "onnxruntime")


def doctor(
    sample: Annotated[int, typer.Option(min=1, max=100_000, help="Newest records looked at in each partition.")] = 500,
    as_json: AsJson = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Check this installation and the cluster, and say what to do about each finding.

    Looks at package versions, the processor's instruction sets, whether CUDA really works, broker and topics, whether
    every behaviour topic, your own ones included, has the same partitions and its events on the partition of their
    user, the live release and the one on trial, the workers' lag, and dead letters. Changes nothing. Ends with status 1
    when something is broken.

    Example: `MMREC_BEHAVIOUR_TOPICS=shop.clicks mmrec doctor --sample 2000`
    """
    from rich.console import Console
    from rich.markup import escape

    from mmrec_stream.cli.text import printable
    from mmrec_stream.operations.findings import Level
    from mmrec_stream.operations.health import cluster_findings

    settings = load_settings(bootstrap=bootstrap)
    console = Console(soft_wrap=True)
    marks = {Level.OK: "[green]ok    [/]", Level.NOTE: "[yellow]note  [/]", Level.BROKEN: "[red]broken[/]"}
    broken = 0
    for finding in chain(installation_findings(settings), cluster_findings(settings, sample)):
        broken += finding.level is Level.BROKEN
        if as_json:
            _write_json(finding)
            continue
        text = f"{marks[finding.level]} [bold]{escape(finding.check)}[/]: {escape(printable(finding.detail))}"
        console.print(text, highlight=False)
        if finding.remedy:
            console.print(f"       → {escape(finding.remedy)}", highlight=False)
    if broken:
        raise typer.Exit(1)


def installation_findings(settings: Settings, packages: tuple[str, ...] = PACKAGES) -> "Iterator[Finding]":
    """Check what is here: packages, processor, ONNX Runtime, what an approximate index needs, the data folder."""
    from mmrec_stream.operations.findings import Finding, Level

    found, missing = _versions(packages)
    python = ".".join(map(str, sys.version_info[:3]))
    if missing:
        yield Finding(Level.BROKEN, "packages", f"missing: {', '.join(missing)}", "install mmrec-stream again with pip")
    else:
        yield Finding(Level.OK, "packages", f"Python {python}, {', '.join(found)}")
        yield _processor()
    yield _runtime(settings)
    if settings.retrieval == "approximate":
        yield from _faiss()
    yield _data_dir(settings)


def _processor() -> "Finding":
    """Told and not judged: results are the same on all, but for their last digits, and speed is not."""
    from mmrec_stream.operations.findings import Finding, Level
    from mmrec_stream.processor import kernels, these_instruction_sets, this_processor

    sets = ", ".join(these_instruction_sets()) or "no instruction sets that matter"
    chosen = ", ".join(f"{library} for {target}" for library, target in kernels().items())
    return Finding(Level.OK, "processor", f"{os.cpu_count()} cores of {this_processor()}, {sets}; {chosen}")


def _runtime(settings: Settings) -> "Finding":
    from mmrec_stream.operations.findings import Finding, Level

    found, _ = _versions(RUNTIMES)
    if not found:
        return Finding(Level.BROKEN, "ONNX Runtime", "not installed", "install mmrec-stream again with pip")
    try:
        from mmrec_stream.ranking.providers import cuda_failure

        failure = cuda_failure()
    except ImportError as error:
        return Finding(
            Level.BROKEN, "ONNX Runtime", f"cannot be loaded: {error}", "install mmrec-stream again with pip"
        )
    if failure is None:
        used = "CPU, as MMREC_PROVIDER=cpu says" if settings.provider == "cpu" else "CUDA, by a test run"
        return Finding(Level.OK, "ONNX Runtime", f"{', '.join(found)}; models run on {used}")
    if settings.provider == "cuda":
        return Finding(
            Level.BROKEN,
            "ONNX Runtime",
            f"MMREC_PROVIDER=cuda, and CUDA does not work: {failure}",
            "put the driver right, or set MMREC_PROVIDER=auto",
        )
    return Finding(Level.OK, "ONNX Runtime", f"{', '.join(found)}; models run on the CPU (CUDA: {failure})")


def _faiss() -> "Iterator[Finding]":
    from mmrec_stream.errors import UserError
    from mmrec_stream.operations.findings import Finding, Level
    from mmrec_stream.ranking.approximate import load_faiss

    try:
        load_faiss()
    except UserError as error:
        remedy = "pip install 'mmrec-stream[ann]', or set MMREC_RETRIEVAL=auto"
        yield Finding(Level.BROKEN, "retrieval", f"MMREC_RETRIEVAL=approximate: {error}", remedy)


def _data_dir(settings: Settings) -> "Finding":
    from mmrec_stream.operations.findings import Finding, Level

    folder = settings.data_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(Level.BROKEN, "data folder", f"{folder} cannot be written", "set MMREC_DATA_DIR")
    return Finding(Level.OK, "data folder", str(folder))


def _versions(packages: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Installed packages with their versions, and those that are missing."""
    found, missing = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    return found, missing


def _write_json(finding: "Finding") -> None:
    import msgspec

    sys.stdout.write(msgspec.json.encode(finding).decode() + "\n")
