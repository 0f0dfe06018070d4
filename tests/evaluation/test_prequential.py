from dataclasses import replace

import numpy as np

from mmrec_stream.data.splits import Cases
from mmrec_stream.evaluation.metrics import Lists
from mmrec_stream.evaluation.prequential import replay
from tests.shops import DAY, START, chain_shop


def _next_of_newest(cases: Cases) -> Lists:
    """Recommends the item after the newest one of the history alone."""
    return np.array([[(cases.history(case)[-1] + 1) % 12] for case in range(len(cases))], dtype=np.int32)


def test_a_live_profile_foresees_what_a_daily_one_is_too_old_for() -> None:
    # One event a day: the daily profile knows the day before, and is as good.
    shop = chain_shop()
    daily = replay(_next_of_newest, shop.interactions, shop.users, START + 3 * DAY, k=1)
    assert daily.live.mean() == daily.refreshed.mean() == 1.0
    # The same events within one day: the daily profile knows nothing yet.
    hurried = shop.interactions
    hurried = replace(hurried, times=START // DAY * DAY + hurried.positions() * 1000)
    within = replay(_next_of_newest, hurried, shop.users, 0, k=1)
    assert within.live.mean() == 1.0
    assert within.refreshed.mean() == 0.0
    assert not within.known.any()


def test_no_list_is_made_from_the_event_it_is_to_foresee() -> None:
    shop = chain_shop()
    seen: list[Cases] = []

    def remember(cases: Cases) -> Lists:
        seen.append(cases)
        return _next_of_newest(cases)

    replay(remember, shop.interactions, shop.users, 0)
    live, refreshed = seen
    for cases in (live, refreshed):
        for case in range(len(cases)):
            assert (cases.log.times[cases.starts[case] : cases.ends[case]] < cases.times[case]).all()
    newest = np.array([refreshed.log.times[end - 1] for end in refreshed.ends])
    assert (newest // DAY < refreshed.times // DAY).all()


def test_periods_add_up_to_the_whole() -> None:
    shop = chain_shop()
    seen = replay(_next_of_newest, shop.interactions, shop.users, START + 2 * DAY)
    periods = seen.by_period()
    assert sum(count for _, count, _, _ in periods) == len(seen.times)
    total = sum(count * live for _, count, live, _ in periods)
    assert np.isclose(total, seen.live.sum())
    assert [begin for begin, *_ in periods] == sorted(begin for begin, *_ in periods)
