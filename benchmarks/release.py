"""A release of any size with an untrained model: what serving costs does not depend on how good the model is."""

import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.events import CATEGORIES, item_id
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.ranking.content import VOCABULARY_NAMES, Vocabularies, content_of
from mmrec_stream.ranking.reranking import NAMES
from mmrec_stream.releases import folder
from mmrec_stream.releases.manifest import AlphaBucket, Dimensions, Manifest, TrainingData
from mmrec_stream.releases.store import new_version
from model_export.config import ModelConfig
from model_export.export import (
    OPSET,
    Arrays,
    RankerGraphs,
    export_item_encoder,
    export_ranker,
    export_reranker,
    random_inputs,
    serialize,
    signature,
)
from model_export.items import ContentEncoder, ItemModel
from model_export.ranker import Ranker
from model_export.release import golden_candidates, golden_outputs, npy_bytes, npz_bytes
from model_export.reranker import PAIRS, Network
from model_export.users import UserModel

DIM = ModelConfig().dim

CLUSTERS = 500
"""Kinds of things in the catalogue: vectors of no structure at all would be the worst case of every index, and none."""


def clustered_vectors(count: int, *, seed: int) -> NDArray[np.float32]:
    """Vectors in clusters and of different lengths, as those of a trained table and its users are."""
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM), dtype=np.float32)
    random = np.random.default_rng(seed + 1)
    vectors = random.standard_normal((count, DIM), dtype=np.float32)
    vectors *= 0.7
    vectors += centres[random.integers(0, CLUSTERS, count)]
    vectors *= np.exp(0.2 * random.standard_normal((count, 1), dtype=np.float32))
    return vectors


def ranker_graphs(config: ModelConfig) -> tuple[Ranker, RankerGraphs]:
    """The product's ranker, untrained, and its exported graphs, which serve any number of items."""
    torch.manual_seed(0)
    ranker = Ranker(UserModel(config, len(CATEGORIES), len(CATEGORIES)), config)
    return ranker, export_ranker(ranker, config.dim, config.neighbours, config.history)


def item_table(items: int, config: ModelConfig) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Vectors in clusters, neighbours at random, and their weights, falling as counted ones do."""
    random = np.random.default_rng(0)
    vectors = 0.3 * clustered_vectors(items, seed=0)
    neighbours = random.integers(0, items, (items, config.neighbours), dtype=np.int32)
    weights = 1.0 / np.arange(1, config.neighbours + 1, dtype=np.float32)
    return vectors, neighbours, np.tile(weights / weights.sum(), (items, 1))


def write_synthetic_release(store: Path, items: int, *, reranked: bool = False) -> Path:
    """Write a release of `items` items, whose ids are those of the benchmark's events; returns its folder.

    With `reranked` it has a re-ranker, whose counts name as many pairs of each item as a trained one's at most.
    """
    config = ModelConfig()
    ranker, exported = ranker_graphs(config)
    vectors, neighbours, weights = item_table(items, config)
    empty: list[str] = []
    vocabularies = dict.fromkeys(VOCABULARY_NAMES, empty) | {"categories": CATEGORIES, "brands": CATEGORIES}
    sizes = {name: len(labels) for name, labels in vocabularies.items()}
    model = ItemModel(("attributes", "id"), config.dim, config.fusion, torch.ones(items, dtype=torch.bool), sizes)
    content = content_of(
        [
            CatalogueItem(item_id=item_id(row), category=CATEGORIES[row % len(CATEGORIES)], price=9.9)
            for row in range(64)
        ],
        Vocabularies.of(vocabularies),
        0,
        {},
    )
    graphs = {
        folder.RANKER: exported.ranker,
        folder.USER_ENCODER: exported.user_encoder,
        folder.ITEM_ENCODER: export_item_encoder(ContentEncoder(model), content),
    }
    if reranked:
        graphs[folder.RERANKER] = export_reranker(
            Network(np.zeros(len(NAMES), np.float32), np.ones(len(NAMES), np.float32))
        )
    files = {name: serialize(graph) for name, graph in graphs.items()}
    if reranked:
        files[folder.COUNTS] = npy_bytes(_random_counts(items))

    users = random_inputs(
        np.random.default_rng(1), (4, config.history, items, 3), config.dim, config.neighbours, ranker
    )
    table: Arrays = {
        "item_vectors": vectors,
        "neighbours": neighbours,
        "neighbour_weights": weights,
        "available": np.ones(items, dtype=bool),
    }
    users = {name: array for name, array in users.items() if name not in table} | {"k": np.array([10])}
    feed = {name: array[:4] for name, array in content.feed().items() if name in ContentEncoder(model).inputs}
    inputs: Arrays = {f"ranker/in/{name}": array for name, array in users.items()}
    inputs |= {f"item_encoder/in/{name}": array for name, array in feed.items()}

    if reranked:
        inputs |= golden_candidates(users, table, files)
    created = int(time.time() * 1000)
    manifest = Manifest(
        version=new_version(created),
        created=created,
        files={},
        dimensions=Dimensions(vector=config.dim, items=items, neighbours=config.neighbours, history=config.history),
        fusion=config.fusion,
        encoders={"attributes": "attributes", "id": "id"},
        user_encoder=config.user_encoder,
        alpha=[AlphaBucket(min_history=0, alpha=0.5)],
        data=TrainingData(events=1, users=1, items=items, first=created, last=created),
        opset=OPSET,
        graphs={name.removesuffix(".onnx"): signature(graph) for name, graph in graphs.items()},
    )
    path = store / manifest.version
    folder.write_release(
        path,
        files
        | {
            folder.ITEM_VECTORS: npy_bytes(vectors),
            folder.NEIGHBOURS: npy_bytes(neighbours),
            folder.NEIGHBOUR_WEIGHTS: npy_bytes(weights),
            folder.ITEMS: msgspec.json.encode([item_id(row) for row in range(items)]),
            folder.VOCABULARIES: msgspec.json.encode(vocabularies),
            folder.GOLDEN: npz_bytes(inputs | golden_outputs(inputs, table, files)),
        },
        manifest,
    )
    return path


def _random_counts(items: int) -> NDArray[np.void]:
    """`PAIRS` entries of each item, the first of them its own."""
    random = np.random.default_rng(6)
    entries = np.zeros((items, PAIRS), dtype=folder.COUNTED)
    entries["of"] = np.arange(items)[:, None]
    entries["item"] = random.integers(0, items, (items, PAIRS))
    entries["item"][:, 0] = np.arange(items)
    for name in ("users", "after", "before", "next"):
        entries[name] = random.integers(1, 9, (items, PAIRS))
    return entries.ravel()
