"""A start for encoders of raw input: before behaviour is learned, content tells items apart from content alone.

Two views of one item, such as two crops of its picture, belong together, and apart from views of other items; so do
an item's words and its picture where both are encoded (Chen et al., SimCLR, ICML 2020; Radford et al., CLIP, ICML
2021). What the encoders' trunks see after that stays as it is, so that learning from behaviour costs no more than with
features that were computed elsewhere; their projections learn on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_export.encoders import CnnImage, LstmText, RawEncoder

BATCH = 256
"""Items that are told apart in a step. More tell more, and an item's own variants in other colours come to be among
them."""

LEARNING_RATE = 1e-3
"""Of Adam, falling to nothing by a half cosine."""

TEMPERATURE = 0.1
"""Of the cosines, as in SimCLR."""

WIDTH = 128
"""Of the vectors that are compared, which are forgotten after the pretext: what trunks see before that serves better
(Chen et al., table 3)."""

WORD_DROPOUT = 0.5
"""Share of the words that a view of a text lacks: the other half still says what the thing is."""

LEAST_CROP = 0.6
"""Smallest side of a crop as a share of the picture's: what is on it stays on it."""

JITTER = 0.2
"""How far brightness and contrast of a view are from the picture's. Hues stay: they are what shoppers look for."""

_CAPABILITIES: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()

HALF_PRECISION = bool(_CAPABILITIES.get("avx512_bf16") or _CAPABILITIES.get("amx_bf16"))

SEE_CHUNK = 512
"""Items that trunks look at at a time afterwards."""


@dataclass(frozen=True)
class Begun:
    """Trunks that have learned from content, by the name of their encoder."""

    trunks: Mapping[str, Mapping[str, Tensor]]
    """The encoders' weights."""
    seen: Mapping[str, Tensor]
    """What each trunk makes of the items, (items, width)."""

    @property
    def columns(self) -> dict[str, NDArray[np.float32]]:
        """What each trunk makes of the items, by encoder, every value as far from the mean as usual is 1."""
        return {name: ((each - each.mean(0)) / each.std(0).clamp(min=1e-6)).numpy() for name, each in self.seen.items()}


def begin(encoders: Mapping[str, RawEncoder], content: Mapping[str, Tensor], passes: int, seed: int) -> Begun:
    """Let the trunks of `encoders` learn from the items' content.

    Args:
        encoders: By name; changed in place.
        content: Arrays by the names of the encoders' inputs, each (items, …).
        passes: Over the items.
        seed: Of everything random.
    """
    generator = torch.Generator().manual_seed(seed)
    raw = {name: content[encoder.inputs[0]] for name, encoder in encoders.items()}
    heads = nn.ModuleDict({name: _head(encoder.width) for name, encoder in encoders.items()})
    parameters = [*heads.parameters(), *(each for encoder in encoders.values() for each in encoder.parameters())]
    items = len(next(iter(raw.values())))
    batches = max(1, items // BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes * batches)
    for _ in range(passes):
        for batch in torch.randperm(items, generator=generator).tensor_split(batches):
            seen = [
                functional.normalize(heads[name](_trunk(encoder, _view(encoder, raw[name][batch], generator))), dim=1)
                for name, encoder in encoders.items()
                for _ in range(2)
            ]
            loss = torch.stack([_contrast(seen[at], seen[at + 1]) for at in range(0, len(seen), 2)]).mean()
            if len(encoders) == 2:
                loss = loss + (_contrast(seen[0], seen[2]) + _contrast(seen[1], seen[3])) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        made = {
            name: torch.cat([encoder.trunk(chunk) for chunk in raw[name].split(SEE_CHUNK)])
            for name, encoder in encoders.items()
        }
    return Begun({name: encoder.state_dict() for name, encoder in encoders.items()}, made)


def _trunk(encoder: RawEncoder, view: Tensor) -> Tensor:
    """What the trunk sees; convolutions in half precision where the processor has it: three times as fast."""
    with torch.autocast("cpu", torch.bfloat16, enabled=HALF_PRECISION and isinstance(encoder, CnnImage)):
        return encoder.trunk(view).float()


def _head(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, WIDTH))


def _contrast(one: Tensor, other: Tensor) -> Tensor:
    """How badly each row of unit vectors (items, width) is told to belong to its counterpart, both ways, nats."""
    cosines = one @ other.T / TEMPERATURE
    own = torch.arange(len(one))
    return (functional.cross_entropy(cosines, own) + functional.cross_entropy(cosines.T, own)) / 2


def _view(encoder: RawEncoder, raw: Tensor, generator: torch.Generator) -> Tensor:
    """The items as they might have been as well."""
    if isinstance(encoder, LstmText):
        return raw * (torch.rand(raw.shape, generator=generator) >= WORD_DROPOUT)
    assert isinstance(encoder, CnnImage)  # noqa: S101 - there are no other encoders of raw input
    return picture_views(raw, generator)


def picture_views(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures, uint8 (items, 3, size, size), cropped, mirrored, brighter or darker, at random; values as before."""
    count = len(pictures)

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    scale = drawn(LEAST_CROP, 1.0)
    mirrored = torch.where(drawn(0, 1) < 0.5, -1.0, 1.0)
    zeros = torch.zeros(count)
    across = torch.stack([scale * mirrored, zeros, drawn(-1, 1) * (1 - scale)], dim=1)
    down = torch.stack([zeros, scale, drawn(-1, 1) * (1 - scale)], dim=1)
    grid = functional.affine_grid(torch.stack([across, down], dim=1), list(pictures.shape), align_corners=False)
    cropped = functional.grid_sample(pictures.float(), grid, padding_mode="border", align_corners=False)
    mean = cropped.mean((1, 2, 3), keepdim=True)
    contrast, brightness = (drawn(1 - JITTER, 1 + JITTER).reshape(-1, 1, 1, 1) for _ in range(2))
    return (((cropped - mean) * contrast + mean) * brightness).clamp(0, 255)
