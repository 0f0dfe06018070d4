"""p_item's side of a release: what items say of each other, as K weighted neighbours of each item.

A row mixes what followed the item in behaviour (directed, recency-weighted) with what resembles it by its vector.
Where behaviour has seen an item often, it decides; where it has not, content does.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec_stream.evaluation.dataset import Interactions
from mmrec_stream.ranking.items import CONTENT_TEMPERATURE
from model_export.baselines.item_item import content_neighbours, directed_cooccurrence, directed_ease
from model_export.config import Associations, ModelConfig


@dataclass(frozen=True)
class AssociationSettings:
    """How a row is made; chosen on validation."""

    window: float = 10
    """Farthest distance in a sequence that counts, each pair weighing 1 / distance: what is farther adds nothing."""
    backward: float = 0.3
    """Weight of what came before an item, beside what came after it."""
    discount: float = 0.0
    """Exponent of an item's frequency that its weight as a neighbour is divided by: 0 favours popular items."""
    trust: float = 2.0
    """Occurrences at which behaviour and content weigh the same in an item's row."""


def association_rows(
    config: ModelConfig,
    log: Interactions,
    vectors: NDArray[np.float32],
    settings: AssociationSettings,
    content: sp.csr_matrix | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The release's neighbours and weights, as of `neighbour_rows`.

    Args:
        config: Which associations, and how many.
        log: What behaviour is counted from.
        vectors: Item vectors (items, d).
        settings: How a row is made.
        content: `content_weights` of the vectors, where they are known already.
    """
    items = len(vectors)
    behaviour = behaviour_weights(config.associations, log, items, settings, repeats=config.repeats)
    if content is None:
        content = content_weights(vectors, config.neighbours)
    support = np.bincount(log.items, minlength=items)
    return neighbour_rows(behaviour, content, support, settings.trust, config.neighbours)


def behaviour_weights(
    kind: Associations, log: Interactions, items: int, settings: AssociationSettings, *, repeats: bool
) -> sp.csr_matrix:
    """Weights (items, items), not negative and not yet normalised, of what follows what; itself too, with `repeats`."""
    if kind == "counted":
        window, backward = int(settings.window), settings.backward
        weights = directed_cooccurrence(log, items, window=window, backward=backward, row_power=0.0, repeats=repeats)
    else:
        dense = directed_ease(log, items, repeats=repeats)
        dense[dense < 1e-4] = 0.0  # a ten-thousandth of a next item never reaches a list, and costs memory
        weights = sp.csr_matrix(dense)
    if settings.discount:
        counts = np.bincount(log.items, minlength=items)
        return sp.csr_matrix(weights @ sp.diags(np.maximum(counts, 1.0) ** -settings.discount))
    return weights


def content_weights(vectors: NDArray[np.float32], neighbours: int) -> sp.csr_matrix:
    """Weights (items, items), not yet normalised, of what resembles what by its vector (items, d)."""
    if len(vectors) < 2:
        return sp.csr_matrix(np.zeros((1, 1), dtype=np.float32))
    content = content_neighbours(vectors, min(neighbours, len(vectors) - 1))
    content.data = np.exp((content.data - 1.0) / CONTENT_TEMPERATURE)
    return content


def neighbour_rows(
    behaviour: sp.csr_matrix, content: sp.csr_matrix, support: NDArray[np.int64], trust: float, neighbours: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The release's rows: neighbours int32 (items, K), −1 where there is none, and their weights, which sum to 1.

    Args:
        behaviour: (items, items), as `behaviour_weights` gives it.
        content: (items, items), as `content_weights` gives it.
        support: How often each item occurs in the log, (items,).
        trust: See `AssociationSettings`.
        neighbours: K.
    """
    share = support / (support + trust)
    # An item without any successor has only content to go by, however often it occurs.
    share = np.where(np.diff(behaviour.indptr) > 0, share, 0.0)
    mixed = sp.csr_matrix(sp.diags(share) @ _distributions(behaviour) + sp.diags(1.0 - share) @ _distributions(content))
    return _heaviest(mixed, neighbours)


def _distributions(matrix: sp.csr_matrix) -> sp.csr_matrix:
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(1.0 / np.maximum(sums, 1e-12)) @ matrix)


def _heaviest(matrix: sp.csr_matrix, keep: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The `keep` heaviest entries of each row, heaviest first (ties by column), shared out to sum to 1."""
    matrix.sum_duplicates()
    items = matrix.shape[0]
    owner = np.repeat(np.arange(items), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, owner))
    rank = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = (rank < keep) & (matrix.data[order] > 0)
    neighbours = np.full((items, keep), -1, dtype=np.int32)
    weights = np.zeros((items, keep), dtype=np.float32)
    neighbours[owner[order][kept], rank[kept]] = matrix.indices[order][kept]
    weights[owner[order][kept], rank[kept]] = matrix.data[order][kept]
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return neighbours, weights.astype(np.float32)
