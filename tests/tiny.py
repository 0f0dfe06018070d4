"""A small real release: a synthetic shop's data, a model trained on it in seconds, exported as always.

It is made once a test session, so ask for `tiny_release()` instead of training in a test that only needs one.
"""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from mmrec_stream.data.dataset import Dataset, from_events
from mmrec_stream.simulator import Shoppers, make_shop
from model_export.config import ModelConfig
from model_export.hybrid import TrainedModel
from model_export.release import build_release
from model_export.rounds import release_split
from model_export.training import fit

NOW = 1_760_000_000_000
TINY = ModelConfig(dim=16, history=20, image_size=16, epochs=2, neighbours=8, recent=5, batch=32)


@cache
def tiny_dataset() -> Dataset:
    """80 shoppers and 60 products over three days, with texts, pictures and attributes."""
    shop = make_shop(60, seed=3)
    return from_events("tiny", Shoppers(shop, 80, seed=3, sessions_per_day=2.0).past(3.0, NOW), shop)


@cache
def tiny_model() -> TrainedModel:
    """A model of every encoder on `tiny_dataset`."""
    dataset = tiny_dataset()
    return fit(dataset, release_split(dataset), TINY)


@cache
def tiny_release() -> Path:
    """`tiny_model` as a release. Only for reading: copy it before you change it."""
    folder = Path(tempfile.mkdtemp(prefix="mmrec-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build_release(tiny_model(), folder, NOW, "tiny-1")
