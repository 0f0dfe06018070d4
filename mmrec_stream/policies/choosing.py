"""From scored candidates to a list: greedily, with caps and difference from what is above."""

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
    """The places of up to `k` candidates, best first.

    Maximal marginal relevance (Carbonell and Goldstein, 1998): each next one maximises (1 − λ)·score / best score −
    λ·(largest cosine with one above), λ = `diversity`, among those whose category and brand have room.

    Args:
        scores: (candidates,), above 0 and in descending order.
        vectors: (candidates, d); (candidates, 0) where λ is 0.
        categories: codes, (candidates,); 0 has no cap.
        brands: as `categories`.
        k: most places.
        per_category: most of one category.
        per_brand: most of one brand.
        diversity: λ, from 0 to 1.
    """
    norms = np.maximum(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)), 1e-9)
    return _greedy(  # type: ignore[no-any-return]
        scores / max(float(scores[0]), 1e-30) if len(scores) else scores,
        vectors / norms[:, None],
        categories,
        brands,
        k,
        per_category or UNCAPPED,
        per_brand or UNCAPPED,
        diversity,
    )


@njit(cache=True, nogil=True)
def _greedy(scores, vectors, categories, brands, k, per_category, per_brand, diversity):  # type: ignore[no-untyped-def]
    count = len(scores)
    chosen = np.empty(min(k, count), dtype=np.int64)
    closest = np.full(count, -1.0)
    taken = np.zeros(count, dtype=np.bool_)
    filled = 0
    while filled < len(chosen):
        best, value = -1, -np.inf
        for one in range(count):
            if taken[one]:
                continue
            same_category = same_brand = 0
            for place in range(filled):
                other = chosen[place]
                same_category += categories[one] != 0 and categories[other] == categories[one]
                same_brand += brands[one] != 0 and brands[other] == brands[one]
            if same_category >= per_category or same_brand >= per_brand:
                taken[one] = True
                continue
            worth = (1 - diversity) * scores[one]
            if filled and diversity > 0:
                worth -= diversity * closest[one]
            if worth > value:
                best, value = one, worth
            if diversity == 0:  # in the order of scores the first that fits is the best
                break
        if best < 0:
            break
        taken[best] = True
        chosen[filled] = best
        filled += 1
        if diversity > 0:
            for one in range(count):
                alike = 0.0
                for dimension in range(vectors.shape[1]):
                    alike += vectors[one, dimension] * vectors[best, dimension]
                closest[one] = max(closest[one], alike)
    return chosen[:filled]
