"""The user side: a history of item vectors, event types and time gaps, and the profile's affinities, as one vector."""

import torch
from torch import Tensor, nn

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.profiles.record import PRICE_BANDS, TYPE_SLOTS, WINDOWS_MS
from model_export.config import ModelConfig

GAP_BUCKETS = 24
"""Time gaps are told apart by powers of two: 2²³ s are 97 days, beyond which a pause is just long."""

UNCOUNTED = (0, int(EventType.FOLLOW), int(EventType.IMPRESSION))
"""Types whose counts the model does not look at: they are not part of a history, so training does not see them."""


def gap_buckets(gaps: Tensor) -> Tensor:
    """Buckets of time gaps in seconds (>= 0): floor(log2(1 + gap)), int64."""
    return torch.log2(1.0 + gaps).to(torch.int64).clamp(0, GAP_BUCKETS - 1)


class SequenceEncoder(nn.Module):
    """States of a history at each of its places, each knowing only what came before: (batch, length, dim)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.types = nn.Embedding(TYPE_SLOTS, dim)
        self.gaps = nn.Embedding(GAP_BUCKETS, dim)
        for embedding in (self.types, self.gaps):
            nn.init.normal_(embedding.weight, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.body = _Gru(config) if config.user_encoder == "gru" else _Attention(config)

    def forward(self, items: Tensor, types: Tensor, gaps: Tensor, place: Tensor | None = None) -> Tensor:
        """Encode histories.

        Args:
            items: Item vectors, float32 (batch, length, dim).
            types: `EventType` codes, int64 (batch, length).
            gaps: Seconds since the event before (0 for the first), float32 (batch, length).
            place: Where the state is wanted, int64 (batch,). Then it is (batch, dim), and a tenth cheaper to serve.
        """
        states: Tensor = self.body(self.dropout(items + self.types(types) + self.gaps(gap_buckets(gaps))), place)
        return states


def _at(values: Tensor, place: Tensor) -> Tensor:
    """The entry of each sequence at `place` (batch,), (batch, dim)."""
    return values.gather(1, place.reshape(-1, 1, 1).expand(-1, 1, values.shape[2])).squeeze(1)


class _Gru(nn.Module):
    """A GRU (Hidasi et al., ICLR 2016) beside the newest item itself, mixed by a linear layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.gru = nn.GRU(config.dim, config.dim, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.mix = nn.Linear(2 * config.dim, config.dim)
        with torch.no_grad():
            # Begins as "like the newest item": the best guess before anything is learned.
            self.mix.weight.zero_()
            self.mix.weight[:, config.dim :] = torch.eye(config.dim)
            self.mix.weight[:, : config.dim] = 0.1 * torch.randn(config.dim, config.dim) / config.dim**0.5
            self.mix.bias.zero_()

    def forward(self, inputs: Tensor, place: Tensor | None = None) -> Tensor:
        states, _ = self.gru(inputs)
        if place is not None:
            states, inputs = _at(states, place), _at(inputs, place)
        mixed: Tensor = self.mix(torch.cat([self.dropout(states), inputs], -1))
        return mixed


class _Attention(nn.Module):
    """Causal self-attention blocks with learned places (Kang and McAuley, SASRec, ICDM 2018), normalised first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(config.history, config.dim) * 0.02)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.out = nn.Linear(config.dim, config.dim)

    def forward(self, inputs: Tensor, place: Tensor | None = None) -> Tensor:
        length = inputs.shape[1]
        states = inputs + self.places[:length]
        order = torch.arange(length, device=inputs.device)
        future = order.unsqueeze(0) > order.unsqueeze(1)
        for block in self.blocks:
            states = block(states, future)
        if place is not None:
            states, inputs = _at(states, place), _at(inputs, place)
        seen: Tensor = self.out(self.norm(states))
        return seen + inputs


class _Block(nn.Module):
    HEADS = 2
    """SASRec uses one, its successors two; more make each too narrow at 64 dimensions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.dim
        self.before = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.between = nn.LayerNorm(dim)
        self.feed = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(2 * dim, dim)
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, future: Tensor) -> Tensor:
        batch, length, dim = states.shape
        qkv = self.qkv(self.before(states)).reshape(batch, length, 3, self.HEADS, dim // self.HEADS)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))
        scores = query @ key.transpose(2, 3) / (dim // self.HEADS) ** 0.5
        weights = torch.softmax(scores.masked_fill(future, -1e9), -1)
        read = (self.dropout(weights) @ value).transpose(1, 2).reshape(batch, length, dim)
        states = states + self.dropout(self.out(read))
        fed: Tensor = self.dropout(self.feed(self.between(states)))
        return states + fed


class SideEncoder(nn.Module):
    """What the rolling profile knows beside the history: affinities and counts, as an addition to the user's vector."""

    counted: Tensor

    def __init__(self, config: ModelConfig, categories: int, brands: int) -> None:
        super().__init__()
        self.categories = nn.Embedding(categories + 1, config.dim, padding_idx=0)
        self.brands = nn.Embedding(brands + 1, config.dim, padding_idx=0)
        for embedding in (self.categories, self.brands):
            nn.init.normal_(embedding.weight, std=0.1)
            with torch.no_grad():
                embedding.weight[0] = 0.0
        windows = len(WINDOWS_MS)
        self.mix = nn.Linear(2 * config.dim + PRICE_BANDS + windows * TYPE_SLOTS, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.dim, config.dim)
        # Begins at nothing, so that a history is what first shapes the user's vector.
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        counted = torch.ones(TYPE_SLOTS)
        counted[list(UNCOUNTED)] = 0.0
        self.register_buffer("counted", counted, persistent=False)

    def forward(self, categories: Tensor, brands: Tensor, price_bands: Tensor, type_counts: Tensor) -> Tensor:
        """Vectors (…, dim).

        Args:
            categories: Weighted mean of category embeddings, (…, dim).
            brands: As `categories`.
            price_bands: Weights of the bands, (…, 8), in any scale.
            type_counts: Decayed counts, (…, 3, 11).
        """
        bands = price_bands / price_bands.sum(-1, keepdim=True).clamp(min=1e-6)
        counts = torch.log1p(type_counts * self.counted).flatten(-2)
        mixed = torch.relu(self.mix(torch.cat([categories, brands, bands, counts], -1)))
        side: Tensor = self.out(self.dropout(mixed))
        return side

    @staticmethod
    def mean(embedding: nn.Embedding, slots: Tensor, weights: Tensor) -> Tensor:
        """The mean embedding of slots (batch, slots) by weight, (batch, dim); zeros where all are empty."""
        used = weights * (slots > 0)
        total: Tensor = (used.unsqueeze(1) @ embedding(slots)).squeeze(1)
        return total / used.sum(1, keepdim=True).clamp(min=1e-6)


class UserModel(nn.Module):
    """Sequence and side encoder together; the vector's product with an item's vector is the item's logit."""

    def __init__(self, config: ModelConfig, categories: int, brands: int) -> None:
        super().__init__()
        self.sequence = SequenceEncoder(config)
        self.side = SideEncoder(config, categories, brands)
