from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import (
    BehaviourEvent,
    BehaviourRecord,
    Click,
    EventType,
    Follow,
    Forget,
    Purchase,
    Rating,
)
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.data.dataset import Dataset, Interactions, from_events, read_sequences
from mmrec_stream.errors import UserError

T = 1_600_000_000_000


def test_interactions_are_sorted_by_user_then_time_then_arrival() -> None:
    log = Interactions.of(np.array([1, 0, 0, 0]), np.array([9, 5, 6, 4]), np.array([3, 7, 7, 2]))
    assert log.users.tolist() == [0, 0, 0, 1]
    assert log.items.tolist() == [4, 5, 6, 9]
    assert log.positions().tolist() == [0, 1, 2, 0]
    assert log.offsets(3).tolist() == [0, 3, 4, 4]
    assert set(log.types.tolist()) == {EventType.CLICK}


def test_a_sequence_file_keeps_ids_and_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("anna x y z\n\nbob z x\n", encoding="utf-8")
    dataset = read_sequences(path)
    assert list(dataset.user_ids) == ["anna", "bob"]
    named = [dataset.item_ids[item] for item in dataset.interactions.items]
    assert named == ["x", "y", "z", "z", "x"]
    assert not dataset.timed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("anna\n", "line 1: user anna has no items"),
        ("a x\na y\n", "line 2: user a has a line already"),
        ("\n", "no seq"),
    ],
)
def test_a_wrong_sequence_file_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "wrong.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_sequences(path)


def test_events_become_interactions_edges_and_catalogue_entries() -> None:
    events: list[BehaviourEvent] = [
        Purchase(user_id="anna", ts=T + 5, item_id="b", category="shoes", price=9.0),
        Click(user_id="anna", ts=T, item_id="a"),
        Follow(user_id="anna", ts=T, followed_user_id="bob"),
        Follow(user_id="anna", ts=T, brand="acme"),
        Rating(user_id="anna", ts=T + 6, item_id="a", rating=1.5),
        Rating(user_id="anna", ts=T + 7, item_id="b", rating=4.0, category="shoes"),
    ]
    dataset = from_events("shop", events, [CatalogueItem(item_id="a", title="A thing")])
    assert [dataset.item_ids[i] for i in dataset.interactions.items] == ["a", "b", "a", "b"]
    assert dataset.interactions.types.tolist()[:2] == [EventType.CLICK, EventType.PURCHASE]
    assert dataset.interactions.ratings.tolist() == [0, 0, 1.5, 4.0]
    assert dataset.interactions.likings.tolist() == [True, True, False, True]
    assert dataset.catalogue is not None
    assert [item.title for item in dataset.catalogue] == ["A thing", ""]
    assert dataset.catalogue[1].category == "shoes"
    assert dataset.social is not None
    assert [[dataset.user_ids[user] for user in edge] for edge in dataset.social] == [["anna", "bob"]]


def test_items_are_in_the_order_of_listing_where_the_catalogue_names_them_all() -> None:
    catalogue = [CatalogueItem(item_id="b"), CatalogueItem(item_id="a")]
    events = [Click(user_id="anna", ts=T, item_id=item) for item in ("a", "b")]
    listed = from_events("shop", events, catalogue)
    assert listed.listed
    assert list(listed.item_ids) == ["b", "a"]
    assert not from_events("shop", events, catalogue[:1]).listed, "item a is where its first event put it"
    assert not from_events("shop", events).listed


users = st.sampled_from(["anna", "bob", "cem"])
times = st.integers(T, T + 4)
clicks = st.builds(Click, user_id=users, ts=times, item_id=st.sampled_from("abcd"))
follows = st.builds(Follow, user_id=users, ts=times, followed_user_id=users)


@given(
    st.lists(clicks | follows | st.builds(Forget, user_id=users, ts=times), max_size=30),
    st.sets(st.sampled_from("abe")),
)
def test_what_a_forgotten_user_did_by_then_is_as_if_it_had_never_been(
    events: list[BehaviourRecord], listed: set[str]
) -> None:
    until = {"anna": 0, "bob": 0, "cem": 0}
    for event in events:
        if isinstance(event, Forget):
            until[event.user_id] = max(until[event.user_id], event.ts)
    left = [
        event
        for event in events
        if not isinstance(event, Forget)
        and event.ts > until[event.user_id]
        and not (isinstance(event, Follow) and event.ts <= until[event.followed_user_id or ""])
    ]
    catalogue = [CatalogueItem(item_id=item) for item in sorted(listed)]
    found, expected = from_events("shop", events, catalogue), from_events("shop", left, catalogue)
    assert sorted(said(found)) == sorted(said(expected))
    assert set(found.item_ids) == set(expected.item_ids)
    assert found.catalogue is not None
    assert [item.item_id for item in found.catalogue] == list(found.item_ids)
    assert found.listed == expected.listed
    gone = {user for user, ts in until.items() if ts} - set(expected.user_ids)
    assert not gone & set(found.user_ids)


def said(dataset: Dataset) -> list[tuple[object, ...]]:
    """All that a data set says, by name."""
    log = dataset.interactions
    names, items = dataset.user_ids, dataset.item_ids
    did = [
        (names[user], items[item], time)
        for user, item, time in zip(log.users.tolist(), log.items.tolist(), log.times.tolist(), strict=True)
    ]
    edges = [] if dataset.social is None else [(names[one], names[other], 0) for one, other in dataset.social.tolist()]
    return [*did, *edges]


def test_features_must_have_a_row_an_item() -> None:
    log = Interactions.of(np.array([0]), np.array([0]), np.array([T]))
    with pytest.raises(UserError, match="feature text has 2 rows for 1 items"):
        Dataset("shop", log, ["u"], ["i"], features={"text": np.zeros((2, 3), np.float32)})
