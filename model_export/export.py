"""Export to ONNX: every graph with every varying dimension left open, checked against PyTorch at other sizes."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from mmrec_stream.errors import UserError
from mmrec_stream.profiles.record import AFFINITIES, PRICE_BANDS, TYPE_SLOTS, WINDOWS_MS
from mmrec_stream.ranking.content import Content
from mmrec_stream.ranking.reranking import NAMES
from mmrec_stream.ranking.scorer import ALPHAS, OUTPUTS
from mmrec_stream.ranking.users import Users
from mmrec_stream.releases.manifest import Signature
from mmrec_stream.releases.manifest import Tensor as TensorSpec
from model_export.items import ContentEncoder
from model_export.ranker import Ranker, Request, Table
from model_export.reranker import Network

OPSET = 20
"""The newest operator set that ONNX Runtime runs all of this graph in: 23 and 24 fail at run time."""

TRACED_LENGTH = 2
"""Length of the sequences that are traced. The tracer walks through recurrent layers step by step, so that each step
costs time, and 1 would be taken for a constant."""

PARITY = 1e-4
"""Largest difference from PyTorch that is put down to the order of summation."""

TRACED = (3, TRACED_LENGTH, 50, 4)
"""(batch, length, items, excluded) of the example that is traced: all different, as equal ones may be taken for one."""

SHAPES = ((1, 1, 40, 0), (2, 3, 90, 1), (5, 17, 64, 4), (16, 50, 301, 2))
"""(batch, length, items, excluded) at which the exported ranker is compared with PyTorch."""

Arrays = dict[str, NDArray[np.generic]]
Dims = Sequence[int | str]

RANKER_SHAPES: dict[str, Dims] = {
    "history_rows": ("batch", "length"),
    "history_types": ("batch", "length"),
    "history_ages": ("batch", "length"),
    "lengths": ("batch",),
    "categories": ("batch", AFFINITIES),
    "category_weights": ("batch", AFFINITIES),
    "brands": ("batch", AFFINITIES),
    "brand_weights": ("batch", AFFINITIES),
    "price_bands": ("batch", PRICE_BANDS),
    "type_counts": ("batch", len(WINDOWS_MS), TYPE_SLOTS),
    "excluded": ("batch", "excluded"),
    "item_vectors": ("items", "dim"),
    "neighbours": ("items", "K"),
    "neighbour_weights": ("items", "K"),
    "available": ("items",),
    "k": (1,),
}

_OUTPUT_SHAPES: dict[str, Dims] = dict.fromkeys(OUTPUTS[:-1], ("batch", "k")) | {
    "alpha": ("batch",),
    "user_vectors": ("batch", "dim"),
    "association_rows": ("batch", "associations"),
    "association_weights": ("batch", "associations"),
}

_EXPORTED = tuple(_OUTPUT_SHAPES)
"""In the order of `Ranker.forward`."""


class RankerGraphs(NamedTuple):
    """The ranker whole, and the part of it that is about users alone."""

    ranker: onnx.ModelProto
    user_encoder: onnx.ModelProto


def export_ranker(ranker: Ranker, dim: int, neighbours: int, history: int) -> RankerGraphs:
    """The ranker as graphs whose batch, length, items, exclusions and k are open; compared with PyTorch.

    Args:
        ranker: What to export.
        dim: Width of the vectors.
        neighbours: Neighbours of an item.
        history: Longest history that the ranker takes.

    Raises:
        UserError: The graph gives other results than PyTorch.
    """
    ranker = ranker.cpu().eval()
    rng = np.random.default_rng(0)
    example = random_inputs(rng, TRACED, dim, neighbours, ranker)
    names = [*Request._fields, *Table._fields]
    model = _export(ranker, [example[name] for name in names], names, _EXPORTED, RANKER_SHAPES, {"k": 5})
    _open_k(model)
    _rename_initializer(model, "module.alphas", ALPHAS)
    shapes = {
        name: tuple({"dim": dim, "K": neighbours}.get(str(d), d) for d in dims) for name, dims in RANKER_SHAPES.items()
    }
    fixed = {"dim": dim, "associations": ranker.recent * neighbours}
    results = {name: tuple(fixed.get(str(d), d) for d in dims) for name, dims in _OUTPUT_SHAPES.items()}
    _name_dimensions(model, shapes, results)
    graphs = RankerGraphs(_part(model, OUTPUTS), _part(model, Users._fields))
    _make_settable(graphs.ranker, ALPHAS)
    sessions = [session_of(serialize(graph)) for graph in graphs]
    for batch, length, items, excluded in SHAPES:
        shape = (batch, min(length, history), items, excluded)
        inputs = random_inputs(rng, shape, dim, neighbours, ranker)
        k = min(7, shape[2])
        with torch.no_grad():
            expected = dict(
                zip(_EXPORTED, ranker(*(torch.from_numpy(inputs[name]) for name in names), k=k), strict=True)
            )
        inputs["k"] = np.array([k])
        for session, outputs in zip(sessions, (OUTPUTS, Users._fields), strict=True):
            read = {tensor.name: inputs[tensor.name] for tensor in session.get_inputs()}
            found = dict(zip(outputs, session.run(list(outputs), read), strict=True))
            _compare(f"ranker at {shape}", found, {name: expected[name] for name in outputs})
    return graphs


def export_item_encoder(encoder: ContentEncoder, content: Content) -> onnx.ModelProto:
    """The item encoder as a graph with an open number of items; compared with PyTorch on the catalogue's content.

    Raises:
        UserError: The graph gives other results than PyTorch.
    """
    encoder = encoder.cpu().eval()
    feed = content.feed()
    names = list(encoder.inputs)
    shapes: dict[str, Dims] = {name: ("items", *feed[name].shape[1:]) for name in names}
    if "tokens" in shapes:
        shapes["tokens"] = ("items", "words")
    example = {name: feed[name][np.arange(5) % len(content)] for name in names}
    if "tokens" in example:
        # Where no text has two words, the second is padding.
        example["tokens"] = np.pad(example["tokens"], ((0, 0), (0, 1)))[:, :TRACED_LENGTH]
    model = _export(encoder, [example[name] for name in names], names, ["vectors"], shapes)
    _name_dimensions(model, shapes, {"vectors": ("items", encoder.items.dim)})
    session = session_of(serialize(model))
    for count in (1, 2, 33):
        rows = np.arange(count) % len(content)
        inputs = {name: feed[name][rows] for name in names}
        if "tokens" in inputs:
            inputs["tokens"] = inputs["tokens"][:, : max(1, count % 7)]
        with torch.no_grad():
            expected = encoder(*(torch.from_numpy(inputs[name]) for name in names))
        _compare(f"item encoder at {count}", {"vectors": session.run(None, inputs)[0]}, {"vectors": expected})
    return model


def export_reranker(network: Network) -> onnx.ModelProto:
    """The re-ranker as a graph with open numbers of lists and candidates; compared with PyTorch.

    Raises:
        UserError: The graph gives other results than PyTorch.
    """
    rng = np.random.default_rng(0)
    shape: Dims = ("batch", "candidates", len(NAMES))

    def random_features(batch: int, candidates: int) -> NDArray[np.float32]:
        return rng.normal(0, 2, (batch, candidates, len(NAMES))).astype(np.float32)

    model = _export(network, [random_features(3, 5)], ["features"], ["logits"], {"features": shape})
    _name_dimensions(model, {"features": shape}, {"logits": shape[:2]})
    session = session_of(serialize(model))
    for batch, candidates in ((1, 1), (2, 100), (16, 7)):
        features = random_features(batch, candidates)
        with torch.no_grad():
            expected = network(torch.from_numpy(features))
        found = {"logits": session.run(["logits"], {"features": features})[0]}
        _compare(f"re-ranker at {batch} × {candidates}", found, {"logits": expected})
    return model


def serialize(model: onnx.ModelProto) -> bytes:
    """The model's bytes, the same for the same model."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def session_of(model: bytes) -> ort.InferenceSession:
    """A session on one thread of the CPU, so that results are the same whatever the number of cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Without its warning that a weight may be given another value.
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def signature(model: onnx.ModelProto) -> Signature:
    """Inputs that must be given, and outputs, for the manifest."""
    weights = {weight.name for weight in model.graph.initializer}
    return Signature(
        inputs=[_tensor(value) for value in model.graph.input if value.name not in weights],
        outputs=[_tensor(value) for value in model.graph.output],
    )


def random_inputs(
    rng: np.random.Generator, shape: tuple[int, int, int, int], dim: int, neighbours: int, ranker: Ranker
) -> Arrays:
    """Inputs of the ranker, without k, for (batch, length, items, excluded), with all its edge cases at random."""
    batch, length, items, excluded = shape
    side = ranker.users.side
    draw: dict[str, NDArray[Any]] = {
        "history_rows": rng.integers(0, items, (batch, length)),
        "history_types": rng.integers(1, TYPE_SLOTS, (batch, length)),
        "history_ages": np.sort(rng.exponential(1e5, (batch, length)))[:, ::-1],
        "lengths": rng.integers(1, length + 1, batch),
        "categories": rng.integers(0, side.categories.num_embeddings, (batch, AFFINITIES)),
        "category_weights": rng.random((batch, AFFINITIES)) * rng.integers(0, 2, (batch, 1)),
        "brands": rng.integers(0, side.brands.num_embeddings, (batch, AFFINITIES)),
        "brand_weights": rng.random((batch, AFFINITIES)),
        "price_bands": rng.random((batch, PRICE_BANDS)),
        "type_counts": rng.exponential(3, (batch, len(WINDOWS_MS), TYPE_SLOTS)),
        "excluded": rng.integers(-1, items, (batch, excluded)),
        "item_vectors": rng.normal(0, 0.3, (items, dim)),
        "neighbours": rng.integers(-1, items, (items, neighbours)).astype(np.int32),
        "neighbour_weights": rng.random((items, neighbours)) / neighbours,
        "available": rng.random(items) > 0.1,
    }
    draw["neighbour_weights"][draw["neighbours"] < 0] = 0.0
    return {
        name: np.ascontiguousarray(array.astype(np.float32) if array.dtype == np.float64 else array)
        for name, array in draw.items()
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Exporter and quantiser print and warn about their own internals; what matters is checked afterwards."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _export(
    module: nn.Module,
    example: Sequence[NDArray[np.generic]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, Dims],
    constants: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Trace, with every dimension that has a name in `shapes` left open, and strip what does not compute."""
    # AUTO lets the tracer find which open dimensions are equal; a name of our own would have to be right beforehand.
    varying = tuple(
        {
            axis: torch.export.Dim.AUTO
            for axis, size in enumerate(shapes[name])
            if isinstance(size, str) and size not in ("dim", "K")
        }
        for name in inputs
    )
    module.eval()
    with quiet():
        program = torch.onnx.export(
            _Positional(module, dict(constants or {})),
            tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in example),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(varying,),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - with dynamo=True there is always one
    model: onnx.ModelProto = program.model_proto
    # Metadata holds absolute paths of this machine's sources; docs and shapes of inner values are of no use either.
    for holder in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.initializer,
        *model.graph.input,
        *model.graph.output,
    ):
        holder.doc_string = ""
        del holder.metadata_props[:]
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "mmrec-stream", ""
    return model


