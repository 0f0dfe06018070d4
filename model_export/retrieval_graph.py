"""The graph of `mmrec_stream/ranking/exact.onnx`: int8 scan of all items, fp32 score of all groups that could be best.

`python -m model_export.retrieval_graph` writes the file; it depends on neither data nor model.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

import mmrec_stream.ranking.exact as exact
from mmrec_stream.ranking.exact import CHUNK, GRAPH, GROUP, USER_LEVELS

OPSET, IR = 20, 10

CENTRE = USER_LEVELS + 1
"""The unsigned code of a user's zero."""

DEAD = np.iinfo(np.int32).min
"""The bound of a group in which nothing is available: below all products that int8 vectors can have."""


def retrieval_graph() -> onnx.ModelProto:
    """The model; inputs and outputs as `mmrec_stream.ranking.exact` describes them."""
    node = helper.make_node
    nodes = [
        *_codes(),
        # The best bound of each group, chunk by chunk, so that products stay in the cache.
        node("Scan", ["scan", "living"], ["by_chunk"], body=_best_of_groups(), num_scan_inputs=2),
        node("Transpose", ["by_chunk"], ["by_user"], perm=[1, 0, 2]),
        node("Flatten", ["by_user"], ["group_bounds"]),
        # The groups that may be looked into, best first.
        node("Shape", ["excluded"], ["e"], start=1, end=2),
        node("Add", ["k", "e"], ["wanted"]),
        node("Mul", ["wanted", "groups_a_place"], ["for_places"]),
        node("Add", ["for_places", "spare"], ["generous"]),
        node("Shape", ["group_bounds"], ["groups"], start=1, end=2),
        node("Min", ["generous", "groups"], ["limit"]),
        node("TopK", ["group_bounds", "limit"], ["bounds", "group"]),
        node("Cast", ["bounds"], ["whole_bounds"], to=TensorProto.DOUBLE),
        node("Mul", ["whole_bounds", "user_step"], ["most"]),
        node("Greater", ["bounds", "dead"], ["alive"]),
        # As many as there are places, which says what the last place takes at least.
        node("Shape", ["item_vectors"], ["n"], start=0, end=1),
        node("Sub", ["n", "one"], ["last"]),
        node("Min", ["wanted", "limit"], ["first"]),
        *_scored("zero", "first", "_1"),
        node("Shape", ["score_1"], ["m_1"], start=1, end=2),
        node("Min", ["wanted", "m_1"], ["kept"]),
        node("TopK", ["score_1", "kept"], ["best_1", "place_1"]),
        node("GatherElements", ["row_1", "place_1"], ["best_row_1"], axis=1),
        # Then all whose bound is above the last place, for all users as many as for the one with most.
        *_above("best_1", "above_1"),
        node("Cast", ["above_1"], ["above_number"], to=TensorProto.INT64),
        node("ReduceSum", ["above_number", "axis_1"], ["above_count"], keepdims=0),
        node("Concat", ["above_count", "first"], ["counts"], axis=0),
        node("ReduceMax", ["counts"], ["opened"], keepdims=1),
        *_scored("first", "opened", "_2"),
        node("Concat", ["best_1", "score_2"], ["score_3"], axis=1),
        node("Concat", ["best_row_1", "row_2"], ["row_3"], axis=1),
        node("TopK", ["score_3", "kept"], ["best_3", "place_3"]),
        node("GatherElements", ["row_3", "place_3"], ["best_row_3"], axis=1),
        # Who has more to be looked into than the limit: the last group within it is above the last place, too.
        *_above("best_3", "above_3"),
        node("Slice", ["above_3", "minus_one", "far", "axis_1"], ["last_above"]),
        node("Less", ["limit", "groups"], ["limited"]),
        node("And", ["last_above", "limited"], ["open_column"]),
        node("Cast", ["open_column"], ["open_number"], to=TensorProto.INT32),
        node("ReduceMax", ["open_number"], ["any_open_number"], keepdims=0),
        node("Cast", ["any_open_number"], ["any_open"], to=TensorProto.BOOL),
        node("If", ["any_open"], ["last_row", "last_best"], then_branch=_every_item(), else_branch=_as_they_are()),
        # Excluded rows are looked for among the best only: no more than e of them can be there.
        node("Unsqueeze", ["last_row", "axis_2"], ["row_column"]),
        node("Unsqueeze", ["excluded", "axis_1"], ["excluded_row"]),
        node("Equal", ["row_column", "excluded_row"], ["same"]),
        node("Cast", ["same"], ["same_number"], to=TensorProto.INT32),
        node("ReduceSum", ["same_number", "axis_2"], ["times"], keepdims=0),
        node("Cast", ["times"], ["barred"], to=TensorProto.BOOL),
        node("Where", ["barred", "never", "last_best"], ["remaining"]),
        node("TopK", ["remaining", "k"], ["scores", "chosen"]),
        node("GatherElements", ["last_row", "chosen"], ["rows"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "exact",
        [
            _tensor("queries", TensorProto.FLOAT, ["batch", "d"]),
            _tensor("k", TensorProto.INT64, [1]),
            _tensor("excluded", TensorProto.INT64, ["batch", "e"]),
            _tensor("scan", TensorProto.INT8, ["chunks", "codes", CHUNK]),
            _tensor("living", TensorProto.BOOL, ["chunks", CHUNK // GROUP]),
            _tensor("steps", TensorProto.FLOAT, ["d"]),
            _tensor("norm_steps", TensorProto.FLOAT, [2, "bound_codes"]),
            _tensor("item_vectors", TensorProto.FLOAT, ["items", "d"]),
            _tensor("available", TensorProto.BOOL, ["items"]),
        ],
        [
            _tensor("rows", TensorProto.INT64, ["batch", "best"]),
            _tensor("scores", TensorProto.FLOAT, ["batch", "best"]),
        ],
        initializer=[
            _constant("zero_point", np.array(CENTRE, np.uint8)),
            _constant("levels", np.array(USER_LEVELS, np.float32)),
            _constant("levels_64", np.array(USER_LEVELS, np.float64)),
            _constant("centre", np.array(CENTRE, np.float32)),
            _constant("tiny", np.array(1e-30, np.float32)),
            _constant("never", np.array(-np.inf, np.float32)),
            _constant("dead", np.array(DEAD, np.int32)),
            _constant("zero", np.array([0], np.int64)),
            _constant("one", np.array([1], np.int64)),
            _constant("minus_one", np.array([-1], np.int64)),
            _constant("far", np.array([2**62], np.int64)),
            _constant("groups_a_place", np.array([exact.GROUPS_A_PLACE], np.int64)),
            _constant("spare", np.array([exact.SPARE_GROUPS], np.int64)),
            _constant("group_size", np.array(GROUP, np.int64)),
            _constant("lane_numbers", np.arange(GROUP, dtype=np.int64)),
            _constant("axis_0", np.array([0], np.int64)),
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


def _codes() -> list[onnx.NodeProto]:
    """From `queries` to `codes`, whole steps around the centre and the bound's norms, and what a step is worth."""
    node = helper.make_node
    return [
        # The item's step per dimension goes into the query.
        node("Mul", ["queries", "steps"], ["stepped"]),
        node("Abs", ["stepped"], ["sizes"]),
        node("ReduceMax", ["sizes", "axis_1"], ["largest"], keepdims=1),
        node("Max", ["largest", "tiny"], ["range"]),
        node("Div", ["stepped", "range"], ["unit"]),
        node("Mul", ["unit", "levels"], ["wide"]),
        node("Round", ["wide"], ["whole"]),
        node("Sub", ["wide", "whole"], ["fraction"]),
        node("ReduceL2", ["fraction", "axis_1"], ["fraction_norm"], keepdims=1),
        node("ReduceL2", ["wide", "axis_1"], ["wide_norm"], keepdims=1),
        node("Concat", ["fraction_norm", "wide_norm"], ["norms"], axis=1),
        node("MatMul", ["norms", "norm_steps"], ["norm_parts"]),
        node("Ceil", ["norm_parts"], ["norm_codes"]),
        node("Concat", ["whole", "norm_codes"], ["signed"], axis=1),
        node("Add", ["signed", "centre"], ["shifted"]),
        node("Cast", ["shifted"], ["codes"], to=TensorProto.UINT8),
        node("Cast", ["range"], ["range_64"], to=TensorProto.DOUBLE),
        node("Div", ["range_64", "levels_64"], ["user_step"]),
    ]


def _best_of_groups() -> onnx.GraphProto:
    """A step of the scan: the largest bound of each group of a chunk, and nothing of groups without a living item."""
    return helper.make_graph(
        [
            helper.make_node("MatMulInteger", ["codes", "chunk", "zero_point"], ["products"]),
            helper.make_node("Reshape", ["products", "lanes_first"], ["lanes"]),
            helper.make_node("ReduceMax", ["lanes", "lane_axis"], ["largest_of_group"], keepdims=0),
            helper.make_node("Where", ["chunk_living", "largest_of_group", "dead"], ["best_of_group"]),
        ],
        "scan",
        [
            _tensor("chunk", TensorProto.INT8, ["codes", CHUNK]),
            _tensor("chunk_living", TensorProto.BOOL, [CHUNK // GROUP]),
        ],
        [_tensor("best_of_group", TensorProto.INT32, ["batch", CHUNK // GROUP])],
        initializer=[
            _constant("lanes_first", np.array([0, GROUP, CHUNK // GROUP], np.int64)),
            _constant("lane_axis", np.array([1], np.int64)),
        ],
    )


def _above(best: str, name: str) -> list[onnx.NodeProto]:
    """Which of the listed groups could have more than the last of the best scores, (batch, limit)."""
    node = helper.make_node
    return [
        node("Slice", [best, "minus_one", "far", "axis_1"], [f"{name}_least"]),
        node("Cast", [f"{name}_least"], [f"{name}_least_64"], to=TensorProto.DOUBLE),
        node("Greater", ["most", f"{name}_least_64"], [f"{name}_larger"]),
        node("And", [f"{name}_larger", "alive"], [name]),
    ]


def _scored(start: str, end: str, mark: str) -> list[onnx.NodeProto]:
    """`row` and `score` of the items of the groups from one place to another, with a mark behind all names.

    Rows behind the table's end are the last row, and do not count.
    """
    node = helper.make_node
    nodes = [
        node("Slice", ["group", start, end, "axis_1"], ["group_part"]),
        node("Mul", ["group_part", "group_size"], ["first_row"]),
        node("Unsqueeze", ["first_row", "axis_2"], ["first_rows"]),
        node("Add", ["first_rows", "lane_numbers"], ["members"]),
        node("Flatten", ["members"], ["candidates"]),
        node("Min", ["candidates", "last"], ["row"]),
        node("Gather", ["item_vectors", "row"], ["vectors"]),
        node("Unsqueeze", ["queries", "axis_2"], ["columns"]),
        node("MatMul", ["vectors", "columns"], ["dots"]),
        node("Squeeze", ["dots", "axis_2"], ["dot"]),
        node("Gather", ["available", "row"], ["allowed"]),
        node("Less", ["candidates", "n"], ["there"]),
        node("And", ["allowed", "there"], ["valid"]),
        node("Where", ["valid", "dot", "never"], ["score"]),
    ]
    made = {name for each in nodes for name in each.output}
    for each in nodes:
        each.input[:] = [name + mark if name in made else name for name in each.input]
        each.output[:] = [name + mark for name in each.output]
    return nodes


def _as_they_are() -> onnx.GraphProto:
    """What has been found stands."""
    return helper.make_graph(
        [
            helper.make_node("Identity", ["best_row_3"], ["same_row"]),
            helper.make_node("Identity", ["best_3"], ["same_best"]),
        ],
        "proven",
        [],
        [
            _tensor("same_row", TensorProto.INT64, ["batch", "kept"]),
            _tensor("same_best", TensorProto.FLOAT, ["batch", "kept"]),
        ],
    )


def _every_item() -> onnx.GraphProto:
    """The best of all items in fp32, slice by slice, for users for whom nothing is proven; the others keep theirs."""
    node = helper.make_node
    body = helper.make_graph(
        [
            node("Mul", ["number", "slice"], ["begin"]),
            node("Add", ["begin", "slice"], ["end"]),
            node("Slice", ["item_vectors", "begin", "end", "axis_0"], ["part"]),
            node("Slice", ["available", "begin", "end", "axis_0"], ["part_available"]),
            node("Gemm", ["open_queries", "part"], ["product"], transB=1),
            node("Where", ["part_available", "product", "never"], ["part_score"]),
            node("Shape", ["part"], ["part_size"], start=0, end=1),
            node("Min", ["part_size", "kept"], ["part_kept"]),
            node("TopK", ["part_score", "part_kept"], ["part_best", "part_place"]),
            node("Add", ["part_place", "begin"], ["part_row"]),
            node("Concat", ["so_far_best", "part_best"], ["all_best"], axis=1),
            node("Concat", ["so_far_row", "part_row"], ["all_row"], axis=1),
            node("TopK", ["all_best", "kept"], ["next_best", "next_place"]),
            node("GatherElements", ["all_row", "next_place"], ["next_row"], axis=1),
            node("Identity", ["on"], ["still"]),
        ],
        "slice",
        [
            _tensor("number", TensorProto.INT64, []),
            _tensor("on", TensorProto.BOOL, []),
            _tensor("so_far_row", TensorProto.INT64, ["open", "kept"]),
            _tensor("so_far_best", TensorProto.FLOAT, ["open", "kept"]),
        ],
        [
            _tensor("still", TensorProto.BOOL, []),
            _tensor("next_row", TensorProto.INT64, ["open", "kept"]),
            _tensor("next_best", TensorProto.FLOAT, ["open", "kept"]),
        ],
    )
    return helper.make_graph(
        [
            node("Squeeze", ["open_column", "axis_1"], ["open"]),
            node("NonZero", ["open"], ["open_users_row"]),
            node("Squeeze", ["open_users_row", "axis_0"], ["open_users"]),
            node("Gather", ["queries", "open_users"], ["open_queries"]),
            node("Gather", ["best_row_3", "open_users"], ["first_row"]),
            node("Gather", ["best_3", "open_users"], ["first_best"]),
            node("Mul", ["first_row", "zero"], ["no_row"]),
            node("Min", ["first_best", "never"], ["no_best"]),
            node("Add", ["last", "slice"], ["up_to"]),
            node("Div", ["up_to", "slice"], ["slices"]),
            node("Loop", ["slices", "", "no_row", "no_best"], ["found_row", "found_best"], body=body),
            node("Unsqueeze", ["open_users", "axis_1"], ["open_users_column"]),
            node("ScatterND", ["best_row_3", "open_users_column", "found_row"], ["whole_row"]),
            node("ScatterND", ["best_3", "open_users_column", "found_best"], ["whole_best"]),
        ],
        "unproven",
        [],
        [
            _tensor("whole_row", TensorProto.INT64, ["batch", "kept"]),
            _tensor("whole_best", TensorProto.FLOAT, ["batch", "kept"]),
        ],
        initializer=[_constant("slice", np.array([exact.SLICE], np.int64))],
    )


def _tensor(name: str, kind: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _constant(name: str, value: ArrayLike) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


if __name__ == "__main__":
    write()
