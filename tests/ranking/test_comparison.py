"""What guards count of a release beside the live one, and who sees whose lists meanwhile."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import View
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.identity import id_keys
from mmrec_stream.contracts.recommendations import Recommended
from mmrec_stream.contracts.rollouts import Trial
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import Records
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.ranking.comparison import Tally
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.recommend import Arm, Recommender, Slate, Tried
from mmrec_stream.ranking.repeats import Repeats
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.releases.rollout import in_canary
from tests.tiny import NOW, tiny_release, tiny_release_at

USERS = [f"user-{number}" for number in range(24)]


def slates(*lists: list[int]) -> list[Slate]:
    return [Slate([Recommended(item_id=str(i), score=1.0) for i in one], "hybrid", "v", 0.5) for one in lists]


def counted(live: list[Slate], theirs: list[Slate], live_s: float = 1.0, theirs_s: float = 1.0) -> dict[str, Trial]:
    tally = Tally()
    tally.compare(live, theirs, live_s, theirs_s, 1_000)
    return tally.trials


MINE = slates(*([user * 10 + place for place in range(10)] for user in range(5)))


def test_the_same_lists_raise_no_guard() -> None:
    assert {name: trial.bad for name, trial in counted(MINE, MINE).items()} == dict.fromkeys(
        ("errors", "empty", "latency", "agreement", "coverage"), 0
    )


def test_what_is_wrong_with_lists_is_counted_by_its_guard() -> None:
    assert counted(MINE, [])["errors"] == Trial(n=5, bad=5)
    assert counted(MINE, slates(*[[]] * 5))["errors"] == Trial(n=5, bad=5)
    assert counted(MINE, slates(*([user * 10] for user in range(5))))["empty"] == Trial(n=5, bad=5)
    assert counted(MINE, MINE, 1.0, 1.33)["latency"] == Trial(n=1, bad=1)
    elsewhere = slates(*([500 + user * 10 + place for place in range(10)] for user in range(5)))
    assert counted(MINE, elsewhere)["agreement"] == Trial(n=5, bad=5)
    same_for_all = slates(*[list(range(10))] * 5)
    assert counted(MINE, same_for_all)["coverage"] == Trial(n=1, bad=1)


def test_users_whom_the_live_release_does_not_know_are_not_compared() -> None:
    popular = [Slate(one.items, "popular", "v", 0.0) for one in MINE]
    assert counted(popular, MINE) == {}


def profiles(items: list[str]) -> Records:
    rows = ProfileRows()
    events = [View(user_id=user, item_id=items[place], ts=NOW) for place, user in enumerate(USERS)]
    columns = columns_of(events, range(len(events)))
    fold(rows.records, rows.rows_of(columns.users), columns, 1)
    return rows.records[: len(USERS)].copy()


@pytest.fixture
def recommender() -> Recommender:
    made = Recommender(Catalogue(), Popularity(), list_size=10, repeats=Repeats(0.0, 0.0))
    made.serve(Scorer.load(tiny_release(), provider="cpu", threads=1))
    return made


def tried(path: Path, share: float, failures: list[int]) -> Tried:
    return Tried(Arm(Scorer.load(path, provider="cpu", threads=1)), share, lambda *_: None, failures.append)


def test_a_canary_is_shown_to_its_users_in_their_places_and_shadow_to_nobody(recommender: Recommender) -> None:
    live = recommender.scorer
    assert live is not None
    records = profiles(list(live.table.ids))
    for share in (0.0, 0.4):
        other = tried(tiny_release_at(0.0), share, [])
        recommender.serve(live, other)
        theirs = in_canary(id_keys(USERS), other.arm.scorer.version, share)
        found = recommender.recommend(USERS, records.copy(), NOW)
        assert [one.release for one in found] == [other.arm.scorer.version if one else "tiny-1" for one in theirs]
        recommender.serve(live)
        alone = recommender.recommend(USERS, records.copy(), NOW)
        assert [one.items for one, shown in zip(found, theirs, strict=True) if not shown] == [
            one.items for one, shown in zip(alone, theirs, strict=True) if not shown
        ]


def test_a_canary_that_fails_costs_nobody_a_list(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    live, failures = recommender.scorer, list[int]()
    assert live is not None
    other = tried(tiny_release_at(0.0), 0.5, failures)

    def fails(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(other.arm.scorer, "run", fails)
    recommender.serve(live, other)
    found = recommender.recommend(USERS, profiles(list(live.table.ids)), NOW)
    assert {one.release for one in found} == {"tiny-1"}
    assert all(one.items for one in found)
    assert sum(failures) == in_canary(id_keys(USERS), other.arm.scorer.version, 0.5).sum() > 0


def test_a_release_with_the_same_item_encoder_takes_over_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    live, later = (Scorer.load(path, provider="cpu", threads=1) for path in (tiny_release(), tiny_release_at(0.0)))
    newcomer = CatalogueItem(item_id="newcomer", title="a red boot")
    live.add_items([newcomer])
    assert later.adopt(live) == 1
    np.testing.assert_array_equal(
        later.table.vectors[later.table.row("newcomer")], live.table.vectors[live.table.row("newcomer")]
    )
    assert later.adopt(live) == 0
    monkeypatch.setattr(later, "encode", lambda _: pytest.fail("encoded once more"))
    later.add_items([newcomer])
