"""Who keeps what warm: never the owner, nobody twice, and whoever goes, what moves goes to who was ready for it."""

from hypothesis import given
from hypothesis import strategies as st

from streams.placement import Place, kept_by, owner, places, share, standbys

PARTITIONS = st.integers(1, 60)
WORKERS = st.integers(1, 9)


@given(PARTITIONS, WORKERS)
def test_shares_are_kafkas_ranges(partitions: int, workers: int) -> None:
    shares = [share(Place(rank, workers), partitions) for rank in range(workers)]
    assert [partition for one in shares for partition in one] == list(range(partitions))
    sizes = [len(one) for one in shares]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1
    assert all(owner(partition, partitions, workers) == rank for rank, one in enumerate(shares) for partition in one)


@given(PARTITIONS, WORKERS, st.integers(0, 4))
def test_each_partition_has_its_standbys_none_twice_and_never_the_owner(
    partitions: int, workers: int, count: int
) -> None:
    for partition in range(partitions):
        heirs = standbys(partition, partitions, workers, count)
        assert len(heirs) == len(set(heirs)) == min(count, workers - 1)
        assert owner(partition, partitions, workers) not in heirs


@given(PARTITIONS, WORKERS)
def test_a_share_tells_its_place(partitions: int, workers: int) -> None:
    for rank in range(min(workers, partitions)):
        place = Place(rank, min(workers, partitions))
        assert place in places(share(place, partitions), partitions)


@given(PARTITIONS, st.integers(2, 9), st.data())
def test_what_one_who_goes_had_is_warm_at_who_gets_it(partitions: int, workers: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(0, workers - 1))
    left = [rank for rank in range(workers) if rank != gone]
    for partition in share(Place(gone, workers), partitions):
        heir = left[owner(partition, partitions, workers - 1)]
        if held := share(Place(heir, workers), partitions):
            warm = kept_by(held, partitions, 1)
            assert warm is not None
            assert partition in warm


@given(PARTITIONS, WORKERS, st.integers(1, 3))
def test_nothing_that_is_held_is_kept_beside_it(partitions: int, workers: int, count: int) -> None:
    for rank in range(workers):
        held = share(Place(rank, workers), partitions)
        if held and len(places(held, partitions)) == 1:
            assert not set(kept_by(held, partitions, count) or ()) & set(held)


def test_three_workers_with_twelve_partitions() -> None:
    assert kept_by(range(4), 12, 1) == [4, 5]
    assert kept_by(range(4, 8), 12, 1) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert kept_by(range(8, 12), 12, 1) == [6, 7]


def test_what_is_no_share_changes_nothing() -> None:
    assert kept_by([], 12, 1) is None
    assert kept_by([0, 5], 12, 1) is None
    assert kept_by([1, 2], 12, 1) is None
