"""Scoring alone: the ranker, exact and approximate retrieval, beside numpy, torch and faiss, from 1,000 to 1M items."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper
from threadpoolctl import threadpool_limits

from benchmarks.release import DIM, clustered_vectors, item_table, ranker_graphs, write_synthetic_release
from benchmarks.results import Report, Target, console
from mmrec_stream.ranking.approximate import ApproximateIndex
from mmrec_stream.ranking.exact import ExactIndex
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import Features, blank_features
from model_export.config import ModelConfig
from model_export.export import random_inputs, serialize

LIST = 20
CANDIDATES = 100
BATCHES = (1, 16, 64)

HISTORY = 50
WORKER_BATCH = 128
"""As many users as a worker takes out of the line at once."""

EXCLUDED = 8
"""What a profile can hold at most: the dearest users."""

Search = Callable[[NDArray[np.float32]], object]


def command(
    quick: Annotated[bool, typer.Option(help="Up to 100,000 items, a fifth of the time.")] = False,
    threads: Annotated[int, typer.Option(help="Threads of each system; 0 takes all cores.")] = 0,
) -> None:
    """Microseconds a user of scoring and ordering a catalogue, by batch, size and method, with recall."""
    threads = threads or len(os.sched_getaffinity(0))
    threadpool_limits(threads)  # numpy's
    report = Report("scoring", quick=quick, threads=threads, dimensions=DIM)
    budget = 0.2 if quick else 1.0
    _small(report, threads, budget)
    _ranker(report, threads, budget, (1_000, 10_000, 100_000))
    for items in (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000):
        _lists(report, items, budget)
    for items in (100_000,) if quick else (100_000, 1_000_000):
        _large(report, items, threads, budget)
    report.plot("catalogue", lambda axes: _draw(axes, report))
    report.close()


def _small(report: Report, threads: int, budget: float) -> None:
    """10,000 items: matrix product and the best 20 (a list) and 100."""
    items = clustered_vectors(10_000, seed=0)
    import faiss
    import torch

    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(items)
    table = torch.from_numpy(items)
    for k in (LIST, CANDIDATES):
        session = dense_session(threads)
        systems: dict[str, Search] = {
            "matrix product (numpy)": lambda users: users @ items.T,
            "mmrec": lambda users, k=k, session=session: session.run(  # type: ignore[misc]
                None, {"users": users, "items": items, "k": np.array([k])}
            ),
            "numpy": lambda users, k=k: _numpy_best(users, items, k),  # type: ignore[misc]
            "torch": lambda users, k=k: torch.topk(torch.from_numpy(users) @ table.T, k),  # type: ignore[misc]
            "faiss flat": lambda users, k=k: flat.search(users, k),  # type: ignore[misc]
        }
        for batch in BATCHES:
            costs = _in_turn(systems, clustered_vectors(batch, seed=1), budget)
            case = f"10k items, best {k}, batch {batch}"
            for name, samples in costs.items():
                report.add(case, name, samples, "µs/user")
            if batch == max(BATCHES):
                for name in systems:
                    limit = {"matrix product (numpy)": 2.0, "mmrec": None}.get(name, 1.0)
                    if limit:
                        ratios = [mine / theirs for mine, theirs in zip(costs["mmrec"], costs[name], strict=True)]
                        report.add(
                            f"{case}, ratio", f"mmrec / {name}", ratios, "×", target=Target(limit, at_least=False)
                        )


def _ranker(report: Report, threads: int, budget: float, sizes: tuple[int, ...]) -> None:
    """The product's whole ranker: user tower, both halves, mix, masks, best 20."""
    config = ModelConfig()
    ranker, graphs = ranker_graphs(config)
    session = ort.InferenceSession(serialize(graphs.ranker), _options(threads), providers=["CPUExecutionProvider"])
    for items in sizes:
        vectors, neighbours, weights = item_table(items, config)
        table = {
            "item_vectors": vectors,
            "neighbours": neighbours,
            "neighbour_weights": weights,
            "available": np.ones(items, dtype=bool),
            "k": np.array([LIST]),
        }
        for batch in BATCHES:
            shape = (batch, HISTORY, items, EXCLUDED)
            inputs = random_inputs(np.random.default_rng(2), shape, config.dim, config.neighbours, ranker) | table
            samples = _seconds(lambda inputs=inputs: session.run(None, inputs), budget)  # type: ignore[misc]
            report.add(f"ranker, {items} items, batch {batch}", "mmrec", [s / batch * 1e6 for s in samples], "µs/user")
            if batch == max(BATCHES) and items == 10_000:
                target = Target(8_000)
                report.add("ranker, users a second", "mmrec", [batch / s for s in samples], "users/s", target=target)


