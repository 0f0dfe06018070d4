"""The methods of the quality table by name: those of the literature, and ours with what it consists of."""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.quality.ours import Hybrid, Trainings
from benchmarks.quality.sets import Judged
from mmrec_stream.evaluation.baselines import counting, linear, social
from mmrec_stream.evaluation.methods import Method
from model_export.baselines import factors, towers, visual
from model_export.config import Fusion, ModelConfig
from model_export.hybrid import Part

Factory = Callable[[int], Method]
"""Makes a fresh method from a seed."""

BASELINES: dict[str, Factory] = {
    "popularity": counting.Popularity,
    "item-knn": counting.ItemKnn,
    "cooccurrence": counting.DirectedCooccurrence,
    "session-knn": counting.SessionKnn,
    "ease": linear.Ease,
    "ease-decayed": linear.DecayedEase,
    "ease-directed": linear.DirectedEase,
    "als": factors.Als,
    "bpr": factors.Bpr,
    "neural-cf": factors.NeuralCf,
    "gru4rec": towers.Gru4Rec,
    "sasrec": towers.SasRec,
}


CONFIGS: dict[str, ModelConfig] = {
    "hm": ModelConfig(
        # Raw input in place of the vectors that come with the set, which others' models have made of it.
        encoders=("id", "attributes", "lstm", "cnn"),
        image_size=64,
        pretext=5,
        # Lists are judged to a hundred places, as few customers buy anything of the first ten.
        places=100,
    ),
}
"""What is asked for beside the trainer's defaults on a set: what a model is made of. Nothing is tuned by hand."""


MODALITIES: dict[str, tuple[str, ...]] = {
    "metadata": ("attributes",),
    "lstm": ("lstm",),
    "cnn": ("cnn",),
    "lstm+cnn": ("lstm", "cnn"),
    "id+lstm+cnn": ("id", "lstm", "cnn"),
    "minilm": ("precomputed:text",),
    "mobilenet": ("precomputed:image",),
    "minilm+mobilenet": ("precomputed:text", "precomputed:image"),
    "id+metadata+minilm+mobilenet": ("id", "attributes", "precomputed:text", "precomputed:image"),
}
"""What our model is made of where a set has texts and pictures: one modality alone, and several, trained from raw input
and computed by models that others trained on other data."""

FUSED = ("lstm+cnn", "id+lstm+cnn")
"""What is fused in each way, beside the weighted one."""


def methods_for(judged: Judged, trainings: Trainings) -> dict[str, Factory]:
    """Every method that a set has the inputs for, by name, baselines first; ours are trained by `trainings`."""
    features = judged.dataset.features
    content = [*sorted(features), "both"] if len(features) > 1 else sorted(features)
    content_methods: dict[str, Factory] = {f"content-knn {name}": _content(name) for name in content}
    content_methods |= {f"vbpr {name}": _vbpr(name) for name in content}
    if judged.dataset.catalogue is not None:
        content_methods["description-knn"] = counting.DescriptionKnn
    social_methods: dict[str, Factory] = {}
    if judged.dataset.social is not None:
        social_methods = {"trustees": social.TrusteesPopularity, "cooccurrence+social": social.SocialCooccurrence}
    return BASELINES | social_methods | content_methods | _ours(judged, trainings)


def config_of(judged: Judged) -> ModelConfig:
    """The configuration that a set's `ours` is trained with."""
    return replace(CONFIGS.get(judged.dataset.name, ModelConfig()), repeats=not judged.split.mask_history)


def _ours(judged: Judged, trainings: Trainings) -> dict[str, Factory]:
    """The hybrid and its halves; with several modalities, each alone and each way of fusing them too."""
    config = config_of(judged)
    variants: dict[str, tuple[ModelConfig, Part]] = {
        "ours alpha=0": (config, "item"),
        "ours alpha=1": (config, "user"),
        "ours": (config, "mixed"),
        "ours reranked": (config, "reranked"),
    }
    if judged.dataset.features:
        for name, encoders in MODALITIES.items():
            variants[f"ours {name}"] = (replace(config, encoders=encoders), "mixed")
        fusions: tuple[Fusion, ...] = ("concat", "attention")
        for fusion in fusions:
            for name in FUSED:
                variants[f"ours {name} {fusion}"] = (
                    replace(config, encoders=MODALITIES[name], fusion=fusion),
                    "mixed",
                )
    return {name: _hybrid(trainings, *variant) for name, variant in variants.items()}


def _hybrid(trainings: Trainings, config: ModelConfig, part: Part) -> Factory:
    return lambda seed: Hybrid(trainings, replace(config, seed=seed), part)


def _content(modality: str) -> Factory:
    return lambda seed: counting.ContentKnn(modality, seed)


def _vbpr(modality: str) -> Factory:
    return lambda seed: visual.Vbpr(modality, seed)
