"""A trained model as a release folder."""

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmrec_stream.data.item_item import description_terms
from mmrec_stream.data.repurchases import repurchase_intervals
from mmrec_stream.data.splits import next_clicks
from mmrec_stream.ranking.reranking import CANDIDATES, Counts, candidate_features
from mmrec_stream.ranking.scorer import HALVES, OUTPUTS, alphas_of
from mmrec_stream.ranking.types import Features, Lists
from mmrec_stream.ranking.users import Users
from mmrec_stream.releases import folder
from mmrec_stream.releases.folder import write_release
from mmrec_stream.releases.manifest import AlphaBucket, Dimensions, Manifest, TrainingData
from mmrec_stream.releases.store import new_version
from model_export.export import (
    OPSET,
    Arrays,
    export_item_encoder,
    export_ranker,
    export_reranker,
    serialize,
    session_of,
    signature,
)
from model_export.hybrid import TrainedModel, case_features, request_batches
from model_export.items import ContentEncoder
from model_export.related import Likeness, complementary_table, similar_table

GOLDEN_USERS = 4
GOLDEN_PLACES = 100
"""Golden outputs are made for real histories on the whole table: small enough to keep, large enough to touch every
operator, and enough places that many items stand in them."""

LISTED = ("rows", "scores")
"""What lists are told apart by: the scores of a half alone are its probabilities."""


def build_release(model: TrainedModel, store: Path, created_ms: int, version: str | None = None) -> Path:
    """Export the model and write it into `store` as a release.

    Args:
        model: What to export.
        store: The releases' folder.
        created_ms: Time of creation, ms; the newest release is the one with the largest.
        version: Its name; made of the time without.

    Returns:
        The release's folder.

    Raises:
        UserError: An exported graph differs from the model, or the folder exists.
    """
    version = version or new_version(created_ms)
    dim, neighbours = model.vectors.shape[1], model.neighbours.shape[1]
    ranker = export_ranker(model.ranker, dim, neighbours, model.config.history)
    graphs = {
        folder.RANKER: ranker.ranker,
        folder.USER_ENCODER: ranker.user_encoder,
        folder.ITEM_ENCODER: export_item_encoder(ContentEncoder(model.items), model.inputs.content),
    }
    if model.reranking is not None:
        graphs[folder.RERANKER] = export_reranker(model.reranking.network)
    log = model.dataset.interactions
    manifest = Manifest(
        version=version,
        created=created_ms,
        files={},
        dimensions=Dimensions(
            vector=dim, items=len(model.vectors), neighbours=neighbours, history=model.config.history
        ),
        fusion=model.config.fusion,
        encoders={name.split(":")[0]: name for name in model.items.names},
        user_encoder=model.config.user_encoder,
        alpha=[AlphaBucket(min_history=low, alpha=alpha) for low, alpha in model.alpha.items()],
        modality_weights=model.report.modality_weights,
        metrics=model.report.validation,
        data=TrainingData(
            events=len(log),
            users=model.dataset.users,
            items=model.dataset.items,
            first=int(log.times.min()),
            last=int(log.times.max()),
        ),
        preset=log.rule.name,
        opset=OPSET,
        graphs={_stem(name): signature(graph) for name, graph in graphs.items()},
        seed=model.config.seed,
    )
    arrays = {
        folder.ITEM_VECTORS: model.vectors,
        folder.NEIGHBOURS: model.neighbours,
        folder.NEIGHBOUR_WEIGHTS: model.released_weights,
        **related_tables(model),
        **repurchases(model),
    }
    if model.reranking is not None:
        arrays[folder.COUNTS] = model.reranking.counts.entries
    files = {name: serialize(graph) for name, graph in graphs.items()}
    files |= {name: npy_bytes(array) for name, array in arrays.items()}
    files[folder.ITEMS] = msgspec.json.encode(list(model.dataset.item_ids))
    files[folder.VOCABULARIES] = msgspec.json.encode(model.inputs.vocabularies)
    files[folder.GOLDEN] = npz_bytes(golden(model, files))
    path = store / version
    write_release(path, files, manifest)
    return path


def related_tables(model: TrainedModel) -> dict[str, NDArray[np.void]]:
    """What goes with each item, by file name; of all events, as nothing is tuned by it."""
    log, catalogue = model.dataset.interactions, model.inputs.catalogue
    likeness: list[Likeness] = [model.vectors, *model.inputs.content.features.values()]
    described = description_terms(catalogue)
    if described.nnz:
        likeness.append(described)
    return {
        folder.SIMILAR: similar_table(log, likeness),
        folder.COMPLEMENTARY: complementary_table(log, [item.category for item in catalogue], model.vectors),
    }


def repurchases(model: TrainedModel) -> dict[str, NDArray[np.float32]]:
    """After how long items are bought again, by file name; none where the log does not say."""
    dataset = model.dataset
    if not dataset.timed:
        return {}
    categories = [item.category for item in model.inputs.catalogue]
    found = repurchase_intervals(dataset.interactions, dataset.items, categories)
    return {} if np.isnan(found).all() else {folder.REPURCHASES: found}


