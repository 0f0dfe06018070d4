"""A small real release: a synthetic shop's data, a model trained on it in seconds, exported as always.

It is made once a test session, so ask for `tiny_release()` instead of training in a test that only needs one. Its α is
set: which α is best for so small a log hangs on the last digit, and processors differ there.
"""

import atexit
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset, Interactions, from_events
from mmrec_stream.ranking.scorer import ALPHAS
from mmrec_stream.releases import folder, load_release, write_release
from mmrec_stream.releases.manifest import AlphaBucket
from mmrec_stream.simulator import Shoppers, make_shop
from model_export.config import ModelConfig
from model_export.export import Arrays, serialize
from model_export.hybrid import TrainedModel
from model_export.ranker import BUCKETS
from model_export.release import build_release, golden_outputs, npy_bytes, npz_bytes
from model_export.reranker import Reranking, counts_of
from model_export.reranking import ask, fit_network
from model_export.rounds import release_split
from model_export.training import fit

NOW = 1_760_000_000_000
TINY = ModelConfig(dim=16, history=20, image_size=16, epochs=2, neighbours=8, recent=5, batch=32, rerank=False)
TINY_ALPHA = 0.5


@cache
def tiny_dataset() -> Dataset:
    """80 shoppers and 60 products over three days, with texts, pictures and attributes."""
    shop = make_shop(60, seed=3)
    return from_events("tiny", Shoppers(shop, 80, seed=3, sessions_per_day=2.0).past(3.0, NOW), shop)


@cache
def tiny_model() -> TrainedModel:
    """A model of every encoder on `tiny_dataset`, both halves of which count."""
    dataset = tiny_dataset()
    model = fit(dataset, release_split(dataset), TINY)
    model.ranker.set_alphas([TINY_ALPHA] * len(BUCKETS))
    return model


@cache
def tiny_release() -> Path:
    """`tiny_model` as a release. Only for reading: copy it before you change it."""
    return build_release(tiny_model(), _scratch(), NOW, "tiny-1")


def tiny_variant(store: Path, version: str, ids: list[str] | None = None, **arrays: NDArray[np.generic]) -> Path:
    """The tiny release in `store` under another name, with other arrays by their files' names: whole by every hash."""
    known = load_release(tiny_release())
    files = {name: (known.path / name).read_bytes() for name in folder.FILES}
    files |= {f"{name}.npy": npy_bytes(array) for name, array in arrays.items()}
    if ids is not None:
        files[folder.ITEMS] = msgspec.json.encode(ids)
    path = store / version
    write_release(path, files, msgspec.structs.replace(known.manifest, version=version))
    return path


@cache
def reranked_model() -> TrainedModel:
    """`tiny_model` with a re-ranker, whatever it gains."""
    model, split = tiny_model(), release_split(tiny_dataset())
    counts = counts_of(split.train.where(split.train.likings), model.dataset.items)
    asked = ask(model, counts, split.validation, mask_history=True)
    return replace(model, reranking=Reranking(fit_network(asked, 0), counts))


@cache
def reranked_release() -> Path:
    """`reranked_model` as a release. Only for reading: copy it before you change it."""
    return build_release(reranked_model(), _scratch(), NOW, "tiny-reranked")


@cache
def tiny_release_at(alpha: float) -> Path:
    """`tiny_release` as if training had found this α best for everybody; 0 and 1 are kept as far away as always."""
    known = load_release(tiny_release())
    files = {name: (known.path / name).read_bytes() for name in folder.FILES}
    kept = np.clip(np.float32(alpha), 1e-6, 1 - 1e-6)
    for name in (folder.RANKER, folder.USER_ENCODER):
        graph = onnx.load_from_string(files[name])
        (weight,) = (weight for weight in graph.graph.initializer if weight.name == ALPHAS)
        weight.CopyFrom(onnx.numpy_helper.from_array(np.full(len(BUCKETS), kept, dtype=np.float32), ALPHAS))
        files[name] = serialize(graph)
    table: Arrays = {
        "item_vectors": known.item_vectors,
        "neighbours": known.neighbours,
        "neighbour_weights": known.neighbour_weights,
        "available": np.ones(len(known.item_ids), dtype=bool),
    }
    inputs = {name: array for name, array in known.golden.items() if "/in/" in name}
    files[folder.GOLDEN] = npz_bytes(inputs | golden_outputs(inputs, table, files))
    buckets = [AlphaBucket(min_history=low, alpha=alpha) for low in BUCKETS]
    path = _scratch() / f"tiny-at-{alpha}"
    write_release(path, files, msgspec.structs.replace(known.manifest, version=path.name, alpha=buckets))
    return path


@cache
def loyal_shop() -> Dataset:
    """150 users who take items of two out of six brands only, in random order; item r is of brand r mod 6."""
    rng = np.random.default_rng(5)
    entries = [CatalogueItem(item_id=f"i{item}", title=f"thing {item}", brand=f"b{item % 6}") for item in range(48)]
    rows = []
    for user in range(150):
        own = np.flatnonzero(np.isin(np.arange(48) % 6, rng.choice(6, 2, replace=False)))
        rows += [(user, item, NOW + 60_000 * step) for step, item in enumerate(rng.permutation(own)[:10])]
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], columns[2])
    return Dataset("loyal", log, [f"u{user}" for user in range(150)], [f"i{item}" for item in range(48)], entries)


@cache
def loyal_release() -> Path:
    """A release whose p_user knows brands.

    It is trained long enough for that from any start: over sixteen, on two kinds of processors, a follow makes its
    brand 1.09 to 2.1 times as likely for p_user, and 1.37 to 1.6 times in the mean of the brands.
    """
    dataset = loyal_shop()
    model = fit(dataset, release_split(dataset), replace(TINY, epochs=30, patience=30))
    return build_release(model, _scratch(), NOW, "loyal")


def _scratch() -> Path:
    path = Path(tempfile.mkdtemp(prefix="mmrec-tiny-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
