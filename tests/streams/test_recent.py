"""Which recent lists hold an item, against the plainest way to know."""

from hypothesis import given
from hypothesis import strategies as st

from streams.recent import RecentLists

MOST, AGE_S = 4, 10.0

_users = st.sampled_from("abcdefg")
_items = st.lists(st.sampled_from("123456"), max_size=4)
_steps = st.lists(
    st.tuples(st.sampled_from(["note", "forget", "ask"]), _users, _items, st.floats(0, 4, allow_nan=False)), max_size=40
)


@given(_steps)
def test_it_knows_the_newest_lists_and_who_holds_what(steps: list[tuple[str, str, list[str], float]]) -> None:
    recent: RecentLists[int] = RecentLists(MOST, AGE_S)
    plain: dict[str, tuple[float, list[str], int]] = {}
    now = 0.0
    for number, (step, user, items, later) in enumerate(steps):
        now += later
        if step == "note":
            recent.note(user, items, number, now)
            plain.pop(user, None)
            plain[user] = now, items, number
        elif step == "forget":
            recent.forget(user)
            plain.pop(user, None)
        if step != "forget":
            plain = {one: kept for one, kept in plain.items() if now - kept[0] <= AGE_S}
            plain = dict(list(plain.items())[-MOST:])
        if step == "ask":
            expected = {user: known for user, (_, held, known) in plain.items() if set(held) & set(items)}
            assert recent.holding(items, now) == expected
        assert len(recent) == len(plain)


def test_the_index_does_not_grow_with_those_who_have_gone() -> None:
    recent: RecentLists[int] = RecentLists(MOST, AGE_S)
    for number in range(1_000):
        recent.note(f"user-{number}", [f"item-{number}", "common"], number, 0.0)
        assert recent.indexed <= 2 * MOST + 1
    for number in range(3):
        recent.note("somebody", ["other"], number, (number + 1) * 2 * AGE_S)
    assert recent.holding(["common"], 6 * AGE_S) == {}
    assert recent.indexed == 1
