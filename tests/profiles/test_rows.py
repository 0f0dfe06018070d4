from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.profiles.record import RECORD, VERSION
from mmrec_stream.profiles.rows import EXAMPLES, NOBODY, ProfileRows, Restored
from tests.profiles.test_fold import folded, record_of, view

names = st.text(alphabet="abc", min_size=1, max_size=2)


def value(events: int, version: int = VERSION, rest: bytes = b"") -> bytes:
    """A changelog value that can be told from others by its count of events."""
    record = np.zeros(1, dtype=RECORD)
    record["version"], record["events"] = version, events
    return record.tobytes() + rest


@given(st.lists(st.lists(names, min_size=1, max_size=8), max_size=8))
def test_a_user_keeps_the_row_it_got_first_and_rows_count_up(batches: list[list[str]]) -> None:
    rows, expected = ProfileRows(), dict[str, int]()
    for batch in batches:
        for user in batch:
            expected.setdefault(user, len(expected))
        assert rows.rows_of(batch).tolist() == [expected[user] for user in batch]
    assert list(rows) == list(expected)


def test_partitions_that_are_filled_side_by_side_count_their_own_rows() -> None:
    def fill(partition: int) -> ProfileRows:
        rows = ProfileRows()
        for start in range(0, 60_000, 50):
            rows.rows_of([f"{partition}-{number}" for number in range(start, start + 50)])
        return rows

    with ThreadPoolExecutor(4) as pool:
        for rows in pool.map(fill, range(4)):
            assert rows.users_of(rows.live()) == list(rows)
            assert [rows.row(user) for user in rows] == list(range(60_000))


@given(st.lists(st.tuples(st.sampled_from("fa"), names), max_size=30))
def test_a_forgotten_user_leaves_an_empty_row_that_nobody_gets(steps: list[tuple[str, str]]) -> None:
    """`f` forgets, `a` admits; a row number that somebody holds never tells of another user."""
    rows, expected, owner = ProfileRows(), dict[str, int](), dict[int, str]()
    for number, (step, user) in enumerate(steps, start=1):
        if step == "f":
            assert rows.forget(user) is (user in expected)
            expected.pop(user, None)
        else:
            (row,) = rows.rows_of([user]).tolist()
            rows.records["events"][row] = number
            assert owner.setdefault(row, user) == user
            assert expected.setdefault(user, row) == row
    assert dict(zip(rows, rows.live().tolist(), strict=True)) == expected
    assert len(rows) == len(expected)
    assert len(rows.given) == len(owner)
    gone = sorted(set(owner) - set(expected.values()))
    assert not rows.given[gone].tobytes().strip(b"\0")
    assert rows.users_of(np.array(gone, dtype=np.int64)) == [NOBODY] * len(gone)
    assert all(rows.given["events"][row] for row in rows.live())


def test_a_users_last_row_counts_however_little_it_has_folded() -> None:
    rows = ProfileRows()
    rows.restore([b"ann", b"bob", b"ann"], [value(9), value(2), value(3)])
    assert (record_of(rows)["events"], record_of(rows, "bob")["events"]) == (3, 2)
    rows.restore([b"ann"], [value(1)])
    assert record_of(rows)["events"] == 1


def test_what_is_no_profile_is_passed_over_and_told() -> None:
    rows = ProfileRows()
    keys = [b"ann", None, b"bob", b"\xff", b"", b"cat", b"bob", b"dan"]
    values = [value(1), value(2), None, value(3), value(4), b"short", value(5), bytes(RECORD.itemsize)]
    restored = rows.restore(keys, values)
    assert (restored.rows, restored.tombstones, restored.unreadable) == (2, 1, 5)
    assert [place for place, _ in restored.examples] == [1, 3, 4, 5, 7][:EXAMPLES]
    assert "no UTF-8" in restored.examples[1].reason
    assert {user: int(record_of(rows, user)["events"]) for user in rows} == {"ann": 1, "bob": 5}


def test_results_add_up_and_keep_the_first_examples() -> None:
    bad = ProfileRows().restore([None] * 4, [value(1)] * 4)
    both = bad + bad + Restored(rows=2)
    assert (both.rows, both.unreadable, both.examples) == (2, 8, (*bad.examples, bad.examples[0]))


def test_a_newer_worker_gets_back_what_this_one_does_not_know() -> None:
    """A rolling upgrade: the newer worker's row is folded here, and goes back in the newer version, its end whole."""
    rows = folded([view("lamp", 1)])
    newer = bytes([VERSION + 1]) + rows.encode(rows.live())[0][1:] + b"what a newer version adds"
    restored = ProfileRows()
    assert restored.restore([b"ann", b"bob"], [newer, value(4)]).newer == 1
    folded([view("sofa", 2)], restored, first_offset=1)
    ours, bobs = restored.encode(restored.live())
    folded([view("sofa", 2)], rows, first_offset=1)
    assert ours == bytes([VERSION + 1]) + rows.encode(rows.live())[0][1:] + b"what a newer version adds"
    assert bobs == value(4)
    assert restored.records["version"][restored.live()].tolist() == [VERSION, VERSION]


@pytest.mark.parametrize("then", ["forgotten", "replaced"])
def test_what_a_newer_version_added_goes_with_its_row(then: str) -> None:
    rows = ProfileRows()
    rows.restore([b"ann"], [value(1, VERSION + 1, b"more")])
    if then == "forgotten":
        rows.forget("ann")
    rows.restore([b"ann"], [value(2)])
    assert rows.encode(rows.rows_of(["ann"])) == [value(2)]


def test_a_row_without_a_profile_is_never_written() -> None:
    rows = ProfileRows()
    with pytest.raises(ValueError, match="row 1 holds no profile"):
        rows.encode(folded([view("lamp")], rows).rows_of(["ann", "stranger"]))
