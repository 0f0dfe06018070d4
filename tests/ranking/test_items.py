"""The item table finds rows by key, grows without renumbering, and tells when a copy of it is stale."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.catalogue.index import UNKNOWN
from mmrec_stream.contracts.identity import NO_KEY, id_keys
from mmrec_stream.ranking.items import ItemTable

IDS = st.lists(st.text(min_size=1, max_size=8), max_size=60, unique=True)


def table_of(ids: list[str], width: int = 3) -> ItemTable:
    count = len(ids)
    vectors = np.arange(count * width, dtype=np.float32).reshape(count, width)
    return ItemTable(ids, vectors, np.full((count, 2), -1, np.int32), np.zeros((count, 2), np.float32))


@given(ids=IDS, more=IDS, absent=IDS)
def test_rows_follow_the_order_of_arrival(ids: list[str], more: list[str], absent: list[str]) -> None:
    table = table_of(ids)
    table.add(more, np.ones((len(more), 3), dtype=np.float32))
    expected = list(dict.fromkeys([*ids, *more]))
    assert list(table.ids) == expected
    assert table.rows(id_keys(expected)).tolist() == list(range(len(expected)))
    unknown = [text for text in absent if text not in expected]
    assert (table.rows(id_keys(unknown)) == UNKNOWN).all()
    assert {len(array) for array in table.arrays().values()} == {len(expected)}


def test_an_empty_slot_has_no_row_and_the_shape_is_kept() -> None:
    table = table_of(["a", "b"])
    keys = np.array([[NO_KEY, *id_keys(["b"])], [*id_keys(["a"]), NO_KEY]], dtype=np.uint64)
    assert table.rows(keys).tolist() == [[UNKNOWN, 1], [0, UNKNOWN]]
    assert table.rows(keys.T).tolist() == [[UNKNOWN, 0], [1, UNKNOWN]]


def test_growth_within_the_reserve_copies_nothing_and_older_views_keep_their_rows() -> None:
    table = table_of([f"i{number}" for number in range(100)])
    before = table.vectors
    table.add(["x"], np.full((1, 3), 7, dtype=np.float32))
    assert table.vectors.base is before.base
    assert before.shape == (100, 3)
    assert table.vectors[100].tolist() == [7, 7, 7]
    for number in range(200):
        table.add([f"n{number}"], np.full((1, 3), number, dtype=np.float32))
    assert len(table) == 301
    assert table.vectors[table.row("n199")].tolist() == [199, 199, 199]
    assert table.vectors[table.row("i3")].tolist() == [9, 10, 11]
    assert before[3].tolist() == [9, 10, 11]
    assert all(array.flags.c_contiguous for array in table.arrays().values())


def test_added_items_are_available_and_keep_the_company_of_what_resembles_them() -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0.9, 0.1]], dtype=np.float32)
    table = ItemTable(["a", "b", "c"], vectors, np.full((3, 2), -1, np.int32), np.zeros((3, 2), np.float32))
    rows = table.add(["like b", "a"], np.array([[0, 2, 0], [1, 1, 1]], dtype=np.float32))
    assert rows.tolist() == [3, 0]
    assert table.available.all()
    assert set(table.neighbours[3].tolist()) == {1, 2}
    heaviest = table.neighbours[3][table.neighbour_weights[3].argmax()]
    assert heaviest == 1
    assert np.isclose(table.neighbour_weights[3].sum(), 1)
    assert table.vectors[0].tolist() == [1, 1, 1]
    assert table.neighbours[0].tolist() == [-1, -1]


def test_the_first_item_of_an_empty_table_has_no_neighbours() -> None:
    table = table_of([])
    assert table.add(["a"], np.ones((1, 3), dtype=np.float32)).tolist() == [0]
    assert table.neighbours.tolist() == [[-1, -1]]


def test_the_version_grows_with_changes_only() -> None:
    table = table_of(["a", "b"])
    versions = [table.version]
    table.set_available(np.array([0, UNKNOWN]), np.array([False, False]))
    versions.append(table.version)
    assert table.available.tolist() == [False, True]
    table.set_available(np.array([0]), False)
    assert table.version == versions[-1]
    table.add(["c"], np.zeros((1, 3), dtype=np.float32))
    versions.append(table.version)
    assert versions == sorted(set(versions))


def test_an_added_item_is_reached_from_what_resembles_it_and_weights_keep_their_sum() -> None:
    vectors = np.eye(3, dtype=np.float32)
    neighbours = np.array([[1, 2], [0, 2], [0, 1]], dtype=np.int32)
    weights = np.array([[0.5, 0.1], [0.3, 0.2], [0.2, 0.2]], dtype=np.float32)
    table = ItemTable(["a", "b", "c"], vectors, neighbours, weights)
    (row,) = table.add(["like a"], np.array([[2, 0.1, 0]], dtype=np.float32)).tolist()
    assert set(table.neighbours[0].tolist()) == {1, 2}
    assert set(table.arrays()["neighbours"][0].tolist()) == {1, row}
    assert np.allclose(table.neighbour_weights.sum(axis=1), [0.6, 0.5, 0.4, 1.0])
    (again,) = table.add(["like a too"], np.array([[3, 0.1, 0]], dtype=np.float32)).tolist()
    assert set(table.arrays()["neighbours"][0].tolist()) == {1, again}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "sell out", "return"]), st.integers(0, 12)), min_size=1, max_size=20
    )
)
def test_it_tells_what_has_changed_since_a_version(steps: list[tuple[str, int]]) -> None:
    table = table_of([f"i{number}" for number in range(8)])
    start = table.version
    vectors, available = table.vectors.copy(), table.available.copy()
    for number, (step, item) in enumerate(steps):
        if step == "add":
            table.add([f"i{item}"], np.full((1, 3), 100 + number, dtype=np.float32))
        else:
            table.set_available(table.rows(id_keys([f"i{item}"])), step == "return")
    changed = set(table.changed_since(start).tolist())
    assert changed >= set(range(len(vectors), len(table)))
    for row in range(len(vectors)):
        if row not in changed:
            assert (table.vectors[row] == vectors[row]).all()
            assert table.available[row] == available[row]
    assert not len(table.changed_since(table.version))
