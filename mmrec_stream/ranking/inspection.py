"""A release looked at as a worker does before it serves, with what was found in words."""

from pathlib import Path
from typing import Literal

import onnxruntime as ort

from mmrec_stream.errors import UserError
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases.folder import GRAPHS, MANIFEST, RERANKER, Expected, Release, signer_of
from mmrec_stream.releases.signing import PublicKeys


def inspect_release(
    path: Path, provider: Literal["auto", "cpu", "cuda"], threads: int, keys: PublicKeys | None = None
) -> list[str]:
    """Check a release whole, and say what was checked.

    Args:
        path: its folder.
        provider: where to run it.
        threads: of one run.
        keys: of which one must have signed it; None where none is asked for.

    Raises:
        UserError: a worker would refuse it; says why.
    """
    scorer = Scorer.load(path, provider=provider, threads=threads, expected=Expected(keys=keys))
    manifest = scorer.release.manifest
    reranked = scorer.reranker is not None
    signed = "" if keys is None else f", signed with key {signer_of(path, (path / MANIFEST).read_bytes(), keys)}"
    return [
        f"{manifest.version}: {len(manifest.files)} files, every size and sha256 as its manifest says{signed}",
        f"format {manifest.format}, opset {manifest.opset}, {manifest.dimensions.items} products",
        *(_graph(scorer.release, name) for name in (*GRAPHS, *([RERANKER] if reranked else []))),
        f"golden outputs come out the same on {scorer.device.upper()}: lists, both halves alone, item vectors"
        + (", re-ranking" if reranked else ""),
    ]


def _graph(release: Release, name: str) -> str:
    """See that a graph is what the manifest says, and that its sizes may vary."""
    session = ort.InferenceSession(str(release.path / name), providers=["CPUExecutionProvider"])
    said = release.manifest.graphs.get(name.removesuffix(".onnx"))
    if said is None:
        raise UserError(f"release {release.path}: its manifest does not describe {name}; export it again")
    found = {tensor.name: list(tensor.shape) for tensor in session.get_inputs()}
    if set(found) != {tensor.name for tensor in said.inputs}:
        raise UserError(f"release {release.path}: {name} has other inputs than its manifest says; export it again")
    varying = sorted({size for tensor in said.inputs for size in tensor.shape if isinstance(size, str)})
    if not varying:
        raise UserError(f"release {release.path}: {name} takes one size of batch only; export it with dynamic shapes")
    return f"{name}: {len(said.inputs)} inputs, {len(said.outputs)} outputs, varying in {', '.join(varying)}"
