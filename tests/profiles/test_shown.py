"""What users were shown last, as a list a user would keep it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.profiles.shown import LAST, LONG_AGO, Shown, since_shown

MOST = 3
users = st.sampled_from(["ann", "bob", "cid", "dot", "eve"])
steps = st.lists(st.tuples(users, st.integers(1, 9)) | users, max_size=250)


@given(steps)
def test_each_users_last_impressions_are_remembered_of_the_last_users(done: list[tuple[str, int] | str]) -> None:
    shown, known = Shown(MOST), dict[str, list[int]]()
    for step in done:
        if isinstance(step, str):
            shown.forget(step)
            known.pop(step, None)
            continue
        shown.note([step])
        user, item = step
        known[user] = [*known.pop(user, []), item][-LAST:]
        if len(known) > MOST:
            del known[next(iter(known))]
    assert len(shown) == len(known)
    everybody = ["ann", "bob", "cid", "dot", "eve"]
    for user, found in zip(everybody, shown.of(everybody).tolist(), strict=True):
        expected = known.get(user, [])[::-1]
        assert found == expected + [0] * (LAST - len(expected))
    shown.clear()
    assert len(shown) == 0
    assert not shown.of(everybody).any()


@given(st.lists(st.lists(st.integers(1, 9), max_size=LAST), min_size=1, max_size=4))
def test_how_long_ago_and_how_often_something_was_shown(last_first: list[list[int]]) -> None:
    shown = np.array([[*of_one, *[0] * (LAST - len(of_one))] for of_one in last_first], dtype=np.uint64)
    keys = np.tile(np.arange(1, 12, dtype=np.uint64), (len(last_first), 1))
    ago, times = since_shown(shown, keys)
    for user, of_one in enumerate(last_first):
        for place, key in enumerate(keys[user].tolist()):
            assert ago[user, place] == (of_one.index(key) if key in of_one else LONG_AGO)
            assert times[user, place] == of_one.count(key)
        alone = since_shown(shown[user], keys[user])
        assert np.array_equal(alone, (ago[user], times[user]))
