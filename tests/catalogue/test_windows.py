"""Whatever is published and whenever the clock is looked at, each product is in sale when its window says so."""

from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.catalogue.windows import Windows
from mmrec_stream.contracts.catalogue import CatalogueItem

START = 1_790_000_000_000

moments = st.none() | st.integers(0, 60).map(lambda second: START + 1_000 * second)
items = st.builds(
    lambda number, window, stock: CatalogueItem(
        item_id=f"i{number}", available_from=window[0], available_until=window[1], stock=stock
    ),
    st.integers(0, 4),
    st.tuples(moments, moments),
    st.sampled_from([None, 0, 5]),
)
steps = st.tuples(st.integers(0, 15_000), st.lists(items, max_size=4), st.lists(st.integers(0, 4), max_size=2))


@given(st.lists(steps, max_size=12))
def test_by_turns_and_updates_alone_everything_is_known_at_every_moment(
    steps: list[tuple[int, list[CatalogueItem], list[int]]],
) -> None:
    windows, newest, told, now = Windows(), dict[str, CatalogueItem](), dict[str, bool](), START
    for later, published, removed in steps:
        now += later
        due = windows.next_ms <= now
        changed = windows.turn(now)
        assert due or not changed
        told |= changed
        assert told == {item_id: item.sellable_at(now) for item_id, item in newest.items()}
        for item in published:
            windows.update([item], now)
            newest[item.item_id], told[item.item_id] = item, item.sellable_at(now)
        gone = [f"i{number}" for number in removed]
        windows.remove(gone)
        for item_id in gone:
            newest.pop(item_id, None)
            told.pop(item_id, None)
        ahead = [
            moment
            for item in newest.values()
            for moment in (item.available_from, item.available_until)
            if item.offered and moment is not None and moment > now
        ]
        assert windows.next_ms <= min(ahead, default=float("inf"))
    told |= windows.turn(START + 10**9)
    assert not len(windows)
    assert told == {item_id: item.sellable_at(START + 10**9) for item_id, item in newest.items()}


def test_a_product_whose_stock_changes_every_second_is_in_line_once() -> None:
    windows = Windows()
    for second in range(1_000):
        stock = second % 3
        windows.update([CatalogueItem(item_id="i", available_until=START + 10**7, stock=stock)], START + 1_000 * second)
    assert len(windows._moments) < 100
    assert windows.turn(START + 10**7) in ({}, {"i": False})
