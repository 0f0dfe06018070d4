"""The graph of `mmrec_stream/ranking/exact.onnx`: int8 scan of all items, fp32 re-score of the best groups.

`python -m model_export.retrieval_graph` writes the file; it depends on neither data nor model.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

import mmrec_stream.ranking.exact as exact
from mmrec_stream.ranking.exact import CHUNK, GRAPH, GROUP

OPSET, IR = 20, 10


def retrieval_graph() -> onnx.ModelProto:
    """The model; inputs and outputs as `mmrec_stream.ranking.exact` describes them."""
    scan = helper.make_graph(
        [
            helper.make_node("MatMulInteger", ["codes", "chunk", "zero_point"], ["products"]),
            helper.make_node("Reshape", ["products", "lanes_first"], ["lanes"]),
            helper.make_node("ReduceMax", ["lanes", "lane_axis"], ["best_of_group"], keepdims=0),
        ],
        "scan",
        [_tensor("chunk", TensorProto.INT8, ["d", CHUNK])],
        [_tensor("best_of_group", TensorProto.INT32, ["batch", CHUNK // GROUP])],
        initializer=[
            _constant("lanes_first", np.array([0, GROUP, CHUNK // GROUP], np.int64)),
            _constant("lane_axis", np.array([1], np.int64)),
        ],
    )
    nodes = [
        # Query codes: per user, 255 steps around 128. The item's step per dimension goes into the query.
        helper.make_node("Mul", ["queries", "steps"], ["stepped"]),
        helper.make_node("Abs", ["stepped"], ["sizes"]),
        helper.make_node("ReduceMax", ["sizes", "axis_1"], ["largest"], keepdims=1),
        helper.make_node("Max", ["largest", "tiny"], ["range"]),
        helper.make_node("Div", ["stepped", "range"], ["unit"]),
        helper.make_node("Mul", ["unit", "levels"], ["wide"]),
        helper.make_node("Round", ["wide"], ["whole"]),
        helper.make_node("Add", ["whole", "centre"], ["shifted"]),
        helper.make_node("Cast", ["shifted"], ["codes"], to=TensorProto.UINT8),
        # The best product of each group, chunk by chunk, so that products stay in the cache.
        helper.make_node("Scan", ["scan"], ["by_chunk"], body=scan, num_scan_inputs=1),
        helper.make_node("Transpose", ["by_chunk"], ["by_user"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["by_user", "flat"], ["group_best"]),
        # How many groups are looked into: one for each place and each excluded item, half as many again, and a few.
        helper.make_node("Shape", ["excluded"], ["e"], start=1, end=2),
        helper.make_node("Add", ["k", "e"], ["wanted"]),
        helper.make_node("Mul", ["wanted", "three"], ["thrice"]),
        helper.make_node("Div", ["thrice", "two"], ["half_more"]),
        helper.make_node("Add", ["half_more", "spare"], ["generous"]),
        helper.make_node("Shape", ["group_best"], ["groups"], start=1, end=2),
        helper.make_node("Min", ["generous", "groups"], ["opened"]),
        helper.make_node("TopK", ["group_best", "opened"], ["_best", "group"], sorted=0),
        # The groups' rows; those behind the table's end are the last row, and do not count.
        helper.make_node("Mul", ["group", "group_size"], ["first"]),
        helper.make_node("Unsqueeze", ["first", "axis_2"], ["firsts"]),
        helper.make_node("Add", ["firsts", "lane_numbers"], ["members"]),
        helper.make_node("Reshape", ["members", "flat"], ["candidates"]),
        helper.make_node("Shape", ["item_vectors"], ["n"], start=0, end=1),
        helper.make_node("Sub", ["n", "one"], ["last"]),
        helper.make_node("Min", ["candidates", "last"], ["inside"]),
        helper.make_node("Gather", ["item_vectors", "inside"], ["vectors"]),
        helper.make_node("Unsqueeze", ["queries", "axis_2"], ["columns"]),
        helper.make_node("MatMul", ["vectors", "columns"], ["dots"]),
        helper.make_node("Squeeze", ["dots", "axis_2"], ["dot"]),
        helper.make_node("Gather", ["available", "inside"], ["allowed"]),
        helper.make_node("Less", ["candidates", "n"], ["there"]),
        helper.make_node("And", ["allowed", "there"], ["valid"]),
        helper.make_node("Where", ["valid", "dot", "never"], ["score"]),
        # Excluded rows are looked for among the best only: no more than e of them can be there.
        helper.make_node("Shape", ["score"], ["m"], start=1, end=2),
        helper.make_node("Min", ["wanted", "m"], ["kept"]),
        helper.make_node("TopK", ["score", "kept"], ["best", "place"]),
        helper.make_node("GatherElements", ["inside", "place"], ["row"], axis=1),
        helper.make_node("Unsqueeze", ["row", "axis_2"], ["row_column"]),
        helper.make_node("Unsqueeze", ["excluded", "axis_1"], ["excluded_row"]),
        helper.make_node("Equal", ["row_column", "excluded_row"], ["same"]),
        helper.make_node("Cast", ["same"], ["same_number"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["same_number", "axis_2"], ["times"], keepdims=0),
        helper.make_node("Cast", ["times"], ["barred"], to=TensorProto.BOOL),
        helper.make_node("Where", ["barred", "never", "best"], ["remaining"]),
        helper.make_node("TopK", ["remaining", "k"], ["scores", "chosen"]),
        helper.make_node("GatherElements", ["row", "chosen"], ["rows"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "exact",
        [
            _tensor("queries", TensorProto.FLOAT, ["batch", "d"]),
            _tensor("k", TensorProto.INT64, [1]),
            _tensor("excluded", TensorProto.INT64, ["batch", "e"]),
            _tensor("scan", TensorProto.INT8, ["chunks", "d", CHUNK]),
            _tensor("steps", TensorProto.FLOAT, ["d"]),
            _tensor("item_vectors", TensorProto.FLOAT, ["items", "d"]),
            _tensor("available", TensorProto.BOOL, ["items"]),
        ],
        [
            _tensor("rows", TensorProto.INT64, ["batch", "best"]),
            _tensor("scores", TensorProto.FLOAT, ["batch", "best"]),
        ],
        initializer=[
            _constant("zero_point", np.array(128, np.uint8)),
            _constant("levels", np.array(127, np.float32)),
            _constant("centre", np.array(128, np.float32)),
            _constant("tiny", np.array(1e-30, np.float32)),
            _constant("never", np.array(-np.inf, np.float32)),
            _constant("one", np.array([1], np.int64)),
            _constant("two", np.array([2], np.int64)),
            _constant("three", np.array([3], np.int64)),
            _constant("spare", np.array([exact.SPARE_GROUPS], np.int64)),
            _constant("group_size", np.array(GROUP, np.int64)),
            _constant("lane_numbers", np.arange(GROUP, dtype=np.int64)),
            _constant("flat", np.array([0, -1], np.int64)),
            _constant("axis_1", np.array([1], np.int64)),
            _constant("axis_2", np.array([2], np.int64)),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    return model


def write(path: Path = GRAPH) -> None:
    """Write the graph to its place in the package."""
    path.write_bytes(retrieval_graph().SerializeToString(deterministic=True))


def _tensor(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _constant(name: str, value: ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


if __name__ == "__main__":
    write()
