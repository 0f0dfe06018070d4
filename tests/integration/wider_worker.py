"""A worker of a release to come: its profiles have one more field, which it fills in every row that it writes."""

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.profiles import record

TAIL = b"twelve bytes"


def widen() -> None:
    """Make `record` the next version's, before anything has taken its names from it."""
    today = record.RECORD
    fields = today.fields
    assert fields is not None
    wider = np.dtype(
        {
            "itemsize": today.itemsize + len(TAIL),
            "names": [*fields, "tail"],
            "formats": [*(kind for kind, *_ in fields.values()), f"{len(TAIL)}u1"],
            "offsets": [*(place for _, place, *_ in fields.values()), today.itemsize],
        }
    )
    record.VERSION += 1
    record.LAYOUTS[record.VERSION] = record.RECORD = wider
    record._WHOLE = np.dtype((np.void, wider.itemsize))


def main() -> None:
    """Run the worker."""
    widen()
    from mmrec_stream.profiles.rows import ProfileRows

    encode = ProfileRows.encode

    def encode_and_fill(self: ProfileRows, rows: NDArray[np.int64]) -> list[bytes]:
        self.records["tail"][rows] = np.frombuffer(TAIL, dtype=np.uint8)
        return encode(self, rows)

    ProfileRows.encode = encode_and_fill  # type: ignore[method-assign]
    from mmrec_stream.cli import main as command

    command()


if __name__ == "__main__":
    main()
