import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.profiles import record as layout
from mmrec_stream.profiles.record import (
    LAYOUTS,
    RECORD,
    UNKNOWN_BAND,
    VERSION,
    empty,
    from_bytes,
    price_bands,
    to_bytes,
)
from mmrec_stream.profiles.rows import ProfileRows
from tests.profiles.events import START_MS, events
from tests.profiles.test_fold import folded, record_of, view


@given(st.lists(events(), min_size=1, max_size=60))
def test_bytes_bring_back_the_same_profiles(batch: list[BehaviourEvent]) -> None:
    rows = folded(batch)
    records = rows.records[: len(rows)]
    values = [to_bytes(record) for record in records]
    assert {len(value) for value in values} == {RECORD.itemsize}
    assert from_bytes(values).tobytes() == records.tobytes()


def test_a_profile_stays_within_what_a_live_one_may_take() -> None:
    assert RECORD.itemsize <= 1_150


def test_an_old_version_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout with a shorter ring and without affinities: what it has is kept, what it lacks is empty."""
    old = np.dtype(
        [("version", "u1"), ("size", "u1"), ("items", "u8", (20,)), ("times", "u4", (20,)), ("events", "u4")]
    )
    monkeypatch.setitem(LAYOUTS, 0, old)
    value = np.zeros(1, dtype=old)
    value["size"], value["events"] = 2, 9
    value["items"][0, :2], value["times"][0, :2] = [7, 8], [100, 200]
    new = to_bytes(record_of(folded([view("lamp")])))
    read = from_bytes([value.tobytes(), new])
    assert read["version"].tolist() == [VERSION, VERSION]
    assert (read["size"][0], read["events"][0]) == (2, 9)
    assert read["items"][0, :3].tolist() == [7, 8, 0]
    assert not read["category_weights"][0].any()
    assert read[1].tobytes() == new


@pytest.mark.parametrize(
    ("value", "complaint"),
    [(b"", "version none"), (b"\xff" * RECORD.itemsize, "version 255"), (bytes([VERSION]) + b"short", "6 bytes")],
)
def test_what_is_no_profile_is_refused_by_its_position(value: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"profile 1: .*{complaint}|profile 1: {complaint}"):
        from_bytes([to_bytes(empty(1)[0])[:0] + bytes([VERSION]) + bytes(RECORD.itemsize - 1), value])


def test_price_bands_are_closed_below_and_open_above() -> None:
    bands = price_bands(np.array([0, 4.99, 5, 499.99, 500, 1e9, np.nan]))
    assert bands.tolist() == [0, 0, 1, 6, 7, 7, UNKNOWN_BAND]


@given(st.lists(events(), min_size=1, max_size=50), st.data())
def test_restore_keeps_the_profile_that_has_folded_further(batch: list[BehaviourEvent], data: st.DataObject) -> None:
    rows = ProfileRows()
    changelog: list[tuple[str, bytes]] = []
    for offset, event in enumerate(batch):
        folded([event], rows, first_offset=offset)
        changelog.append((event.user_id, to_bytes(record_of(rows, event.user_id))))
    late = data.draw(st.lists(st.sampled_from(changelog), max_size=5))  # a worker that lost the partition writes on
    order = changelog + late
    cut = data.draw(st.integers(0, len(order)))
    restored = ProfileRows()
    for part in (order[:cut], order[cut:]):
        if part:
            restored.restore([user for user, _ in part], [value for _, value in part])
    for user in rows:
        assert record_of(restored, user).tobytes() == record_of(rows, user).tobytes()


def test_rows_survive_growth() -> None:
    rows = ProfileRows()
    many = [f"user-{number}" for number in range(5_000)]
    rows.restore(many, [to_bytes(record_of(folded([view("lamp", n)]))) for n in range(5_000)])
    assert len(rows) == 5_000
    assert [rows.records["times"][rows.row(user), 0] for user in many[:3]] == [START_MS // 1000 + n for n in range(3)]


def test_layouts_are_never_changed_in_place() -> None:
    """The bytes of version 1 are in people's changelogs: a change of its layout is a new version."""
    assert [LAYOUTS[1].fields[name][1] for name in ("version", "items", "last_ms", "times", "counts")] == [  # type: ignore[index]
        0,
        64,
        528,
        608,
        1008,
    ]
    assert max(LAYOUTS) == layout.VERSION
