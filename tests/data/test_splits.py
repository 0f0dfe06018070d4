import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.data.dataset import Dataset, Interactions
from mmrec_stream.data.splits import (
    Ragged,
    Split,
    cold_items,
    global_time,
    last_basket,
    leave_one_out,
    next_clicks,
    of_items,
    split_of,
)
from mmrec_stream.errors import UserError
from tests.shops import DAY, START, chain_shop

events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9)), min_size=1, max_size=80)


def _dataset(rows: list[tuple[int, int, int]]) -> Dataset:
    columns = np.array(rows).T
    log = Interactions.of(columns[0], columns[1], START + DAY * columns[2])
    return Dataset("any", log, [str(user) for user in range(6)], [str(item) for item in range(8)])


def _pairs(log: Interactions) -> list[tuple[int, int, int]]:
    return sorted(zip(log.users.tolist(), log.items.tolist(), log.times.tolist(), strict=True))


@given(events)
def test_leave_one_out_holds_the_last_two_back(rows: list[tuple[int, int, int]]) -> None:
    dataset = _dataset(rows)
    split = leave_one_out(dataset)
    log, offsets = dataset.interactions, dataset.interactions.offsets(6)
    for case, user in enumerate(split.test.users):
        mine = log.items[offsets[user] : offsets[user + 1]]
        assert split.test.targets[case].tolist() == [mine[-1]]
        assert split.test.history(case).tolist() == mine[:-1].tolist()
        assert split.validation.targets[case].tolist() == [mine[-2]]
        assert split.validation.history(case).tolist() == mine[:-2].tolist()
        assert split.train.items[split.train.users == user].tolist() == mine[:-2].tolist()
    assert len(split.train) == len(log) - 2 * len(split.test)


def test_what_is_no_liking_is_in_histories_and_no_target() -> None:
    items, stars = np.arange(6), np.array([5.0, 4.0, 1.0, 5.0, 4.0, 1.0])
    log = Interactions.of(np.zeros(6, np.int64), items, START + items, np.full(6, EventType.RATING), stars)
    split = leave_one_out(Dataset("stars", log, ["u"], [str(item) for item in items]))
    assert (split.test.history(0).tolist(), split.test.targets[0].tolist()) == ([0, 1, 2, 3], [4])
    assert (split.validation.history(0).tolist(), split.validation.targets[0].tolist()) == ([0, 1, 2], [3])
    assert split.train.items.tolist() == [0, 1, 2]


@given(events, st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_cold_items_are_targets_and_nothing_else(
    rows: list[tuple[int, int, int]], tested: set[int], tuned: set[int]
) -> None:
    split, (test, validation) = (
        last_basket(_dataset(rows)),
        (np.isin(np.arange(8), list(each)) for each in (tested, tuned)),
    )
    cold = cold_items(split, test, validation)
    assert cold.refit is not None
    assert split.refit is not None
    assert _pairs(cold.refit) == [row for row in _pairs(split.refit) if row[1] not in tested]
    assert _pairs(cold.train) == [row for row in _pairs(split.train) if row[1] not in tested | tuned]
    for before, after, unknown, never in (
        (split.test, cold.test, tested, set()),
        (split.validation, cold.validation, tested | tuned, tested),
    ):
        expected = {
            int(user): (history, targets)
            for case, user in enumerate(before.users)
            if (history := [item for item in before.history(case).tolist() if item not in unknown])
            and (targets := [item for item in before.targets[case].tolist() if item not in never])
        }
        found = {int(u): (after.history(c).tolist(), after.targets[c].tolist()) for c, u in enumerate(after.users)}
        assert found == expected
    assert set(cold.validation.withheld.tolist()) == tested
    assert not len(cold.test.withheld)


def test_a_smaller_catalogue_keeps_what_is_said_of_its_items() -> None:
    shop = chain_shop(items=12)
    kept = np.arange(12) % 3 > 0
    dataset, split = of_items(shop, leave_one_out(shop), kept)
    assert shop.catalogue is not None
    assert dataset.catalogue is not None
    names = np.array(shop.item_ids)[kept].tolist()
    assert dataset.item_ids == names
    assert [entry.item_id for entry in dataset.catalogue] == names
    assert (dataset.features["shape"] == shop.features["shape"][kept]).all()
    before, after = leave_one_out(shop).test, split.test
    asked = {int(user): shop.item_ids[before.targets[case][0]] for case, user in enumerate(before.users)}
    assert {int(user): dataset.item_ids[after.targets[case][0]] for case, user in enumerate(after.users)} == {
        user: item for user, item in asked.items() if item in names
    }


@given(events)
def test_the_last_basket_is_new_to_its_user_and_to_training(rows: list[tuple[int, int, int]]) -> None:
    dataset = _dataset(rows)
    split = last_basket(dataset)
    days = dataset.interactions.times // DAY
    for case, user in enumerate(split.test.users):
        mine = dataset.interactions.users == user
        last = days[mine].max()
        bought = set(dataset.interactions.items[mine & (days == last)].tolist())
        had = set(dataset.interactions.items[mine & (days < last)].tolist())
        assert set(split.test.targets[case].tolist()) == bought - had
        assert set(split.test.history(case).tolist()) == had
        assert split.refit is not None
        assert not ((split.refit.users == user) & (split.refit.times // DAY == last)).any()


def test_a_time_split_learns_from_nothing_after_its_cuts() -> None:
    split = global_time(chain_shop())
    assert split.refit is not None
    assert split.train.times.max() < split.validation.times.min()
    assert split.refit.times.max() < split.test.times.min()
    for cases in (split.validation, split.test):
        for case in range(len(cases)):
            assert cases.log.times[cases.ends[case] - 1] < cases.times[case]


def test_a_log_that_is_too_short_for_a_time_split_says_so() -> None:
    with pytest.raises(UserError, match="use leave-one-out"):
        global_time(_dataset([(0, 1, 1), (0, 2, 2)]))


def test_a_log_without_a_clock_is_split_by_order() -> None:
    shop = chain_shop()
    untimed = Dataset("untimed", shop.interactions, shop.user_ids, shop.item_ids, timed=False)
    assert _targets(split_of(untimed, "time")) == _targets(leave_one_out(untimed))
    assert _targets(split_of(shop, "last-basket")) == _targets(last_basket(shop))


def test_every_click_but_the_first_is_a_case() -> None:
    log = Interactions.of(np.array([0, 0, 0, 1]), np.array([3, 4, 3, 5]), np.array([1, 2, 3, 1]))
    cases = next_clicks(log, users=2)
    assert [(cases.history(i).tolist(), cases.targets[i].tolist()) for i in range(len(cases))] == [
        ([3], [4]),
        ([3, 4], [3]),
    ]


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6), st.data())
def test_ragged_lists_are_chosen_as_lists_are(lists: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of([np.array(each, dtype=np.int64) for each in lists])
    keep = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=6)) if lists else []
    chosen = ragged.where(np.array(keep, dtype=np.int64))
    assert [chosen[i].tolist() for i in range(len(chosen))] == [lists[i] for i in keep]


def _targets(split: Split) -> list[int]:
    return [int(item) for item in split.test.targets.values]
