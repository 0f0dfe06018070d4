"""Rhythms of stock: the next change is where what is sold out changes, at the pace of the log and live."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.simulator.stock import DAY_MS, HOUR_MS, LIVE_PACE, Stock

START = 1_790_000_000_000
ALL = np.arange(50)


@given(st.integers(0, 2**32), st.one_of(st.none(), st.integers(-20 * DAY_MS, 20 * DAY_MS)))
def test_nothing_changes_before_the_next_change_and_something_does_then(seed: int, live_after: int | None) -> None:
    stock = Stock(len(ALL), np.random.default_rng(seed))
    if live_after is not None:
        stock.go_live(START + live_after)
    before, change = stock.sold_out(ALL, START), stock.next_change(ALL, START)
    assert (change > START).all()
    assert (stock.sold_out(ALL, (START + change) // 2) == before).all()
    assert (stock.sold_out(ALL, change - 1) == before).all()
    ever = np.any([stock.sold_out(ALL, START + hour * HOUR_MS // LIVE_PACE) for hour in range(0, 60 * 15 * 24, 5)], 0)
    assert (stock.sold_out(ALL, change)[ever] != before[ever]).all()
    assert not before[~ever].any()
    assert 5 < ever.sum() < 45


def test_about_a_twelfth_is_sold_out_at_a_time() -> None:
    stock = Stock(20_000, np.random.default_rng(1))
    assert abs(stock.sold_out(np.arange(20_000), START).mean() - 0.083) < 0.02


def test_what_comes_in_is_not_sold_out_for_days() -> None:
    stock = Stock(len(ALL), np.random.default_rng(1))
    stock.deliver(ALL, np.full(len(ALL), START))
    assert not stock.sold_out(ALL, START).any()
    assert (stock.next_change(ALL, START) >= START + 3 * DAY_MS).all()
