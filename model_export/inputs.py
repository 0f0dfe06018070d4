"""What is known of the items, as arrays, with the vocabularies behind them, and which encoders that can feed."""

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset
from mmrec_stream.data.requests import ItemFacts
from mmrec_stream.errors import UserError
from mmrec_stream.ranking.content import FEATURE, Content, Vocabularies, content_of, words
from model_export.config import ModelConfig
from model_export.encoders import ID, PRECOMPUTED, Attributes, CnnImage, LstmText
from model_export.pretrained import is_pretrained, pretrained_column

MAX_WORDS = 20_000
"""Words in a vocabulary, the most frequent ones; rarer ones share places by hash."""


@dataclass(frozen=True)
class Inputs:
    """What is known of the items, in the forms that model and fold read."""

    content: Content
    vocabularies: dict[str, list[str]]
    facts: ItemFacts
    catalogue: list[CatalogueItem]

    @property
    def sizes(self) -> dict[str, int]:
        """As for `make_encoder`."""
        widths = {FEATURE + name: values.shape[1] for name, values in self.content.features.items()}
        entries = {name: len(each) for name, each in self.vocabularies.items()}
        return entries | widths | {"images": self.content.images.shape[-1]}


def describe(dataset: Dataset, config: ModelConfig) -> Inputs:
    """Vocabularies and arrays of a data set's items."""
    catalogue = list(dataset.catalogue or [CatalogueItem(item_id=item_id) for item_id in dataset.item_ids])
    counts = Counter(word for item in catalogue for word in set(words(item)))
    vocabularies = {
        # A word of one item alone says nothing of any other.
        "tokens": sorted(word for word, count in counts.most_common(MAX_WORDS) if count > 1),
        "categories": sorted({item.category for item in catalogue if item.category}),
        "brands": sorted({item.brand for item in catalogue if item.brand}),
        "tags": sorted({tag for item in catalogue for tag in item.tags}),
    }
    widths: dict[str, int] = {}
    for item in catalogue:
        for name, vector in item.features.items():
            widths.setdefault(name, len(vector))
    pictures = any(item.thumbnail for item in catalogue)
    content = content_of(catalogue, Vocabularies.of(vocabularies), config.image_size if pictures else 0, widths)
    features = {**content.features, **{name: np.asarray(m, np.float32) for name, m in dataset.features.items()}}
    for name in config.encoders:
        # A column that the catalogue brings along need not be computed.
        if is_pretrained(name) and name not in features:
            features[name] = pretrained_column(name, catalogue)
    arrays = {f.name: getattr(content, f.name) for f in fields(content)} | {"features": features}
    facts = ItemFacts.of(list(dataset.item_ids), catalogue, vocabularies["categories"], vocabularies["brands"])
    return Inputs(Content(**arrays), vocabularies, facts, catalogue)


def encoder_names(config: ModelConfig, inputs: Inputs) -> tuple[str, ...]:
    """The encoders to use: those configured, or `id` and each that has something to read.

    Raises:
        UserError: A configured encoder does not exist or has nothing to read.
    """
    content = inputs.content
    there = {
        ID: True,
        LstmText.name: bool((content.tokens > 0).any()),
        CnnImage.name: bool(content.has_image.any()),
        Attributes.name: bool(
            (content.category > 0).any()
            or (content.brand > 0).any()
            or (content.price >= 0).any()
            or content.tags.any()
        ),
    }
    there |= {
        name if is_pretrained(name) else PRECOMPUTED + name: bool(c.any()) for name, c in content.features.items()
    }
    for name in config.encoders:
        if name not in there:
            raise UserError(f"there is no encoder {name} for this data; choose from {', '.join(there)}")
        if not there[name]:
            raise UserError(
                f"encoder {name}: no item has anything for it; choose from {', '.join(k for k in there if there[k])}"
            )
    if config.encoders:
        return config.encoders
    return tuple(name for name, useful in there.items() if useful)
