"""Fusion: the vectors of an item's modalities become one, all ways behind one contract.

A fusion takes parts (items, modalities, dim) and present, bool (items, modalities). It gives vectors (items, dim).
What a missing modality's part holds makes no difference, and an item without any gets zeros.
"""

import torch
from torch import Tensor, nn

from model_export.config import Fusion


class WeightedFusion(nn.Module):
    """One learned weight a modality, shared out anew among those that an item has."""

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(modalities))

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """See the module."""
        weights = _shares(self.logits.expand(parts.shape[0], -1), present)
        vectors: Tensor = (weights.unsqueeze(-1) * parts).sum(1)
        return vectors


class AttentionFusion(nn.Module):
    """Weights of an item's own: what the parts say decides how much each counts."""

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.key = nn.Linear(dim, dim)
        self.query = nn.Parameter(torch.zeros(modalities, dim))
        self.bias = nn.Parameter(torch.zeros(modalities))

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """See the module."""
        scores = (torch.tanh(self.key(parts)) * self.query).sum(-1) + self.bias
        weights = _shares(scores, present)
        vectors: Tensor = (weights.unsqueeze(-1) * parts).sum(1)
        return vectors


class ConcatFusion(nn.Module):
    """The parts side by side through a small network, with a learned vector in place of a missing one.

    The mean of the parts is added, so that training begins where a plain sum is.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.zeros(modalities, dim))
        self.first = nn.Parameter(torch.randn(modalities, dim, dim) / (modalities * dim) ** 0.5)
        self.second = nn.Linear(dim, dim)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """See the module."""
        mask = present.unsqueeze(-1)
        filled = torch.where(mask, parts, self.missing)
        contributions = (filled.transpose(0, 1) @ self.first).transpose(0, 1)
        mean = torch.where(mask, parts, torch.zeros_like(parts)).sum(1) / mask.sum(1).clamp(min=1)
        fused: Tensor = (mean + self.second(torch.relu(contributions.sum(1)))) * present.any(1, keepdim=True)
        return fused


FUSIONS: dict[Fusion, type[WeightedFusion] | type[ConcatFusion] | type[AttentionFusion]] = {
    "weighted": WeightedFusion,
    "concat": ConcatFusion,
    "attention": AttentionFusion,
}


def _shares(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over what is present; all zeros where nothing is."""
    # −1e9 and not −∞: a row of −∞ alone would be NaN, and present zeroes it in the end anyway.
    return torch.softmax(torch.where(present, scores, torch.full_like(scores, -1e9)), dim=1) * present