def _lists(report: Report, items: int, budget: float) -> None:
    """Lists as a worker makes them, on its one thread: of the whole catalogue, and of candidates."""
    with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
        with console.status(f"exporting a release of {items:,} items"):
            scorer = Scorer.load(write_synthetic_release(Path(folder), items), provider="cpu", threads=1)
        _in_both_ways(report, scorer, budget)
    if items == 10_000:
        with tempfile.TemporaryDirectory(prefix="mmrec-bench-") as folder:
            path = write_synthetic_release(Path(folder), items, reranked=True)
            _reranked(report, Scorer.load(path, provider="cpu", threads=1), budget)


def _reranked(report: Report, scorer: Scorer, budget: float) -> None:
    """What re-ranking costs a list, beside the same release without."""
    ways = {"mmrec, re-ranked": scorer, "mmrec, not re-ranked": scorer.without_reranker()}
    for batch in (1, WORKER_BATCH):
        features = _crowd(len(scorer.table)).part(slice(batch)).cropped()
        works = {name: partial(way.run, features, LIST) for name, way in ways.items()}
        case = f"lists of {len(scorer.table) // 1000}k items, batch {batch}"
        costs = {name: [s / batch * 1e6 for s in times] for name, times in _alternately(works, budget).items()}
        for name, samples in costs.items():
            report.add(case, name, samples, "µs/user")
        target = Target(2_000, at_least=False)
        with_it, without = costs.values()
        report.add(f"{case}, re-ranking", "mmrec", median(with_it) - median(without), "µs/user", target=target)


def _crowd(items: int) -> Features:
    """Users of a worker's batch, with histories of all lengths."""
    random = np.random.default_rng(5)
    features = blank_features(WORKER_BATCH, HISTORY)
    features.history_rows[:] = random.integers(0, items, features.history_rows.shape)
    features.history_ages[:] = -np.sort(-random.exponential(1e5, features.history_ages.shape), axis=1)
    features.lengths[:] = random.integers(1, HISTORY + 1, WORKER_BATCH)
    return features


def _in_both_ways(report: Report, scorer: Scorer, budget: float) -> None:
    items, features = len(scorer.table), _crowd(len(scorer.table))
    whole = scorer.run(features, LIST).rows
    ways: tuple[Literal["whole", "exact", "approximate"], ...] = ("whole", "exact", "approximate")
    for way in ways:
        scorer.retrieve(way)
        rows = scorer.run(features, LIST).rows
        samples = _seconds(lambda: scorer.run(features, LIST), budget)
        system = "mmrec, all items" if way == "whole" else f"mmrec, candidates of an {way} index"
        case = f"lists of {items // 1000}k items, batch {WORKER_BATCH}"
        # Ranking 100 candidates is to be possible 3,000 times a second.
        target = Target(3_000) if way != "whole" and items == 10_000 else None
        report.add(case, system, [WORKER_BATCH / s for s in samples], "users/s", target=target)
        if way != "whole":
            shared = [len(np.intersect1d(ours, theirs)) / LIST for ours, theirs in zip(rows, whole, strict=True)]
            report.add(f"{case}, places as of all items", system, float(np.mean(shared)), "share")


