"""Item encoders: one modality of an item as a vector, all behind one contract.

An encoder reads named arrays of `mmrec_stream.ranking.content.Content` and says, for each item, the vector and whether
the item has this modality at all. Items without it get any vector: the fusion never looks at it.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmrec_stream.ranking.content import FEATURE, TOKEN_BUCKETS

Encoded = tuple[Tensor, Tensor]
"""Vectors (items, dim) and whether each item has the modality, bool (items,)."""

INITIAL_LENGTH = 1.0
"""Length of a modality's vector before it is trained: that of an id embedding, so that no modality drowns the others
and the first logits are around 1."""


LARGE_PICTURE = 64
"""Pixels a side from which on details are worth a wider network: some eight times the time."""


class Encoder(nn.Module):
    """The contract: `inputs` names the arrays that `forward` takes, in this order."""

    inputs: tuple[str, ...]

    def forward(self, *arrays: Tensor) -> Encoded:
        """Encode a batch of items."""
        raise NotImplementedError


class Scaled(nn.Module):
    """Layer normalisation to vectors of `INITIAL_LENGTH`, with learned gains."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        nn.init.constant_(self.norm.weight, INITIAL_LENGTH / dim**0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """(items, dim)."""
        scaled: Tensor = self.norm(vectors)
        return scaled


class RawEncoder(Encoder):
    """An encoder of raw input: a trunk sees it, a projection says what that means for behaviour.

    In place of the first input, `forward` also takes what the trunk has made of it already, as floats: trunks that have
    learned from content alone stay as they are, see `model_export.pretext`, and look at each item once.
    """

    width: int
    """Of what the trunk sees."""
    project: nn.Sequential

    def trunk(self, raw: Tensor) -> Tensor:
        """What is in raw input, (items, width)."""
        raise NotImplementedError

    def begin_at(self, seen: Tensor) -> None:
        """Begin with the projection to the principal components of what the trunk sees of a catalogue, and leave it so.

        Args:
            seen: (items, width).
        """
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        project = self.project[0]
        assert isinstance(project, nn.Linear)  # noqa: S101 - Sequential forgets the type
        mean, components = _components(seen, project.out_features)
        with torch.no_grad():
            project.weight.zero_()
            project.weight[: len(components)] = components
            project.bias.copy_(-project.weight @ mean)
        for parameter in self.project.parameters():
            parameter.requires_grad_(True)


class LstmText(RawEncoder):
    """A bidirectional LSTM over the words, averaged over them (masked mean), projected."""

    inputs: tuple[str, ...] = ("tokens",)
    name: ClassVar[str] = "lstm"

    def __init__(self, dim: int, vocabulary: int) -> None:
        super().__init__()
        self.width = 2 * dim
        self.embedding = nn.Embedding(vocabulary + 1 + TOKEN_BUCKETS, dim, padding_idx=0)
        self.lstm = nn.LSTM(dim, dim // 2, batch_first=True, bidirectional=True)
        self.project = nn.Sequential(nn.Linear(self.width, dim), Scaled(dim))

    def trunk(self, raw: Tensor) -> Tensor:
        """Of tokens, int64 (items, words), 0 = padding; zeros where there are none."""
        mask = (raw > 0).unsqueeze(-1).float()
        words = self.embedding(raw)
        states, _ = self.lstm(words)
        # The plain mean of the words beside the LSTM's: the bag learns from the first step, the order later.
        both = torch.cat([states, words], dim=-1)
        mean: Tensor = (both * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        return mean

    def forward(self, *arrays: Tensor) -> Encoded:
        """Tokens, int64 (items, words), 0 = padding, or what the trunk sees of them."""
        (tokens,) = arrays
        seen = tokens if tokens.is_floating_point() else self.trunk(tokens)
        return self.project(seen), (tokens != 0).any(1)


class CnnImage(RawEncoder):
    """Strided convolutions with group normalisation, averaged over the picture, projected."""

    inputs: tuple[str, ...] = ("images", "has_image")
    name: ClassVar[str] = "cnn"

    def __init__(self, dim: int, size: int) -> None:
        """For pictures of `size` pixels a side: three convolutions, or four wider ones from `LARGE_PICTURE` on."""
        super().__init__()
        widths = (3, 32, 64, 128, 256) if size >= LARGE_PICTURE else (3, 16, 32, 64)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.ReLU())
                for before, after in pairwise(widths)
            )
        )
        self.width = widths[-1] + 6
        self.project = nn.Sequential(nn.Linear(self.width, dim), Scaled(dim))

    def trunk(self, raw: Tensor) -> Tensor:
        """Of images, (items, 3, size, size), values from 0 to 255."""
        pixels = (raw.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        shape = self.blocks(pixels).mean((2, 3))
        # Mean and spread of each colour, which the normalised blocks forget.
        mean = pixels.mean((2, 3))
        spread = ((pixels - mean[:, :, None, None]) ** 2).mean((2, 3)).sqrt()
        return torch.cat([shape, mean, spread], dim=1)

    def forward(self, *arrays: Tensor) -> Encoded:
        """Images, uint8 (items, 3, size, size), or what the trunk sees of them, and whether there is one, (items,)."""
        images, has_image = arrays
        return self.project(images if images.is_floating_point() else self.trunk(images)), has_image


class Attributes(Encoder):
    """Embeddings of category, brand and tags, and the price, summed by a small network."""

    inputs: tuple[str, ...] = ("category", "brand", "price", "tags")
    name: ClassVar[str] = "attributes"

    def __init__(self, dim: int, categories: int, brands: int, tags: int) -> None:
        super().__init__()
        self.category = nn.Embedding(categories + 1, dim, padding_idx=0)
        self.brand = nn.Embedding(brands + 1, dim, padding_idx=0)
        self.tags = nn.Embedding(tags + 1, dim, padding_idx=0)
        self.price = nn.Linear(3, dim)
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(dim, dim))
        self.scale = Scaled(dim)

    def forward(self, *arrays: Tensor) -> Encoded:
        """Category, brand int64 (items,); log price float32 (items,), −1 = unknown; tags int64 (items, tags)."""
        category, brand, price, tags = arrays
        known = (price >= 0).float()
        level = known * (price - 3.0)  # e³ ≈ 20: the middle of usual prices, so that the input is centred
        mask = (tags > 0).unsqueeze(-1).float()
        tag = (self.tags(tags) * mask).sum(1) / mask.sum(1).clamp(min=1.0)
        total = (
            self.category(category)
            + self.brand(brand)
            + tag
            + self.price(torch.stack([known, level, level * level * 0.3], dim=-1))
        )
        there = (category > 0) | (brand > 0) | (price >= 0) | (tags > 0).any(1)
        return self.scale(total + self.project(total)), there


class Precomputed(Encoder):
    """A feature column that was computed elsewhere, scaled to unit length and projected."""

    name: ClassVar[str] = "precomputed"

    def __init__(self, dim: int, column: str, width: int) -> None:
        super().__init__()
        self.inputs = (FEATURE + column,)
        self.project = nn.Sequential(nn.Linear(width, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.skip = nn.Linear(width, dim)
        self.scale = Scaled(dim)

    def begin_at(self, vectors: Tensor) -> None:
        """Start as the first principal components of a catalogue's column, float32 (items, width).

        Then items that resemble each other begin side by side, and training moves them from there.
        """
        unit, there = _unit(vectors)
        unit = unit[there]
        mean, components = _components(unit, self.skip.out_features)
        last = self.project[-1]
        assert isinstance(last, nn.Linear)  # noqa: S101 - Sequential forgets the type
        with torch.no_grad():
            self.skip.weight.zero_()
            self.skip.weight[: len(components)] = components
            self.skip.bias.copy_(-self.skip.weight @ mean)
            last.weight.zero_()
            last.bias.zero_()

    def forward(self, *arrays: Tensor) -> Encoded:
        """Vectors, float32 (items, width), zeros = none."""
        unit, there = _unit(*arrays)
        return self.scale(self.project(unit) + self.skip(unit)), there


def _components(vectors: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Mean (width,) and the first `most` principal components (components, width) of vectors (items, width)."""
    mean = vectors.mean(0)
    spread = (vectors - mean).T @ (vectors - mean)
    return mean, torch.linalg.eigh(spread).eigenvectors.flip(1)[:, :most].T