def golden(model: TrainedModel, files: Mapping[str, bytes]) -> Arrays:
    """Inputs of all graphs, by `graph/in/name`, and outputs as of `golden_outputs`, on real users and items.

    The item table is not among them: it is the release's own.
    """
    log = model.dataset.interactions
    cases = next_clicks(log, model.dataset.users)
    cases = cases.where(np.linspace(0, len(cases) - 1, GOLDEN_USERS).astype(np.int64))
    (request,) = request_batches(case_features(cases, model.dataset, model.inputs, model.config))
    users: Arrays = {name: tensor.numpy() for name, tensor in request._asdict().items()}
    users["k"] = np.array([min(GOLDEN_PLACES, len(model.vectors))], dtype=np.int64)
    table: Arrays = {
        "item_vectors": model.vectors,
        "neighbours": model.neighbours,
        "neighbour_weights": model.released_weights,
        "available": np.ones(len(model.vectors), dtype=bool),
    }
    feed = model.inputs.content.feed()
    content: Arrays = {name: feed[name][:GOLDEN_USERS] for name in ContentEncoder(model.items).inputs}
    inputs = {f"{_stem(folder.RANKER)}/in/{name}": value for name, value in users.items()}
    inputs |= {f"{_stem(folder.ITEM_ENCODER)}/in/{name}": value for name, value in content.items()}
    if folder.RERANKER in files:
        inputs |= golden_candidates(users, table, files)
    return inputs | golden_outputs(inputs, table, files)


def golden_candidates(users: Arrays, table: Arrays, files: Mapping[str, bytes]) -> Arrays:
    """The re-ranker's golden inputs: the lists that the ranker makes of golden users."""
    most = np.array([min(CANDIDATES, len(table["item_vectors"]))], dtype=np.int64)
    lists = session_of(files[folder.RANKER]).run(list(OUTPUTS), users | table | {"k": most})
    return {f"{_stem(folder.RERANKER)}/in/{name}": value for name, value in zip(OUTPUTS, lists, strict=True)}


def golden_outputs(inputs: Arrays, table: Arrays, files: Mapping[str, bytes]) -> Arrays:
    """What the graphs give for golden inputs, by `graph/out/name`, and the lists of each half of the mix alone.

    The halves are by `ranker/user/name` (α = 1) and `ranker/item/name` (α = 0): whatever a release's own α, both its
    item vectors and its associations can be told from others.

    Args:
        inputs: By `graph/in/name`; the user encoder's are the ranker's.
        table: The item table, by the names of the ranker's inputs.
        files: The graphs, by file name.
    """
    found: Arrays = {}
    for file, asked, outputs, shared in (
        (folder.RANKER, folder.RANKER, LISTED, table),
        (folder.USER_ENCODER, folder.RANKER, Users._fields, table),  # of the same users
        (folder.ITEM_ENCODER, folder.ITEM_ENCODER, ("vectors",), {}),
    ):
        prefix = f"{_stem(asked)}/in/"
        own = {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
        session = session_of(files[file])
        read = {tensor.name for tensor in session.get_inputs()}
        given = {name: value for name, value in (own | shared).items() if name in read}
        runs: dict[str, Arrays] = {"out": {}}
        if file == folder.RANKER:
            runs |= {half: dict(alphas_of(session, alpha)) for half, alpha in HALVES.items()}
        for side, alphas in runs.items():
            results = session.run(list(outputs), given | alphas)
            found |= {f"{_stem(file)}/{side}/{name}": value for name, value in zip(outputs, results, strict=True)}
    if folder.RERANKER in files:
        found |= {f"{_stem(folder.RERANKER)}/out/{name}": value for name, value in _reranked(inputs, table, files)}
    return found


def _reranked(inputs: Arrays, table: Arrays, files: Mapping[str, bytes]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """The features of golden lists, and the re-ranker's logits of them, by name."""

    def given(graph: str) -> dict[str, Any]:
        prefix = f"{_stem(graph)}/in/"
        return {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}

    users, vectors = given(folder.RANKER), table["item_vectors"].astype(np.float32)
    features = Features(**{one.name: users[one.name] for one in fields(Features)})
    entries = np.load(io.BytesIO(files[folder.COUNTS]), allow_pickle=False)
    counts = Counts(entries, len(vectors))
    found = candidate_features(features, Lists(**given(folder.RERANKER)), vectors, counts)
    yield "features", found
    yield "logits", session_of(files[folder.RERANKER]).run(["logits"], {"features": found})[0]


def npy_bytes(array: NDArray[np.generic]) -> bytes:
    """The array as a .npy file, by rows."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(arrays: Arrays) -> bytes:
    """The arrays as a .npz file that is the same for the same arrays: numpy's own carries the time of writing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(array))
    return buffer.getvalue()


def _stem(file: str) -> str:
    return file.removesuffix(".onnx")