class _Positional(nn.Module):
    """The module with its keyword constants bound, as the tracer follows positional tensors only."""

    def __init__(self, module: nn.Module, constants: dict[str, int]) -> None:
        super().__init__()
        self.module, self.constants = module, constants

    def forward(self, *arrays: Tensor) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = self.module(*arrays, **self.constants)
        return result


def _rename_initializer(model: onnx.ModelProto, name: str, wanted: str) -> None:
    """Give a weight a name of its own, by which a run can be given another value."""
    (found,) = [weight for weight in model.graph.initializer if weight.name == name]
    found.name = wanted
    for node in model.graph.node:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = wanted


def _make_settable(model: onnx.ModelProto, name: str) -> None:
    """List a weight among the inputs too: then it is what counts unless a run is given another value."""
    (weight,) = (weight for weight in model.graph.initializer if weight.name == name)
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, weight.data_type, list(weight.dims)))
    onnx.checker.check_model(model, full_check=True)


def _part(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """What of a graph leads to some of its outputs."""
    wanted = set(outputs)
    nodes: list[onnx.NodeProto] = []
    for node in reversed(model.graph.node):  # a graph's nodes are in the order of their running
        if wanted.intersection(node.output):
            wanted.update(node.input)
            nodes.append(node)
    part = onnx.ModelProto()
    part.CopyFrom(model)
    for kept, values in (
        (part.graph.node, nodes[::-1]),
        (part.graph.input, [value for value in model.graph.input if value.name in wanted]),
        (part.graph.initializer, [value for value in model.graph.initializer if value.name in wanted]),
        (part.graph.output, [value for name in outputs for value in model.graph.output if value.name == name]),
    ):
        del kept[:]
        kept.extend(values)
    onnx.checker.check_model(part, full_check=True)
    return part


def _open_k(model: onnx.ModelProto) -> None:
    """Make the number of places of the one TopK an input of the graph."""
    (topk,) = (node for node in model.graph.node if node.op_type == "TopK")
    (placeholder,) = (value for value in model.graph.initializer if value.name == topk.input[1])
    model.graph.initializer.remove(placeholder)
    topk.input[1] = "k"
    model.graph.input.append(onnx.helper.make_tensor_value_info("k", TensorProto.INT64, [1]))


def _name_dimensions(model: onnx.ModelProto, inputs: Mapping[str, Dims], outputs: Mapping[str, Dims]) -> None:
    """Give inputs and outputs our names of dimensions, after asserting that none of the open ones was frozen."""
    for values, shapes in ((model.graph.input, inputs), (model.graph.output, outputs)):
        for value in values:
            dims = value.type.tensor_type.shape.dim
            for dim, wanted in zip(dims, shapes[value.name], strict=True):
                if isinstance(wanted, str) and wanted != "k" and dim.HasField("dim_value"):
                    raise UserError(
                        f"export froze dimension {wanted} of {value.name} at {dim.dim_value}; "
                        "this version of PyTorch cannot export the model"
                    )
            elements = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, elements, list(shapes[value.name])))
    onnx.checker.check_model(model, full_check=True)


def _compare(what: str, found: Mapping[str, NDArray[np.generic]], expected: Mapping[str, Tensor]) -> None:
    for name, tensor in expected.items():
        wanted = tensor.numpy()
        if name == "rows":
            # Rows may differ where their scores are tied to the last digit.
            ties = np.abs(found["scores"] - expected["scores"].numpy()) <= PARITY
            same = found["rows"].shape == wanted.shape and bool(ties.all())
            same = same and float(np.mean(np.sort(found["rows"], 1) == np.sort(wanted, 1))) > 0.98
        else:
            same = found[name].shape == wanted.shape and bool(np.allclose(found[name], wanted, rtol=1e-3, atol=PARITY))
        if not same:
            raise UserError(f"{what}: ONNX Runtime's {name} differs from PyTorch's; do not use this export")


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)),
        shape=[dim.dim_param or dim.dim_value for dim in kind.shape.dim],
    )
