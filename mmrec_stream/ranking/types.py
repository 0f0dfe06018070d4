"""What goes into the ranker for a batch of users, the lists that come out, and how exact they have to be."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.releases.manifest import Compression

TOLERANCES: dict[Compression, float] = {"fp32": 1e-3, "fp16": 1e-3, "int8": 1e-2}
"""How far, relative to a list's best score, this machine may be from the one that exported: other instruction sets
and CUDA round otherwise by about 1e-6 a product; a broken or mismatched graph is off by far more than 1e-3. Inputs that
are quantised as they come take a step of 1/255 more or less where rounding decides, and ONNX Runtime's 8-bit LSTM has
steps for each thread's share of the batch: item vectors of int8 variants differ by up to 1.6e-3 between one thread and
four."""


def close(found: NDArray[np.generic], expected: NDArray[np.generic], compression: Compression) -> bool:
    """Whether what a graph gives is what it gave where it was exported: within `TOLERANCES`, whole numbers exactly."""
    if found.shape != expected.shape:
        return False
    tolerance = 0.0 if np.issubdtype(found.dtype, np.integer) else TOLERANCES[compression]
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))


@dataclass(frozen=True, slots=True)
class Features:
    """The per-user inputs of the ranker, under the names that its graph gives them; times are in seconds."""

    history_rows: NDArray[np.int64]
    """(batch, length): rows of the item table, oldest first, padded with 0 on the right."""
    history_types: NDArray[np.int64]
    """(batch, length): `EventType`, 0 = padding."""
    history_ages: NDArray[np.float32]
    """(batch, length): seconds from the event to the moment of recommending, >= 0."""
    lengths: NDArray[np.int64]
    """(batch,): valid entries of each history, >= 1."""
    categories: NDArray[np.int64]
    """(batch, 8): 1-based index into the release's categories; 0 = empty or unknown."""
    category_weights: NDArray[np.float32]
    """(batch, 8): decayed affinity, 0 where empty."""
    brands: NDArray[np.int64]
    """(batch, 8): as `categories`."""
    brand_weights: NDArray[np.float32]
    price_bands: NDArray[np.float32]
    """(batch, 8): decayed affinity to each price band."""
    type_counts: NDArray[np.float32]
    """(batch, 3, 11): counts by `EventType`, decayed with half-lives of an hour, a day and a week."""
    excluded: NDArray[np.int64]
    """(batch, any): rows that must not be in the list, padded with −1."""

    def __len__(self) -> int:
        return len(self.lengths)

    def part(self, users: slice | NDArray[np.int64]) -> "Features":
        """Some of the users."""
        return Features(*(getattr(self, field.name)[users] for field in fields(self)))

    def cropped(self) -> "Features":
        """The same without the places that are padding in every history."""
        width = int(self.lengths.max(initial=1))
        return replace(
            self,
            history_rows=np.ascontiguousarray(self.history_rows[:, :width]),
            history_types=np.ascontiguousarray(self.history_types[:, :width]),
            history_ages=np.ascontiguousarray(self.history_ages[:, :width]),
        )


@dataclass(frozen=True, slots=True)
class Lists:
    """The best items of each user, best first. `scores` = α·`p_user` + (1 − α)·`p_item`.

    Where a re-ranker has ordered them, scores are its shares of what that gives to the candidates together. A place
    whose score is not above 0 holds no recommendation: the user had fewer items left than asked for.
    """

    rows: NDArray[np.int64]
    """(batch, k): rows of the item table."""
    scores: NDArray[np.float32]
    """(batch, k)."""
    p_user: NDArray[np.float32]
    p_item: NDArray[np.float32]
    alpha: NDArray[np.float32]
    """(batch,)."""

    def places(self, some: slice) -> "Lists":
        """The lists with some of their places."""
        return Lists(self.rows[:, some], self.scores[:, some], self.p_user[:, some], self.p_item[:, some], self.alpha)


def blank_features(batch: int, length: int) -> Features:
    """Features of `batch` users whose `length` events are views of the first item, with empty affinities."""
    return Features(
        history_rows=np.zeros((batch, length), dtype=np.int64),
        history_types=np.ones((batch, length), dtype=np.int64),
        history_ages=np.zeros((batch, length), dtype=np.float32),
        lengths=np.full(batch, length, dtype=np.int64),
        categories=np.zeros((batch, 8), dtype=np.int64),
        category_weights=np.zeros((batch, 8), dtype=np.float32),
        brands=np.zeros((batch, 8), dtype=np.int64),
        brand_weights=np.zeros((batch, 8), dtype=np.float32),
        price_bands=np.zeros((batch, 8), dtype=np.float32),
        type_counts=np.zeros((batch, 3, 11), dtype=np.float32),
        excluded=np.full((batch, 1), -1, dtype=np.int64),
    )
