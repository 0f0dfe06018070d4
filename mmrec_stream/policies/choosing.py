"""From scored candidates to lists: greedily, with caps and difference from what is above."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNCAPPED = 1 << 30


def choose(
    scores: NDArray[np.float32],
    vectors: NDArray[np.float32],
    categories: NDArray[np.int32],
    brands: NDArray[np.int32],
    k: int,
    *,
    per_category: int | None,
    per_brand: int | None,
    diversity: float,
) -> NDArray[np.int64]:
    """The places of up to `k` candidates for each user, best first, padded with −1: (users, k).

    Maximal marginal relevance (Carbonell and Goldstein, 1998): each next one maximises (1 − λ)·score / best score −
    λ·(largest cosine with one above), λ = `diversity`, among those whose category and brand have room. Of equals the
    one that comes first.

    Args:
        scores: (users, candidates); those not above 0 are no candidates.
        vectors: (users, candidates, d); (users, candidates, 0) where λ is 0.
        categories: codes, (users, candidates); 0 has no cap.
        brands: as `categories`.
        k: most places.
        per_category: most of one category.
        per_brand: most of one brand.
        diversity: λ, from 0 to 1.
    """
    norms = np.maximum(np.sqrt(np.einsum("uij,uij->ui", vectors, vectors)), 1e-9)
    return _greedy(  # type: ignore[no-any-return]
        scores,
        vectors / norms[:, :, None],
        categories,
        brands,
        k,
        per_category or UNCAPPED,
        per_brand or UNCAPPED,
        diversity,
    )


@njit(cache=True, nogil=True)
def _greedy(scores, vectors, categories, brands, k, per_category, per_brand, diversity):  # type: ignore[no-untyped-def]
    users, count, width = vectors.shape
    chosen = np.full((users, k), -1, dtype=np.int64)
    worth = np.empty(count, dtype=np.float64)
    closest = np.empty(count, dtype=np.float64)
    free = np.empty(count, dtype=np.bool_)
    for user in range(users):
        top = 0.0
        for one in range(count):
            free[one] = scores[user, one] > 0
            top = max(top, scores[user, one])
            closest[one] = -1.0
        for one in range(count):
            worth[one] = (1 - diversity) * scores[user, one] / max(top, 1e-30)
        for filled in range(k):
            best, value = -1, -np.inf
            for one in range(count):
                if free[one]:
                    now = worth[one] - diversity * closest[one] if filled and diversity > 0 else worth[one]
                    if now > value:
                        best, value = one, now
            if best < 0:
                break
            chosen[user, filled] = best
            free[best] = False
            category, brand = categories[user, best], brands[user, best]
            same_category = same_brand = 0
            for place in range(filled + 1):
                other = chosen[user, place]
                same_category += category != 0 and categories[user, other] == category
                same_brand += brand != 0 and brands[user, other] == brand
            if same_category >= per_category or same_brand >= per_brand:
                for one in range(count):
                    if (same_category >= per_category and categories[user, one] == category) or (
                        same_brand >= per_brand and brands[user, one] == brand
                    ):
                        free[one] = False
            if diversity > 0:
                for one in range(count):
                    if free[one]:
                        alike = 0.0
                        for dimension in range(width):
                            alike += vectors[user, one, dimension] * vectors[user, best, dimension]
                        closest[one] = max(closest[one], alike)
    return chosen
