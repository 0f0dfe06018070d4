"""A trained model as a release folder."""

import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from mmrec_stream.evaluation.splits import next_clicks
from mmrec_stream.ranking.scorer import OUTPUTS, TABLE_INPUTS
from mmrec_stream.releases import folder
from mmrec_stream.releases.folder import write_release
from mmrec_stream.releases.manifest import AlphaBucket, Dimensions, Manifest, TrainingData
from mmrec_stream.releases.store import new_version
from model_export.export import OPSET, Arrays, export_item_encoder, export_ranker, serialize, signature
from model_export.hybrid import TrainedModel, case_features, request_batches
from model_export.items import ContentEncoder

GOLDEN_USERS = 4
GOLDEN_PLACES = 10
"""Golden outputs are made for real histories on the whole table: small enough to keep, large enough to touch every
operator."""


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
    graphs = {
        folder.RANKER: export_ranker(model.ranker, dim, neighbours),
        folder.ITEM_ENCODER: export_item_encoder(ContentEncoder(model.items), model.inputs.content),
    }
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
        opset=OPSET,
        graphs={name.removesuffix(".onnx"): signature(graph) for name, graph in graphs.items()},
        seed=model.config.seed,
    )
    arrays = {
        folder.ITEM_VECTORS: model.vectors,
        folder.NEIGHBOURS: model.neighbours,
        folder.NEIGHBOUR_WEIGHTS: model.neighbour_weights,
    }
    files = {name: serialize(graph) for name, graph in graphs.items()}
    files |= {name: npy_bytes(array) for name, array in arrays.items()}
    files[folder.ITEMS] = msgspec.json.encode(list(model.dataset.item_ids))
    files[folder.VOCABULARIES] = msgspec.json.encode(model.inputs.vocabularies)
    files[folder.GOLDEN] = npz_bytes(golden(model, graphs))
    path = store / version
    write_release(path, files, manifest)
    return path


def golden(model: TrainedModel, graphs: dict[str, onnx.ModelProto]) -> Arrays:
    """Inputs and outputs of both graphs, by `graph/in/name` and `graph/out/name`, on real users and items.

    The item table is not among them: it is the release's own.
    """
    log = model.dataset.interactions
    cases = next_clicks(log, model.dataset.users)
    cases = cases.where(np.linspace(0, len(cases) - 1, GOLDEN_USERS).astype(np.int64))
    (request,) = request_batches(case_features(cases, model.dataset, model.inputs, model.config))
    users: Arrays = {name: tensor.numpy() for name, tensor in request._asdict().items()}
    users["k"] = np.array([min(GOLDEN_PLACES, len(model.vectors))], dtype=np.int64)
    table: Arrays = dict(
        zip(
            TABLE_INPUTS,
            (model.vectors, model.neighbours, model.neighbour_weights, np.ones(len(model.vectors), dtype=bool)),
            strict=True,
        )
    )
    feed = model.inputs.content.feed()
    content: Arrays = {name: feed[name][:GOLDEN_USERS] for name in ContentEncoder(model.items).inputs}
    found: Arrays = {}
    for name, graph in graphs.items():
        session = ort.InferenceSession(serialize(graph), providers=["CPUExecutionProvider"])
        is_ranker = name == folder.RANKER
        own = users if is_ranker else content
        outputs = OUTPUTS if is_ranker else ("vectors",)
        prefix = name.removesuffix(".onnx")
        results = session.run(list(outputs), own | table if is_ranker else own)
        found |= {f"{prefix}/in/{key}": value for key, value in own.items()}
        found |= {f"{prefix}/out/{key}": value for key, value in zip(outputs, results, strict=True)}
    return found


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
