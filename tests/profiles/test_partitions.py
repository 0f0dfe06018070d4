"""A partition's rows against the plainest model of a changelog: a dict that keeps each user's last value."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.profiles.record import RECORD, VERSION
from mmrec_stream.profiles.rows import Restored
from tests.profiles.test_rows import value

keys = st.sampled_from([b"ann", b"bob", "käthe".encode(), None, b"", b"\xff"])
values = st.one_of(
    st.builds(value, st.integers(1, 9)),
    st.none(),
    st.builds(value, st.integers(1, 9), st.just(VERSION + 1), st.sampled_from([b"", b"more"])),
    st.sampled_from([b"", b"short", bytes(RECORD.itemsize), value(1) + b"1", value(1, VERSION + 1)[:-1]]),
)
# Mostly plain rows, so that whole batches of them are among what is tried.
records = st.tuples(st.integers(1, 3), st.one_of(st.just(b"ann"), st.just(b"bob"), keys), st.one_of(values, values))


def is_profile(one: bytes) -> bool:
    return bool(one) and (
        (one[0] == VERSION and len(one) == RECORD.itemsize) or (one[0] > VERSION and len(one) >= RECORD.itemsize)
    )


@given(st.lists(records, max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_any_changelog_in_any_batches_leaves_what_each_users_last_record_says(
    log: list[tuple[int, bytes | None, bytes | None]], cuts: list[int]
) -> None:
    expected: dict[str, bytes] = {}
    counts, offset, offsets = [0, 0, 0], 4, []
    for gap, key, one in log:
        offset += gap
        offsets.append(offset)
        if not key or key == b"\xff" or (one is not None and not is_profile(one)):
            counts[2] += 1
        elif one is None:
            counts[1] += 1
            expected.pop(key.decode(), None)
        else:
            counts[0] += 1
            expected[key.decode()] = one
    partition, restored = PartitionRows(), Restored()
    edges = [0, *sorted(min(cut, len(log)) for cut in cuts), len(log)]
    for start, end in itertools.pairwise(edges):
        part = log[start:end]
        restored += partition.take(offsets[start:end], [key for _, key, _ in part], [one for _, _, one in part])
    rows = partition.rows
    assert dict(zip(rows, rows.encode(rows.live()), strict=True)) == expected
    assert (len(rows), [restored.rows, restored.tombstones, restored.unreadable]) == (len(expected), counts)
    assert partition.position == (offsets[-1] + 1 if offsets else 0)
    assert {example.place for example in restored.examples} <= set(offsets)


@pytest.mark.parametrize("offsets", [[4, 9], [5, 5], [6, 5], [0]])
def test_a_changelog_that_goes_back_is_refused_whole(offsets: list[int]) -> None:
    partition = PartitionRows()
    partition.take([4], [b"ann"], [value(3)])
    with pytest.raises(ValueError, match="changelog offset"):
        partition.take(offsets, [b"ann"] * len(offsets), [value(1)] * len(offsets))
    assert (partition.position, partition.rows.records["events"][0]) == (5, 3)


def test_control_records_are_passed_and_a_log_that_ends_earlier_is_refused() -> None:
    partition = PartitionRows()
    partition.take([4], [b"ann"], [value(3)])
    partition.advance(7)
    assert partition.position == 7
    with pytest.raises(ValueError, match="made anew"):
        partition.advance(6)