def _large(report: Report, items: int, threads: int, budget: float) -> None:
    """Large catalogues: everything in fp32, the exact index, an approximate one."""
    import faiss

    faiss.omp_set_num_threads(threads)
    vectors = clustered_vectors(items, seed=0)
    available = np.ones(items, dtype=bool)
    began = time.perf_counter()
    exact = ExactIndex(vectors, available, threads=threads)
    built_exact = time.perf_counter() - began
    with console.status(f"building an approximate index of {items:,} items"):
        began = time.perf_counter()
        approximate = ApproximateIndex(vectors, available, recall=0.95, queries=clustered_vectors(256, seed=3))
        built_approximate = time.perf_counter() - began
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    session = dense_session(threads)
    systems: dict[str, Search] = {
        "mmrec exact": lambda users: exact.search(users, CANDIDATES),
        "mmrec approximate": lambda users: approximate.search(users, CANDIDATES),
        "fp32 (ONNX Runtime)": lambda users: session.run(
            None, {"users": users, "items": vectors, "k": np.array([CANDIDATES])}
        ),
        "faiss flat": lambda users: flat.search(users, CANDIDATES),
    }
    limit = 250.0 if items == 100_000 else 1_000.0
    for batch in BATCHES:
        costs = _in_turn(systems, clustered_vectors(batch, seed=1), budget)
        for name, samples in costs.items():
            target = Target(limit, at_least=False) if name == "mmrec exact" and batch == max(BATCHES) else None
            report.add(
                f"{items // 1000}k items, best {CANDIDATES}, batch {batch}", name, samples, "µs/user", target=target
            )
    users = clustered_vectors(64, seed=4)
    _, truth = flat.search(users, CANDIDATES)
    for name, index in (("mmrec exact", exact), ("mmrec approximate", approximate)):
        rows = index.search(users, CANDIDATES)[0]
        recall = np.mean([len(np.intersect1d(a, b)) / CANDIDATES for a, b in zip(rows, truth, strict=True)])
        target = Target(0.999) if index is exact else None
        report.add(f"{items // 1000}k items, recall@{CANDIDATES}", name, float(recall), "share", target=target)
    report.add(f"{items // 1000}k items, building", "mmrec exact", built_exact, "s")
    report.add(f"{items // 1000}k items, building", "mmrec approximate", built_approximate, "s")


def dense_session(threads: int) -> ort.InferenceSession:
    """What the ranker does with users' and items' vectors, alone: the product, and the best k."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["users", "items"], ["scores"], transB=1),
            helper.make_node("TopK", ["scores", "k"], ["best", "rows"]),
        ],
        "dense",
        [
            tensor("users", TensorProto.FLOAT, ["batch", "d"]),
            tensor("items", TensorProto.FLOAT, ["items", "d"]),
            tensor("k", TensorProto.INT64, [1]),
        ],
        [tensor("best", TensorProto.FLOAT, ["batch", "k"]), tensor("rows", TensorProto.INT64, ["batch", "k"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), _options(threads), providers=["CPUExecutionProvider"])


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return options


def _numpy_best(users: NDArray[np.float32], items: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    scores = users @ items.T
    some = np.argpartition(-scores, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1)
    best: NDArray[np.int64] = np.take_along_axis(some, order, axis=1)
    return best


def _in_turn(systems: dict[str, Search], users: NDArray[np.float32], budget: float) -> dict[str, list[float]]:
    """µs a user of each system, measured in turn, five times: what slows the machine for a while hits all alike."""
    rounds = 5
    costs: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, search in systems.items():
            samples = _seconds(lambda search=search: search(users), budget / rounds)  # type: ignore[misc]
            costs[name].append(median(samples) / len(users) * 1e6)
    return costs


def _alternately(works: Mapping[str, Callable[[], object]], budget: float) -> dict[str, list[float]]:
    """Times of single calls, one of each after the other over `budget` seconds."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        for name, work in works.items():
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return times


def _seconds(work: Callable[[], object], budget: float) -> list[float]:
    """Times of single calls over `budget` seconds, two at least, after one that warms up."""
    work()
    samples: list[float] = []
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(samples) < 2:
        began = time.perf_counter()
        work()
        samples.append(time.perf_counter() - began)
    return samples


def _draw(axes: Any, report: Report) -> None:
    lines: dict[str, dict[int, float]] = {}
    for figure in report.figures:
        case = figure.case.removeprefix("scoring.")
        if figure.unit == "µs/user" and case.endswith("batch 64"):
            if case.startswith("ranker"):
                lines.setdefault("mmrec ranker, whole", {})[int(case.split()[1])] = figure.value
            elif f"best {CANDIDATES}" in case:
                size = int(case.split("k ")[0]) * 1000
                name = "fp32 (ONNX Runtime)" if (size, figure.system) == (10_000, "mmrec") else figure.system
                if name not in ("torch", "numpy", "matrix product (numpy)"):
                    lines.setdefault(name, {})[size] = figure.value
    for name, line in lines.items():
        axes.plot(list(line), list(line.values()), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("items")
    axes.set_ylabel("µs a user, batch 64, best 100 (ranker: 20)")
    axes.legend(frameon=False)
