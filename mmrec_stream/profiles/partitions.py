"""The profiles of one partition as its changelog tells them: rows, and how far the log is known."""

from collections.abc import Sequence

import numpy as np

from mmrec_stream.profiles.rows import ProfileRows, Restored, Unreadable


class PartitionRows:
    """Rows of one partition, filled in the order of its changelog. Whoever reads a changelog fills one of these."""

    def __init__(self) -> None:
        self.rows = ProfileRows()
        self._position = 0

    @property
    def position(self) -> int:
        """The next changelog offset to read: everything before it is in the rows."""
        return self._position

    def take(self, offsets: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Restored:
        """Take records from `position` on. Gaps are what compaction or a transaction has left.

        Args:
            offsets: ascending.
            keys: of the same length.
            values: of the same length.

        Returns:
            What became of them; the places of unreadable ones are offsets.

        Raises:
            ValueError: an offset lies below `position`, or they do not ascend. Nothing is taken then: the rows would
                go back to what they were.
        """
        if not len(offsets) == len(keys) == len(values):
            raise ValueError(f"{len(offsets)} offsets, {len(keys)} keys, {len(values)} values")
        if not len(offsets):
            return Restored()
        if offsets[0] < self._position:
            raise ValueError(f"changelog offset {offsets[0]} is known already: the next one is {self._position}")
        steps = np.diff(np.asarray(offsets, dtype=np.int64))
        if (steps <= 0).any():
            raise ValueError(f"changelog offsets go back after {offsets[int(np.argmax(steps <= 0))]}")
        restored = self.rows.restore(keys, values)
        self._position = offsets[-1] + 1
        if not restored.examples:
            return restored
        examples = tuple(Unreadable(offsets[place], reason) for place, reason in restored.examples)
        return Restored(restored.rows, restored.tombstones, restored.unreadable, restored.newer, examples)

    def advance(self, to: int) -> None:
        """Nothing more lies before `to`: what is left up to there are control records, or what compaction has taken.

        Raises:
            ValueError: `to` lies below `position`: the changelog ends before what was read of it.
        """
        if to < self._position:
            raise ValueError(f"the changelog ends at {to}, and was read up to {self._position}: it was made anew")
        self._position = to
