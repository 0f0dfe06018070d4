import pytest

from benchmarks.probe import _Answer, _Cause, _match


def answer(user: str, partition: int, offset: int, **times: float) -> _Answer:
    return _Answer(user, _Cause(partition, offset), times)


def test_an_event_is_answered_by_the_first_list_that_takes_it_into_account() -> None:
    sent = [(1.0, b"ann", 0), (1.1, b"bob", 1), (1.2, b"ann", 0), (1.3, b"ann", 0)]
    placed = {0: 10, 1: 4, 2: 11, 3: 12}
    answers = [
        (1.004, answer("ann", 0, 10)),
        (1.105, answer("bob", 1, 4)),
        # One list for two events: each is answered by it.
        (1.310, answer("ann", 0, 12)),
        # A repeat answers nothing more.
        (1.400, answer("ann", 0, 12)),
    ]
    seen = _match(sent, placed, answers, counted=0.0)
    assert seen.latencies == pytest.approx([4.0, 5.0, 110.0, 10.0])
    assert seen.unanswered == 0
    assert seen.lists == 4


def test_events_without_an_answer_and_events_before_the_count_are_told_apart() -> None:
    sent = [(1.0, b"ann", 0), (2.0, b"ann", 0), (2.1, b"eve", 3)]
    seen = _match(sent, {0: 1, 1: 2, 2: 9}, [(2.5, answer("ann", 0, 2))], counted=1.5)
    assert seen.latencies == pytest.approx([500.0])
    assert seen.unanswered == 1


def test_the_products_own_times_become_steps() -> None:
    times = {"event": 0.0, "appended": 100.0, "fetched": 101.0, "folded": 103.0, "scored": 108.0, "published": 108.5}
    seen = _match([(1.0, b"ann", 0)], {0: 1}, [(1.01, answer("ann", 0, 1, **times))], counted=0.0)
    assert {step: values.tolist() for step, values in seen.steps.items()} == {
        "fetched": [1.0],
        "folded": [2.0],
        "scored": [5.0],
        "published": [0.5],
    }
