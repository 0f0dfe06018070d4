"""The item side: content encoders, the id embedding, and the fusion that makes one vector of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from model_export.config import Fusion
from model_export.encoders import ID, INITIAL_LENGTH, Encoder, make_encoder
from model_export.fusion import FUSIONS


class ItemModel(nn.Module):
    """Vectors of items from what they are and, for those seen in training, from what was done with them.

    Modalities are in the order of `names`, `id` last. The id embedding of item i is row i; an item is known if it was
    seen in training, and the embedding of the others counts as missing.
    """

    known: Tensor

    def __init__(self, names: Sequence[str], dim: int, fusion: Fusion, known: Tensor, sizes: Mapping[str, int]) -> None:
        """See the class.

        Args:
            names: Encoder names, `id` among them or not.
            dim: Width of vectors.
            fusion: Name of the fusion.
            known: Which items training has seen, bool (items,).
            sizes: As for `make_encoder`.
        """
        super().__init__()
        self.has_id = ID in names
        contents = [name for name in names if name != ID]
        self.names = (*contents, ID) if self.has_id else tuple(contents)
        self.encoders = nn.ModuleList(make_encoder(name, dim, sizes) for name in contents)
        if self.has_id:
            self.ids = nn.Embedding(len(known), dim)
            nn.init.normal_(self.ids.weight, std=INITIAL_LENGTH / dim**0.5)
        self.fusion = FUSIONS[fusion](len(self.names), dim)
        self.register_buffer("known", known)
        self.dim = dim

    @property
    def inputs(self) -> list[str]:
        """Names of the content arrays that the encoders read, without repeats."""
        return list(dict.fromkeys(name for encoder in self.encoders for name in _inputs(encoder)))

    def encode(self, content: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Parts (items, encoders, dim) and present, bool (items, encoders), by content alone."""
        encoded = [encoder(*(content[name] for name in _inputs(encoder))) for encoder in self.encoders]
        return torch.stack([part for part, _ in encoded], 1), torch.stack([there for _, there in encoded], 1)

    def fuse(self, parts: Tensor | None, present: Tensor | None, rows: Tensor, id_dropout: float = 0.0) -> Tensor:
        """Vectors of the items `rows`, whose content is encoded in `parts` and `present`.

        Args:
            parts: (rows, encoders, dim), or None without content encoders.
            present: bool (rows, encoders).
            rows: int64 (rows,).
            id_dropout: Share of items whose id is hidden, for training; all of them at 1.
        """
        all_parts, all_present = [], []
        if parts is not None and present is not None:
            all_parts.append(parts)
            all_present.append(present)
        if self.has_id:
            seen = self.known[rows]
            if id_dropout > 0 and parts is not None:
                seen = seen & (torch.rand(len(rows), device=rows.device) >= id_dropout)
            all_parts.append(self.ids(rows).unsqueeze(1))
            all_present.append(seen.unsqueeze(1))
        vectors: Tensor = self.fusion(torch.cat(all_parts, 1), torch.cat(all_present, 1))
        return vectors


class ContentEncoder(nn.Module):
    """The item encoder as it is exported: vectors of items that training has not seen, by their content.

    A model of ids alone knows nothing of such items and gives zeros; `category` then only says how many there are.
    """

    def __init__(self, items: ItemModel) -> None:
        super().__init__()
        self.items = items
        self.inputs = items.inputs or ["category"]

    def forward(self, *arrays: Tensor) -> Tensor:
        """Arrays in the order of `inputs`; vectors (items, dim)."""
        if not self.items.inputs:
            return torch.zeros_like(arrays[0]).float().unsqueeze(1).repeat(1, self.items.dim)
        parts, present = self.items.encode(dict(zip(self.inputs, arrays, strict=True)))
        if self.items.has_id:
            parts = torch.cat([parts, torch.zeros_like(parts[:, :1])], 1)
            present = torch.cat([present, torch.zeros_like(present[:, :1])], 1)
        vectors: Tensor = self.items.fusion(parts, present)
        return vectors


def _inputs(encoder: nn.Module) -> tuple[str, ...]:
    assert isinstance(encoder, Encoder)  # noqa: S101 - ModuleList forgets the type
    return encoder.inputs
