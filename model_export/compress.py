"""Smaller and faster variants of a release: the same model with 16-bit or 8-bit weights, and what they cost and gain.

fp16 halves the graphs' weights on disk; they are widened when the graph is loaded, so that results stay within a
thousandth and speed stays the same on a CPU. int8 quantises the weights of matrix products and of the LSTM per channel
and their inputs as they come, which also saves time where such products dominate.
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
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mmrec_stream.errors import UserError
from mmrec_stream.evaluation.dataset import Dataset
from mmrec_stream.evaluation.splits import Cases
from mmrec_stream.ranking.scorer import TABLE_INPUTS, Scorer, blank_features
from mmrec_stream.releases import folder, verify_release, write_release
from mmrec_stream.releases.manifest import Compression
from model_export.export import Arrays, quiet, serialize
from model_export.gate import judge_release
from model_export.release import golden_outputs, npz_bytes

SMALL = 256
"""Weights with fewer values stay as they are: biases and scales are sensitive, and weigh nothing."""

TIMED_BATCHES = (1, 64)
TIMED_RUNS = 30
"""Runs whose median is the time: a few milliseconds of measuring, and steady within a few per cent."""


@dataclass(frozen=True)
class Measured:
    """What a release is worth and what it takes."""

    ndcg: float
    """NDCG@10 on the given cases."""
    us_per_user: dict[int, float]
    """Microseconds a user, by batch size, with histories of full length."""
    us_per_item: float
    """Microseconds to encode one item, 64 at a time."""
    graph_bytes: int


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
    files = {name: (path / name).read_bytes() for name in folder.FILES}
    change = halved if compression == "fp16" else quantised
    graphs = {name: change(onnx.load_from_string(files[name])) for name in (folder.RANKER, folder.ITEM_ENCODER)}
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
    """The graph with weights of MatMul, Gemm and LSTM as int8, per channel."""
    with tempfile.TemporaryDirectory() as scratch, quiet():
        source, target = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "LSTM"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        small = onnx.load(target)
    small.producer_name, small.producer_version = "mmrec-stream", ""
    return small


def measure(path: Path, dataset: Dataset, cases: Cases, threads: int = 1) -> Measured:
    """Quality and speed of a release on this machine, on its CPU.

    Raises:
        UserError: The release cannot be loaded.
    """
    scorer = Scorer.load(path, provider="cpu", threads=threads)
    rng = np.random.default_rng(0)
    times = {}
    for batch in TIMED_BATCHES:
        features = blank_features(batch, scorer.max_history)
        features.history_rows[:] = rng.integers(0, len(scorer.table), features.history_rows.shape)
        times[batch] = _median_us(partial(scorer.run, features, 20)) / batch
    catalogue = (dataset.catalogue or ())[:64]
    encode = _median_us(partial(scorer.encode, catalogue)) / max(len(catalogue), 1)
    manifest = scorer.release.manifest
    size = sum(manifest.files[name].size for name in (folder.RANKER, folder.ITEM_ENCODER))
    return Measured(float(judge_release(scorer, dataset, cases).mean()), times, encode, size)


def _median_us(run: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e6


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
