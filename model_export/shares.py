"""How much each modality of the items decides: by leaving it out where lists are made."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.ranking.types import Features
from model_export.hybrid import SCORE_BATCH, user_vectors
from model_export.ranker import Ranker


def modality_shares(
    ranker: Ranker, asked: Features, vectors: NDArray[np.float32], without: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Shares that sum to 1, by modality: what part of p_user goes to other items when nothing is known of them by it.

    That part is the total variation distance of p_user with and without it, the mean over users. It can be compared
    between models and ways to fuse, as it is measured in what comes out.

    Args:
        ranker: The calibrated ranker.
        asked: The users' inputs.
        vectors: The items' vectors, (items, dim).
        without: By modality, the vectors as they are if all items have the mean of it, where there are several.
    """
    moved = {name: _moved(ranker, asked, vectors, others) for name, others in without.items()}
    total = sum(moved.values())
    return {name: round(part / total, 4) for name, part in moved.items()} if total > 0 else {}


def _moved(ranker: Ranker, asked: Features, vectors: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean total variation distance between p_user by one table of vectors and by another."""
    inverse = float(ranker.inverse_temperature)
    users, changed = user_vectors(ranker, asked, vectors).numpy(), user_vectors(ranker, asked, others).numpy()
    distance = 0.0
    for start in range(0, len(users), SCORE_BATCH):
        batch = slice(start, start + SCORE_BATCH)
        one = _softmax(inverse * users[batch] @ vectors.T)
        other = _softmax(inverse * changed[batch] @ others.T)
        distance += float(np.abs(one - other).sum()) / 2
    return distance / max(len(users), 1)


def _softmax(logits: NDArray[np.floating]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)
