"""What goes into the ranker for a batch of users, and the lists that come out."""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray


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
        history = {
            field.name: np.ascontiguousarray(getattr(self, field.name)[:, :width])
            for field in fields(self)
            if field.name.startswith("history_")
        }
        return replace(self, **history)


@dataclass(frozen=True, slots=True)
class Lists:
    """The best items of each user, best first. `scores` = α·`p_user` + (1 − α)·`p_item`.

    A place whose score is not above 0 holds no recommendation: the user had fewer items left than asked for.
    """

    rows: NDArray[np.int64]
    """(batch, k): rows of the item table."""
    scores: NDArray[np.float32]
    """(batch, k)."""
    p_user: NDArray[np.float32]
    p_item: NDArray[np.float32]
    alpha: NDArray[np.float32]
    """(batch,)."""
