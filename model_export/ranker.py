"""The ranker: from a user's features and the item table to the best items, as it is exported and as it is judged.

p(u, i) = α · p_user(u, i) + (1 − α) · p_item(u, i), where p_user is the softmax of the user's and the items' vectors
at a fitted temperature, and p_item follows the associations of the newest events, weighted by how long ago in the
sequence they were and of what type.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmrec_stream.profiles.record import TYPE_SLOTS
from mmrec_stream.ranking.scorer import ALPHA_MARGIN
from model_export.config import ModelConfig
from model_export.users import SideEncoder, UserModel

BUCKETS = (1, 2, 3, 5, 10, 20)
"""Least history length of each α: steps in which what is known of a user about doubles."""

BLOCKED = -1e9
"""Added to the scores of what must not be recommended; far below any, and finite, so that nothing becomes NaN."""

UNAVAILABLE = -50.0
"""Added to the logits of what is not available: e⁻⁵⁰ of an available item's share is nothing, and yet no denormal
number, on which the exponential is ten times as slow (38 µs instead of 4 for 10,000 items). Scores of such items are
set to 0 in the end."""


class Request(NamedTuple):
    """The per-user inputs, as tensors, in the order and under the names of the graph's inputs."""

    history_rows: Tensor
    history_types: Tensor
    history_ages: Tensor
    lengths: Tensor
    categories: Tensor
    category_weights: Tensor
    brands: Tensor
    brand_weights: Tensor
    price_bands: Tensor
    type_counts: Tensor
    excluded: Tensor


class Table(NamedTuple):
    """The item-side inputs."""

    item_vectors: Tensor
    neighbours: Tensor
    neighbour_weights: Tensor
    available: Tensor


