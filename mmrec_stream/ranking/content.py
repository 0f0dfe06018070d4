"""Catalogue items as the arrays that the item encoder reads: the same for the trainer and for the stream."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_key
from mmrec_stream.pictures.thumbnails import thumbnail_pixels

MAX_TOKENS = 48
"""Words read of an item's text. Product titles have 5 to 15, and the first sentences of a description say what the
thing is; an LSTM's cost grows with each further one."""

TOKEN_BUCKETS = 64
"""Places that words outside the vocabulary share by hash, so that a new brand's name is still told from another's."""

MAX_TAGS = 8
"""Tags read of an item; the contract allows 64, but the first ones are the shop's most telling."""

FEATURE = "feature:"
"""What the encoder's inputs for precomputed vectors begin with."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Vocabularies:
    """The words and labels of a release; the index of an entry is its position + 1, 0 means none or unknown."""

    tokens: Mapping[str, int]
    categories: Mapping[str, int]
    brands: Mapping[str, int]
    tags: Mapping[str, int]

    @classmethod
    def of(cls, lists: Mapping[str, Sequence[str]]) -> "Vocabularies":
        """From the ordered lists of a release's vocabulary file."""
        return cls(
            *({text: index for index, text in enumerate(lists.get(name, ()), start=1)} for name in VOCABULARY_NAMES)
        )


VOCABULARY_NAMES = ("tokens", "categories", "brands", "tags")


@dataclass(frozen=True)
class Content:
    """What the item encoder reads of a batch of items; missing modalities are empty."""

    tokens: NDArray[np.int64]
    """(items, words), as wide as the longest text, 0 = padding."""
    images: NDArray[np.uint8]
    """(items, 3, size, size), RGB."""
    has_image: NDArray[np.bool_]
    """(items,)."""
    category: NDArray[np.int64]
    """(items,), 0 = unknown."""
    brand: NDArray[np.int64]
    price: NDArray[np.float32]
    """(items,): log(1 + price), −1 where unknown."""
    tags: NDArray[np.int64]
    """(items, MAX_TAGS), 0 = padding."""
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Precomputed vectors by name, (items, width); a row of zeros is an item without one."""

    def __len__(self) -> int:
        return len(self.category)

    def feed(self) -> dict[str, NDArray[np.generic]]:
        """All arrays by the names of the graph's inputs."""
        named: dict[str, NDArray[np.generic]] = {
            "tokens": self.tokens,
            "images": self.images,
            "has_image": self.has_image,
            "category": self.category,
            "brand": self.brand,
            "price": self.price,
            "tags": self.tags,
        }
        return named | {FEATURE + name: values for name, values in self.features.items()}


def content_key(item: CatalogueItem) -> int:
    """A key of all that an item's vector is made of, never 0, and not of its price or stock, which change often.

    The encoder reads the price too; it says little beside text and pictures, and a sale is no reason to encode. An
    address stands for the picture that lies there: whoever does not read it leaves it out of the item.
    """
    said = (item.title, item.description, item.category, item.brand, item.tags, item.features)
    picture = item.thumbnail or (item.image_url or "").encode()
    return xxh3_64_intdigest(msgspec.msgpack.encode(said) + picture) or 1


def words(item: CatalogueItem) -> list[str]:
    """The first `MAX_TOKENS` words of an item's title and description, in lower case."""
    text = f"{item.title} {item.description}".lower()
    return [match.group() for match, _ in zip(_WORD.finditer(text), range(MAX_TOKENS), strict=False)]


def content_of(
    items: Sequence[CatalogueItem], vocabularies: Vocabularies, image_size: int, widths: Mapping[str, int]
) -> Content:
    """The encoder's arrays for `items`.

    Args:
        items: Catalogue items.
        vocabularies: Of the release that encodes them.
        image_size: Pixels a side; 0 where the release does not look at pictures.
        widths: Width of each precomputed vector the release reads, by name; one of another width counts as missing.
    """
    count = len(items)
    texts = [words(item) for item in items]
    content = Content(
        tokens=np.zeros((count, max(map(len, texts), default=0) or 1), dtype=np.int64),
        images=np.zeros((count, 3, image_size, image_size), dtype=np.uint8),
        has_image=np.zeros(count, dtype=bool),
        category=np.array([vocabularies.categories.get(item.category or "", 0) for item in items], dtype=np.int64),
        brand=np.array([vocabularies.brands.get(item.brand or "", 0) for item in items], dtype=np.int64),
        price=np.array([-1.0 if item.price is None else np.log1p(item.price) for item in items], dtype=np.float32),
        tags=np.zeros((count, MAX_TAGS), dtype=np.int64),
        features={name: np.zeros((count, width), dtype=np.float32) for name, width in widths.items()},
    )
    for row, item in enumerate(items):
        for place, word in enumerate(texts[row]):
            content.tokens[row, place] = token_index(word, vocabularies.tokens)
        for place, tag in enumerate(item.tags[:MAX_TAGS]):
            content.tags[row, place] = vocabularies.tags.get(tag, 0)
        if image_size and item.thumbnail and (picture := thumbnail_pixels(item.thumbnail, image_size)) is not None:
            content.images[row] = picture
            content.has_image[row] = True
        for name, values in content.features.items():
            vector = item.features.get(name, ())
            if len(vector) == values.shape[1]:
                values[row] = vector
    return content


def encoded(
    encoder: ort.InferenceSession, items: Sequence[CatalogueItem], vocabularies: Vocabularies
) -> NDArray[np.float32]:
    """Vectors of catalogue items by what they are, (items, d).

    Args:
        encoder: A release's item encoder.
        items: Catalogue items.
        vocabularies: Of the same release.
    """
    inputs = {tensor.name: tensor.shape for tensor in encoder.get_inputs()}
    widths = {name.removeprefix(FEATURE): shape[1] for name, shape in inputs.items() if name.startswith(FEATURE)}
    size = inputs["images"][2] if "images" in inputs else 0
    feed = content_of(items, vocabularies, size, widths).feed()
    vectors: NDArray[np.float32] = encoder.run(["vectors"], {name: feed[name] for name in inputs})[0]
    return vectors


def token_index(word: str, tokens: Mapping[str, int]) -> int:
    """The word's index: its place in the vocabulary, or one of the shared places behind it."""
    return tokens.get(word) or len(tokens) + 1 + id_key(word) % TOKEN_BUCKETS
