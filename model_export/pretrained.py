"""Pretrained encoders by name: sentence-transformers reads texts, timm looks at pictures, both frozen.

Their vectors become feature columns under the encoder's full name, such as `sentence-transformers:all-MiniLM-L6-v2`,
and are projected like any precomputed column. A product that comes in on the catalogue topic is encoded by what it
brings: its `features` may hold the column under that name, and without it the modality counts as missing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.errors import UserError, first_line
from mmrec_stream.pictures.thumbnails import thumbnail_pixels

TEXT = "sentence-transformers:"
IMAGE = "timm:"

BATCH = 64
"""Items encoded at a time: larger batches gain nothing on a CPU."""


def is_pretrained(name: str) -> bool:
    """Whether an encoder name means a pretrained one."""
    return name.startswith((TEXT, IMAGE))


def pretrained_column(name: str, items: Sequence[CatalogueItem]) -> NDArray[np.float32]:
    """The feature column of a pretrained encoder, (items, width); zeros for items without the modality.

    Args:
        name: `sentence-transformers:MODEL` or `timm:MODEL`; MODEL is a name on the model hub or a local folder.
        items: What to encode.

    Raises:
        UserError: The library is not installed, or the model cannot be loaded.
    """
    model = name.split(":", 1)[1]
    return _texts(model, items) if name.startswith(TEXT) else _pictures(model, items)


def _texts(name: str, items: Sequence[CatalogueItem]) -> NDArray[np.float32]:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise UserError(f"encoder {TEXT}{name} needs: pip install 'mmrec-stream[pretrained]' ({error})") from None
    try:
        # Code that comes along with a model is never run.
        model = SentenceTransformer(name, trust_remote_code=False, device="cpu")
    except Exception as error:
        raise _not_loaded(TEXT + name, error) from error
    texts = [f"{item.title}. {item.description}".strip(". ") for item in items]
    unique = sorted({text for text in texts if text})
    vectors = np.asarray(model.encode(unique, batch_size=BATCH, show_progress_bar=False), dtype=np.float32)
    place = {text: row for row, text in enumerate(unique)}
    column = np.zeros((len(items), vectors.shape[1] if len(unique) else 1), dtype=np.float32)
    for row, text in enumerate(texts):
        if text:
            column[row] = vectors[place[text]]
    return column


def _pictures(name: str, items: Sequence[CatalogueItem]) -> NDArray[np.float32]:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"encoder {IMAGE}{name} needs: pip install 'mmrec-stream[pretrained]' ({error})") from None
    except Exception as error:  # a torchvision built for another torch fails in ways of its own
        raise UserError(
            f"encoder {IMAGE}{name}: timm does not start: {first_line(error)}; install the torchvision that fits "
            f"torch {torch.__version__}, from the index that torch came from"
        ) from None
    try:
        wanted_model = f"local-dir:{name}" if Path(name).is_dir() else name
        model: Any = timm.create_model(wanted_model, pretrained=True, num_classes=0).eval()
        wanted = timm.data.resolve_model_data_config(model)
    except Exception as error:
        raise _not_loaded(IMAGE + name, error) from error
    size = int(wanted["input_size"][-1])
    mean, std = (torch.tensor(wanted[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    column = np.zeros((len(items), int(model.num_features)), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(items), BATCH):
            seen = [
                (start + row, pixels)
                for row, item in enumerate(items[start : start + BATCH])
                if item.thumbnail and (pixels := thumbnail_pixels(item.thumbnail, size)) is not None
            ]
            if seen:
                batch = torch.from_numpy(np.stack([pixels for _, pixels in seen])).float() / 255
                column[[row for row, _ in seen]] = model((batch - mean) / std).numpy()
    return column


def _not_loaded(name: str, error: Exception) -> UserError:
    return UserError(f"encoder {name} cannot be loaded: {first_line(error)}; check the name, or give a local folder")