class Ranker(nn.Module):
    """See the module. `forward` takes the fields of `Request`, of `Table`, and k."""

    thresholds: Tensor
    alphas: Tensor
    place_logits: Tensor
    type_logits: Tensor
    inverse_temperature: Tensor

    def __init__(self, users: UserModel, config: ModelConfig) -> None:
        super().__init__()
        self.users = users
        self.recent = config.recent
        self.register_buffer("thresholds", torch.tensor(BUCKETS, dtype=torch.int64))
        self.register_buffer("alphas", torch.full((len(BUCKETS),), 0.5))
        self.register_buffer("inverse_temperature", torch.ones(()))
        # ln .7: each step back counts .7 of the one after it, until the fit on validation says otherwise.
        self.register_buffer("place_logits", -0.357 * torch.arange(config.recent, dtype=torch.float32))
        self.register_buffer("type_logits", torch.zeros(TYPE_SLOTS))

    def forward(self, *inputs: Tensor, k: int = 20) -> tuple[Tensor, ...]:
        """What `scorer.OUTPUTS` names, and then the fields of `users.Users` but α."""
        request, table = Request(*inputs[: len(Request._fields)]), Table(*inputs[len(Request._fields) :])
        users = self.inverse_temperature * self.user_vectors(request, table.item_vectors)
        p_user = self.shares(users, table)
        rows, weights = self.associated(request, table)
        alpha = self.alpha(request.lengths)
        # Scores over α: adding to p_user itself spares two passes over the whole catalogue.
        odds = ((1 - alpha) / alpha).unsqueeze(1)
        blocked = torch.where(request.excluded >= 0, BLOCKED, 0.0)
        where = torch.cat([rows, request.excluded.clamp(min=0)], 1)
        what = torch.cat([odds * weights, blocked], 1)
        mixed = p_user.scatter_add(1, where, what)
        best, chosen = torch.topk(mixed, k, dim=1)
        p_best = p_user.gather(1, chosen)
        scores = alpha.unsqueeze(1) * best * _of_rows(table.available, chosen)
        return chosen, scores, p_best, ((best - p_best) / odds).clamp(min=0), alpha, users, rows, weights

    def user_vectors(self, request: Request, item_vectors: Tensor) -> Tensor:
        """The users' vectors, (batch, dim); their product with an item's is its logit."""
        ages = request.history_ages
        gaps = torch.cat([torch.zeros_like(ages[:, :1]), ages[:, :-1] - ages[:, 1:]], 1).clamp(min=0)
        history = torch.nn.functional.embedding(request.history_rows, item_vectors)
        newest = self.users.sequence(history, request.history_types, gaps, request.lengths - 1)
        side = self.users.side
        addition = side(
            SideEncoder.mean(side.categories, request.categories, request.category_weights),
            SideEncoder.mean(side.brands, request.brands, request.brand_weights),
            request.price_bands,
            request.type_counts,
        )
        vectors: Tensor = newest + addition
        return vectors

    def p_user(self, users: Tensor, table: Table) -> Tensor:
        """The items' probabilities for users' vectors: next to 0 for unavailable items, (batch, items)."""
        return self.shares(self.inverse_temperature * users, table)

    @staticmethod
    def shares(users: Tensor, table: Table) -> Tensor:
        """As `p_user`, of vectors at the fitted temperature."""
        bias = torch.where(table.available, 0.0, UNAVAILABLE)
        return torch.softmax(users @ table.item_vectors.transpose(0, 1) + bias, 1)

    def associated(self, request: Request, table: Table, demand: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows (batch, recent · K) that the newest events point at, and with what weight; a row may come repeatedly.

        With `demand` (batch, items), associations weigh as `in_season` says; a release's own are of its season.
        """
        places = request.lengths.unsqueeze(1) - 1 - torch.arange(self.recent, device=request.lengths.device)
        there, places = places >= 0, places.clamp(min=0)
        types = request.history_types.gather(1, places)
        share = torch.softmax(torch.where(there, self.place_logits + self.type_logits[types], BLOCKED), 1)
        sources = request.history_rows.gather(1, places)
        rows = torch.nn.functional.embedding(sources, table.neighbours).flatten(1).clamp(min=0).to(torch.int64)
        weights = torch.nn.functional.embedding(sources, table.neighbour_weights)
        if demand is not None:
            weights = in_season(weights, demand.gather(1, rows).reshape(weights.shape))
        spread = (share.unsqueeze(2) * weights).flatten(1)
        return rows, spread * _of_rows(table.available, rows)

    def alpha(self, lengths: Tensor) -> Tensor:
        """α of each user, by history length, (batch,)."""
        bucket = ((lengths.unsqueeze(1) >= self.thresholds).sum(1) - 1).clamp(min=0)
        return self.alphas.gather(0, bucket)

    def set_alphas(self, alphas: Sequence[float]) -> None:
        """Mix with these α, one for each of `BUCKETS`, `ALPHA_MARGIN` away from 0 and 1 at least."""
        self.alphas.copy_(torch.tensor(alphas).clamp(ALPHA_MARGIN, 1 - ALPHA_MARGIN))

    def distributions(
        self, request: Request, users: Tensor, table: Table, demand: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """p_user and p_item of all items, (batch, items), and alpha, (batch,).

        Args:
            request: The users.
            users: Their vectors, (batch, dim).
            table: The items.
            demand: As for `associated`.
        """
        p_user = self.p_user(users, table)
        rows, weights = self.associated(request, table, demand)
        return p_user, torch.zeros_like(p_user).scatter_add(1, rows, weights), self.alpha(request.lengths)


def in_season(weights: Tensor, demand: Tensor) -> Tensor:
    """Association weights (…, K) times their neighbours' demand, of the same shape; a row sums to what it did."""
    weighed = weights * demand
    there = weights.sum(-1, keepdim=True)
    result: Tensor = weighed * (there / weighed.sum(-1, keepdim=True).clamp(min=1e-12))
    return result


def _of_rows(available: Tensor, rows: Tensor) -> Tensor:
    """1 where the item of a row is available, else 0; the shape of `rows`."""
    return torch.nn.functional.embedding(rows, available.unsqueeze(1).float()).squeeze(-1)
