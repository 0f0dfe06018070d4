"""What a model is made of and how it is trained: every setting, with the reason of its default."""

from dataclasses import dataclass
from typing import Literal

Fusion = Literal["weighted", "concat", "attention"]
UserEncoderName = Literal["gru", "attention"]
Associations = Literal["auto", "counted", "regressed"]


@dataclass(frozen=True)
class ModelConfig:
    """The settings of one training run."""

    dim: int = 64
    """Width of item and user vectors. 64 ranks as well as 128 on catalogues below 100,000 items, at half the cost."""

    history: int = 50
    """Most events of a user that are read: what a profile's ring holds."""

    encoders: tuple[str, ...] = ()
    """Names of the item encoders, see `model_export.encoders`; none: `id`, and what the data has something for."""

    fusion: Fusion = "weighted"
    """How the modalities of an item become one vector."""

    user_encoder: UserEncoderName = "gru"
    """How a history becomes a vector. A GRU costs a quarter of an attention block when serving."""

    layers: int = 1
    """Blocks of the user encoder."""

    dropout: float = 0.5
    """Share of values dropped between layers in training. On Amazon Beauty's validation .5 ranks better than .4: the
    usual .2 is for logs that are far larger than those of most shops."""

    id_dropout: float = 0.2
    """Share of items whose id embedding is hidden in a training step, so that content alone finds the right place."""

    image_size: int = 32
    """Pixels a side of the pictures the CNN sees: shape and colour survive, and 2,000 items encode in .1 s. From 64 on
    the network is wider."""

    pretext: int = 0
    """Passes over texts and pictures from which their encoders learn before behaviour is looked at, and which fix what
    they see: see `model_export.pretext`. 0: they learn from behaviour alone, all the way down."""

    epochs: int = 30
    """Most passes over the training sequences; early stopping usually ends before."""

    minutes: float | None = None
    """Most time for the passes; a pass that is under way then is cut short."""

    patience: int = 3
    """Passes without a better validation metric before training stops."""

    batch: int = 128
    """Sequences a step."""

    learning_rate: float = 2e-3
    """Of Adam, after the first hundred steps."""

    weight_decay: float = 0.0
    """L2 penalty of AdamW."""

    negatives: int = 2048
    """Items sampled a step to stand for the catalogue in the softmax. 1,024 to 2,048 shared ones reach the quality of
    all items at a tenth of the cost."""

    full_softmax_items: int = 4096
    """Catalogues up to this size are not sampled: the exact softmax costs no more there."""

    factors: bool = True
    """Whether id embeddings begin at factors of co-occurrence, which saves most of the passes."""

    neighbours: int = 64
    """Associations kept of an item (K of the release)."""

    recent: int = 10
    """Newest events whose associations make up p_item."""

    associations: Associations = "auto"
    """`counted`: directed co-occurrence, as a stream counts it. `regressed`: mixed with EASE's regression of
    each item on all others, in a share that validation chooses, 0 among them; it needs memory for 12 · items² bytes,
    for up to some 20,000 items. `auto`: regressed for up to `regressed_items`."""

    regressed_items: int = 5_000
    """Catalogues up to this size have regressed associations where nothing else is asked for: they cost 300 MB and a
    few seconds. On LastFM (3,646 items) they foresee a fifth more; on Amazon Beauty (12,101) one per cent, for half a
    minute."""

    places: int = 10
    """Places of a list that validation looks at, as NDCG. Where few cases have any of their targets among the first
    ten, what is best there is chance, and a hundred places tell settings apart."""

    rerank: bool = True
    """Whether a re-ranker is fitted on the validation cases; it is kept where lists are better with it. That takes a
    minute for 20,000 cases, and seconds for a release's."""

    repeats: bool = False
    """Whether an item that the user has had before is something to predict."""

    seed: int = 0
    """Of everything random: the same seed, data and machine give the same release."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train. On CUDA, mixed precision and torch.compile are used."""
