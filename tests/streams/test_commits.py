import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.commits import CommitTracker


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20), st.data())
def test_a_commit_never_passes_unfinished_work(sizes: list[int], data: st.DataObject) -> None:
    tracker: CommitTracker[str] = CommitTracker()
    ends, offset = [], -1
    for size in sizes:
        offset += size
        ends.append(offset)
        tracker.begin("p", offset)
    unfinished = set(ends)
    committed = 0
    for end in data.draw(st.permutations(ends)):
        tracker.finish("p", end)
        unfinished.discard(end)
        upto = tracker.committable("p")
        if upto is not None:
            assert upto > committed
            committed = upto
        first_open = min(unfinished, default=ends[-1] + 1)
        assert committed == max((end + 1 for end in ends if end < first_open), default=0)
    assert committed == ends[-1] + 1


def test_partitions_are_independent() -> None:
    tracker: CommitTracker[str] = CommitTracker()
    tracker.begin("p", 9)
    tracker.begin("q", 4)
    tracker.finish("q", 4)
    assert list(tracker.partitions()) == ["q"]
    assert (tracker.committable("p"), tracker.committable("q")) == (None, 5)
    assert tracker.committable("q") is None


def test_what_was_given_up_is_not_committed_later() -> None:
    tracker: CommitTracker[str] = CommitTracker()
    tracker.begin("p", 9)
    tracker.forget()
    tracker.finish("p", 9)
    assert tracker.committable("p") is None


def test_offsets_that_do_not_grow_are_an_error() -> None:
    tracker: CommitTracker[str] = CommitTracker()
    tracker.begin("p", 9)
    with pytest.raises(ValueError, match="chunk up to 9 begun after 9"):
        tracker.begin("p", 9)
