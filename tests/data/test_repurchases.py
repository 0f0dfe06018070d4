"""After how long people buy an item again, learned from purchases."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import DAY_MS, Interactions
from mmrec_stream.data.repurchases import AGAIN, repurchase_intervals

BEGAN = 1_700_000_000_000
DAY_S = DAY_MS / 1000


def log_of(bought: list[tuple[int, int, float]], kind: EventType = EventType.PURCHASE) -> Interactions:
    """Events of one kind: user, item, day."""
    users, items, days = zip(*bought, strict=True) if bought else ((), (), ())
    times = np.array([BEGAN + int(day * DAY_MS) for day in days], dtype=np.int64)
    return Interactions.of(
        np.array(users, dtype=np.int64),
        np.array(items, dtype=np.int64),
        times,
        np.full(len(bought), kind, dtype=np.int8),
    )


def every(days: float, item: int, users: range) -> list[tuple[int, int, float]]:
    return [(user, item, times * days) for user in users for times in range(2)]


def once(item: int, users: range) -> list[tuple[int, int, float]]:
    return [(user, item, 0.0) for user in users]


def test_each_item_has_its_own_interval_and_what_is_bought_once_has_none() -> None:
    log = log_of(every(9, 0, range(AGAIN)) + every(40, 1, range(AGAIN)) + once(2, range(AGAIN)))
    found = repurchase_intervals(log, 3, None)
    assert (found[:2] / DAY_S).tolist() == [9.0, 40.0]
    assert np.isnan(found[2])


def test_nine_of_ten_repurchases_come_later() -> None:
    gaps = np.random.default_rng(0).permutation(np.arange(2, 102))
    log = log_of([event for user, gap in enumerate(gaps) for event in ((user, 0, 0.0), (user, 0, float(gap)))])
    (due,) = repurchase_intervals(log, 1, None) / DAY_S
    assert 0.88 <= (gaps >= due).mean() <= 0.92


def test_few_repurchases_go_by_the_category_and_no_category_is_none() -> None:
    log = log_of(every(9, 0, range(AGAIN)) + every(9, 1, range(2)) + every(9, 2, range(2)))
    found = repurchase_intervals(log, 4, ["coffee", "coffee", None, "coffee"])
    assert (found[[0, 1, 3]] / DAY_S).tolist() == [9.0, 9.0, 9.0]
    assert np.isnan(found[2])


def test_what_few_of_its_buyers_come_back_for_has_none() -> None:
    buyers = AGAIN * 10 + 1
    log = log_of(every(9, 0, range(AGAIN)) + once(0, range(AGAIN, buyers)))
    assert np.isnan(repurchase_intervals(log, 1, None)[0])
    log = log_of(every(9, 0, range(AGAIN)) + once(0, range(AGAIN, buyers - 1)))
    assert repurchase_intervals(log, 1, None)[0] == 9 * DAY_S


def test_one_order_in_two_parts_is_no_repurchase() -> None:
    assert np.isnan(repurchase_intervals(log_of(every(0.5, 0, range(50))), 1, None)[0])


@pytest.mark.parametrize("kind", [kind for kind in EventType if kind != EventType.PURCHASE])
def test_only_purchases_count(kind: EventType) -> None:
    assert np.isnan(repurchase_intervals(log_of(every(9, 0, range(50)), kind), 1, None)[0])


def test_an_empty_log_knows_nothing() -> None:
    assert np.isnan(repurchase_intervals(log_of([]), 2, ["coffee", None])).all()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 400)), max_size=300))
def test_an_interval_is_a_gap_that_somebody_left(bought: list[tuple[int, int, int]]) -> None:
    log = log_of([(user, item, float(day)) for user, item, day in bought])
    seen: dict[int, set[float]] = {item: set() for item in range(3)}
    for user in range(4):
        for item in range(3):
            days = sorted(day for who, what, day in bought if (who, what) == (user, item))
            seen[item] |= {float(later - day) for day, later in pairwise(days) if later - day > 1}
    for item, interval in enumerate(repurchase_intervals(log, 3, None).tolist()):
        assert np.isnan(interval) or interval / DAY_S in seen[item]
