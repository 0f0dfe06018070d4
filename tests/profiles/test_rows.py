from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.profiles.rows import ProfileRows

names = st.text(alphabet="abc", min_size=1, max_size=2)


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
            assert rows.find(list(rows.users)) is not None
            assert [rows.row(user) for user in rows] == list(range(60_000))
