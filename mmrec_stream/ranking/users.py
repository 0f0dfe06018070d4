"""The user encoder of a release: all that is needed of a user to rank candidates."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.errors import UserError
from mmrec_stream.ranking.items import ItemTable
from mmrec_stream.ranking.providers import session_on
from mmrec_stream.ranking.types import Features, blank_features, close
from mmrec_stream.releases.folder import RANKER, USER_ENCODER, Release

VISIT = 5
"""Events of made-up users: as many as a visit has."""


class Users(NamedTuple):
    """What the graph gives for a batch of users, under its names."""

    user_vectors: NDArray[np.float32]
    """(batch, d), at the fitted temperature: their products with items' vectors are p_user's logits."""
    association_rows: NDArray[np.int64]
    """(batch, any): rows that the newest events point at; a row may come repeatedly."""
    association_weights: NDArray[np.float32]
    """As the rows: with what weight, 0 where nothing is pointed at or the item is not available."""
    alpha: NDArray[np.float32]
    """(batch,)."""


class UserEncoder:
    """The graph on the CPU, checked against the release's golden outputs."""

    def __init__(self, release: Release, table: ItemTable, threads: int) -> None:
        """Load it.

        Args:
            release: Where the graph is, with its golden outputs.
            table: The items, grown since or not.
            threads: Threads of one run; 0 lets ONNX Runtime choose.

        Raises:
            UserError: It computes something else here than where it was exported.
        """
        self._table = table
        self._session = session_on(str(release.path / USER_ENCODER), "cpu", threads)
        self._inputs = [tensor.name for tensor in self._session.get_inputs()]
        found, expected = self._run(release.golden_of(RANKER, "in")), release.golden_of(USER_ENCODER, "out")
        kind = release.manifest.compression
        if different := [name for name, array in found._asdict().items() if not close(array, expected[name], kind)]:
            raise UserError(
                f"release {release.path}: its user encoder gives other results than where it was exported "
                f"({', '.join(different)}); export it with this version of ONNX Runtime, or use MMREC_RETRIEVAL=whole"
            )

    def encode(self, features: Features) -> Users:
        """Encode a batch of users."""
        return self._run({name: getattr(features, name) for name in self._inputs if hasattr(features, name)})

    def likely(self, count: int) -> NDArray[np.float32]:
        """Vectors of users who looked at an item at random and then at what each is associated with, (count, d)."""
        random, neighbours = np.random.default_rng(0), self._table.neighbours
        features = blank_features(count, VISIT)
        at = random.integers(0, len(neighbours), count)
        for place in range(VISIT):
            features.history_rows[:, place] = at
            to = neighbours[at, random.integers(0, neighbours.shape[1], count)]
            at = np.where(to >= 0, to, at)
        return self.encode(features).user_vectors

    def _run(self, inputs: Mapping[str, NDArray[np.generic]]) -> Users:
        known = self._table.arrays() | dict(inputs)
        return Users(*self._session.run(Users._fields, {name: known[name] for name in self._inputs}))