def _unit(vectors: Tensor) -> Encoded:
    """Vectors of length √width, so that single values are around 1 whatever the width, and which were not zero."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / norm.clamp(min=1e-6) * vectors.shape[1] ** 0.5, norm.squeeze(1) > 0


PRECOMPUTED = "precomputed:"
"""What the name of a precomputed encoder begins with; the column's name follows."""

ID = "id"
"""The learned embedding of each item: no encoder, as items that are not trained have none."""


def make_encoder(name: str, dim: int, sizes: Mapping[str, int]) -> Encoder:
    """The encoder called `name`.

    Args:
        name: `lstm`, `cnn`, `attributes`, `precomputed:COLUMN`, or a pretrained one, whose column has its full name.
        dim: Width of its vectors.
        sizes: Entries of each vocabulary (`tokens`, `categories`, `brands`, `tags`), the width of each column,
            and the pixels a side of `images`.
    """
    if name == LstmText.name:
        return LstmText(dim, sizes["tokens"])
    if name == CnnImage.name:
        return CnnImage(dim, sizes["images"])
    if name == Attributes.name:
        return Attributes(dim, sizes["categories"], sizes["brands"], sizes["tags"])
    column = name.removeprefix(PRECOMPUTED)
    return Precomputed(dim, column, sizes[FEATURE + column])
