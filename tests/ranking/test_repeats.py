"""What of a user's own history may come back into the lists, and when."""

from collections.abc import Sequence

import numpy as np
import pytest

from mmrec_stream.contracts.behaviour import AddToCart, BehaviourEvent, Purchase, RemoveFromCart, Return, View
from mmrec_stream.contracts.identity import id_key, id_keys
from mmrec_stream.profiles import record as profile
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.ranking.repeats import DAY_S, Cycles, Repeats, barred_keys

NOW_S = 1_760_000_000
DEFAULT = Repeats()
MUSIC = Repeats(seen_s=0.0)


def days_ago(days: float) -> int:
    return int((NOW_S - days * DAY_S) * 1000)


def kept_out(events: Sequence[BehaviourEvent], repeats: Repeats) -> set[str]:
    records = profile.empty(1)
    fold(records, np.zeros(len(events), dtype=np.int64), columns_of(list(events), list(range(len(events)))), source=1)
    keys = set(barred_keys(records, np.array([NOW_S]), repeats)[0].tolist())
    return {name for name in ("lamp", "rug") if int(id_key(name)) in keys}


def view(item: str, days: float) -> View:
    return View(user_id="ann", item_id=item, ts=days_ago(days))


def bought(item: str, days: float) -> Purchase:
    return Purchase(user_id="ann", item_id=item, ts=days_ago(days))


def cart(item: str, days: float) -> AddToCart:
    return AddToCart(user_id="ann", item_id=item, ts=days_ago(days))


@pytest.mark.parametrize(
    ("events", "repeats", "out"),
    [
        ([view("lamp", 0), view("rug", 29)], DEFAULT, {"lamp", "rug"}),
        ([view("lamp", 31), view("rug", 0)], DEFAULT, {"rug"}),
        ([view("lamp", 0)], MUSIC, set()),
        ([bought("lamp", 29)], DEFAULT, {"lamp"}),
        ([bought("lamp", 29)], MUSIC, {"lamp"}),
        ([bought("lamp", 31)], DEFAULT, set()),
        ([bought("lamp", 8), bought("rug", 6)], Repeats.of_days(0, 7), {"rug"}),
        ([bought("lamp", 31), view("lamp", 1)], DEFAULT, {"lamp"}),
        ([cart("lamp", 90)], DEFAULT, {"lamp"}),
        ([cart("lamp", 90)], MUSIC, {"lamp"}),
        ([cart("lamp", 2), RemoveFromCart(user_id="ann", item_id="lamp", ts=days_ago(1))], DEFAULT, {"lamp"}),
        ([cart("lamp", 2), RemoveFromCart(user_id="ann", item_id="lamp", ts=days_ago(1))], MUSIC, set()),
        ([bought("lamp", 40), Return(user_id="ann", item_id="lamp", ts=days_ago(1))], DEFAULT, {"lamp"}),
    ],
)
def test_what_is_kept_out(events: list[BehaviourEvent], repeats: Repeats, out: set[str]) -> None:
    assert kept_out(events, repeats) == out


def test_each_profile_is_asked_at_its_own_moment() -> None:
    records = profile.empty(2)
    fold(records, np.array([0, 1]), columns_of([view("lamp", 20), view("lamp", 20)], [0, 1]), source=1)
    keys = barred_keys(records, np.array([NOW_S, NOW_S + 11 * DAY_S]), DEFAULT)
    assert (keys == id_key("lamp")).any(axis=1).tolist() == [True, False]


LEARNED = Cycles.of(id_keys(["rug", "vase", "lamp"]), np.array([np.nan, 60 * DAY_S, 10 * DAY_S]))


@pytest.mark.parametrize(
    ("events", "repeats", "out"),
    [
        ([bought("lamp", 9), bought("rug", 29)], DEFAULT, {"lamp", "rug"}),
        ([bought("lamp", 11), bought("rug", 29)], DEFAULT, {"rug"}),
        ([bought("lamp", 11), bought("rug", 31)], DEFAULT, set()),
        ([bought("lamp", 11), view("lamp", 9)], DEFAULT, {"lamp"}),
        ([bought("lamp", 1)], Repeats.of_days(0, 0), set()),
        ([cart("lamp", 90)], DEFAULT, {"lamp"}),
    ],
)
def test_what_is_bought_again_comes_back_when_it_is_due(
    events: list[BehaviourEvent], repeats: Repeats, out: set[str]
) -> None:
    assert kept_out(events, repeats.learned(LEARNED)) == out


def test_a_release_that_has_learned_nothing_changes_nothing() -> None:
    assert Cycles.of(id_keys(["lamp"]), np.array([np.nan])) is None
    assert DEFAULT.learned(None) == DEFAULT
