"""Smaller and faster variants of a release: the same model with 16-bit or 8-bit weights, and what they cost and gain.

fp16 halves the graphs' weights on disk; they are widened when the graph is loaded, so that results stay within a
thousandth and speed stays the same on a CPU. int8 quantises matrix products and the LSTM, their weights per channel and
their inputs as they come, stores embeddings as int8 and everything else as fp16 does. Weights of products have seven
bits, −64 to 64: inputs have eight, processors without VNNI add two products in 16 bits, and 2 · 255 · 64 fits. ONNX
Runtime has no quantised GRU, and users by items, the ranker's largest product, has no weights: both are computed in
float32.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.splits import Cases
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation import metrics
from mmrec_stream.evaluation.metrics import Lists
from mmrec_stream.evaluation.serving import serve
from mmrec_stream.ranking.scorer import TABLE_INPUTS, Scorer
from mmrec_stream.ranking.types import blank_features
from mmrec_stream.releases import folder, release_files, verify_release, write_release
from mmrec_stream.releases.manifest import Compression
from model_export.export import Arrays, quiet, serialize
from model_export.gate import PLACES
from model_export.release import golden_outputs, npz_bytes

SMALL = 256
"""Weights with fewer values stay as they are: biases and scales are sensitive, and weigh nothing."""

COMPARED = 20
"""Places of the lists that variants are compared by: what a shop shows on a page."""

MOST_ENCODED = 2_000
"""Items whose likeness is compared; more take seconds and change no digit."""

TIMED_BATCHES = (1, 64)
TIMED_RUNS = 60
"""Runs whose lower quartile is the time: other processes only ever add to it, and a quarter of the runs is steady
within a few per cent."""


@dataclass(frozen=True)
class Measured:
    """What a release is worth and what it takes, graph by graph."""

    ndcg: float
    """NDCG@10 on the given cases."""
    lists: Lists
    """The lists for the cases, (cases, `COMPARED`)."""
    alike: Lists
    """The items that resemble each by its encoded vector, (items, `COMPARED`)."""
    us_per_user: dict[int, float]
    """Microseconds a user in the ranker, by batch size, with histories of full length."""
    us_per_item: dict[int, float]
    """Microseconds an item in the encoder, by batch size."""
    graph_bytes: dict[str, int]
    """By file name."""

    def overlap(self, other: "Measured") -> tuple[float, float]:
        """Mean share of list places, and of places among the alike, whose item another release has there too."""
        return _shared(self.lists, other.lists), _shared(self.alike, other.alike)

    def metrics(self, full: "Measured") -> dict[str, float]:
        """All figures for the manifest, beside a release of full precision."""
        lists, alike = self.overlap(full)
        ranker, encoder = self.graph_bytes[folder.RANKER], self.graph_bytes[folder.ITEM_ENCODER]
        return {
            "variant ndcg@10": self.ndcg,
            "variant ndcg@10, fp32": full.ndcg,
            f"variant top-{COMPARED} overlap with fp32": lists,
            f"variant nearest-{COMPARED} overlap with fp32": alike,
            "variant ranker bytes": ranker,
            "variant item encoder bytes": encoder,
            **{f"variant us a user, {batch} at once": us for batch, us in self.us_per_user.items()},
            **{f"variant us an item, {batch} at once": us for batch, us in self.us_per_item.items()},
        }


def compress_and_measure(
    path: Path, compression: Compression, store: Path, full: Measured, measured: Callable[[Path], Measured]
) -> tuple[Path, Measured]:
    """Write a variant of a release into `store`, with what it is worth and takes in its manifest.

    Args:
        path: A release of full precision.
        compression: `fp16` or `int8`.
        store: Where the variant goes.
        full: What the release itself is worth.
        measured: `measure` on the same data.

    Raises:
        UserError: As of `compress_release`, or there is such a variant already.
    """
    store.mkdir(parents=True, exist_ok=True)
    # Under a hidden name until it is measured: nobody takes it for a release before.
    with tempfile.TemporaryDirectory(prefix=".variant-", dir=store) as scratch:
        candidate = compress_release(path, compression, Path(scratch))
        found = measured(candidate)
        manifest = verify_release(candidate)
        files = release_files(candidate)
    told = msgspec.structs.replace(manifest, metrics=manifest.metrics | found.metrics(full))
    write_release(store / manifest.version, files, told)
    return store / manifest.version, found


def compress_release(path: Path, compression: Compression, store: Path) -> Path:
    """Write a variant of a release beside it, as a release of its own named after it.

    Args:
        path: A release of full precision.
        compression: `fp16` or `int8`.
        store: Where the variant goes.

    Returns:
        The variant's folder.

    Raises:
        UserError: The release is a variant already, or does not verify.
    """
    manifest = verify_release(path)
    if compression == "fp32" or manifest.compression != "fp32":
        raise UserError(f"{path} is {manifest.compression}; give a release of fp32, and fp16 or int8 as the goal")
    files = release_files(path)
    change = halved if compression == "fp16" else quantised
    graphs = {name: change(onnx.load_from_string(files[name])) for name in folder.GRAPHS}
    files |= {name: serialize(graph) for name, graph in graphs.items()}
    files[folder.GOLDEN] = npz_bytes(_golden(path, files))
    version = f"{manifest.version}-{compression}"
    variant = msgspec.structs.replace(manifest, version=version, compression=compression)
    write_release(store / version, files, variant)
    return store / version


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its large float32 weights stored as float16, each widened by a Cast."""
    graph = model.graph
    casts = []
    for weight in list(graph.initializer):
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        half = f"{weight.name}.fp16"
        casts.append(helper.make_node("Cast", [half], [weight.name], name=f"{weight.name}.cast", to=TensorProto.FLOAT))
        graph.initializer.remove(weight)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), half))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with MatMul, Gemm and LSTM in integers, embeddings as int8, and the other weights halved."""
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in model.graph.initializer}
    small = [node.name for node in model.graph.node if node.op_type == "Gather" and sizes.get(node.input[0], 0) < SMALL]
    with tempfile.TemporaryDirectory() as scratch, quiet():
        source, target = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM", "Gather"],
            nodes_to_exclude=small,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        changed = onnx.load(target)
    changed.producer_name, changed.producer_version = "mmrec-stream", ""
    return halved(changed)


def measure(path: Path, dataset: Dataset, cases: Cases, threads: int = 1) -> Measured:
    """Quality and speed of a release on this machine, on its CPU.

    Raises:
        UserError: The release cannot be loaded.
    """
    scorer = Scorer.load(path, provider="cpu", threads=threads)
    rng = np.random.default_rng(0)
    catalogue = dataset.catalogue or [CatalogueItem(item_id=item_id) for item_id in dataset.item_ids]
    users, items = {}, {}
    for batch in TIMED_BATCHES:
        features = blank_features(batch, scorer.max_history)
        features.history_rows[:] = rng.integers(0, len(scorer.table), features.history_rows.shape)
        users[batch] = _usual_us(partial(scorer.run, features, COMPARED)) / batch
        items[batch] = _usual_us(partial(scorer.encode, catalogue[:batch])) / min(batch, len(catalogue))
    lists = serve(scorer, dataset, cases, COMPARED)
    found = metrics.hits(lists, cases.targets)
    return Measured(
        float(metrics.ndcg(found, cases.targets, PLACES).mean()),
        lists,
        _alike(scorer.encode(catalogue[:MOST_ENCODED])),
        users,
        items,
        {name: scorer.release.manifest.files[name].size for name in (folder.RANKER, folder.ITEM_ENCODER)},
    )


def _alike(vectors: NDArray[np.float32]) -> Lists:
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    order = np.arange(len(unit))
    return metrics.top_lists(unit @ unit.T, COMPARED, list(order[:, None]), order)


def _shared(one: Lists, other: Lists) -> float:
    """Mean share of the rows' items that the same row of another array has, padding left out."""
    there = one >= 0
    same = (one[:, :, None] == other[:, None, :]).any(axis=2) & there
    return float(same.sum() / max(there.sum(), 1))


def _usual_us(run: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return float(np.quantile(times, 0.25)) * 1e6


def _golden(path: Path, files: dict[str, bytes]) -> Arrays:
    """The release's golden inputs with the outputs that the changed graphs give for them."""
    with np.load(path / folder.GOLDEN, allow_pickle=False) as archive:
        known: Arrays = {name: archive[name] for name in archive.files}
    table: Arrays = {
        name: np.load(path / file, allow_pickle=False)
        for name, file in zip(
            TABLE_INPUTS, (folder.ITEM_VECTORS, folder.NEIGHBOURS, folder.NEIGHBOUR_WEIGHTS), strict=False
        )
    }
    table["available"] = np.ones(len(table["item_vectors"]), dtype=bool)
    inputs = {name: value for name, value in known.items() if "/in/" in name}
    return inputs | golden_outputs(inputs, table, files)
