import importlib.util
import itertools
import json
from enum import IntEnum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts import behaviour
from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.contracts.identity import id_key
from mmrec_stream.profiles import fold
from mmrec_stream.profiles import record as layout
from mmrec_stream.profiles.record import (
    LAYOUTS,
    RECORD,
    TYPE_SLOTS,
    UNKNOWN_BAND,
    VERSION,
    from_bytes,
    price_bands,
    to_bytes,
)
from mmrec_stream.profiles.rows import ProfileRows
from tests.profiles.events import START_MS, events
from tests.profiles.golden_events import BOUGHT, CLICKED
from tests.profiles.test_fold import PURCHASES, folded, record_of, view


@given(st.lists(events(), min_size=1, max_size=60))
def test_bytes_bring_back_the_same_profiles(batch: list[BehaviourEvent]) -> None:
    rows = folded(batch)
    records = rows.records[: len(rows)]
    values = [to_bytes(record) for record in records]
    assert {len(value) for value in values} == {RECORD.itemsize}
    assert from_bytes(values).tobytes() == records.tobytes()


def test_a_profile_stays_within_what_a_live_one_may_take() -> None:
    assert RECORD.itemsize <= 1_150


def newer_layout() -> np.dtype[np.void]:
    """A version 2 as it may come: what version 1 has, where it was, and a field behind it."""
    fields = dict(LAYOUTS[1].fields or {})
    return np.dtype(
        {
            "itemsize": LAYOUTS[1].itemsize + 12,
            "names": [*fields, "tail"],
            "formats": [*(fields[name][0] for name in fields), "12u1"],
            "offsets": [*(fields[name][1] for name in fields), LAYOUTS[1].itemsize],
        }
    )


def test_rows_of_the_version_before_are_read_with_what_they_lack_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    old = to_bytes(record_of(folded([view("lamp")])))
    monkeypatch.setattr(layout, "LAYOUTS", {**LAYOUTS, 2: newer_layout()})
    monkeypatch.setattr(layout, "RECORD", newer_layout())
    monkeypatch.setattr(layout, "VERSION", 2)
    new = b"\2" + old[1:] + b"twelve bytes"
    read = from_bytes([old, new])
    assert read["version"].tolist() == [2, 2]
    assert [tail.tobytes() for tail in read["tail"]] == [bytes(12), b"twelve bytes"]
    assert read["items"][:, 0].tolist() == [id_key("lamp")] * 2
    assert read[1].tobytes() == new


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (b"", "empty"),
        (bytes(RECORD.itemsize), "version 0"),
        (b"\xff" * (RECORD.itemsize - 1), "1139 bytes, version 255"),
        (bytes([VERSION]) + b"short", "6 bytes"),
        (bytes([VERSION]) + bytes(RECORD.itemsize), "1141 bytes"),
    ],
)
def test_what_is_no_profile_is_refused_by_its_position(value: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"profile 1: .*{complaint}"):
        from_bytes([bytes([VERSION]) + bytes(RECORD.itemsize - 1), value])


def test_price_bands_are_closed_below_and_open_above() -> None:
    bands = price_bands(np.array([0, 4.99, 5, 499.99, 500, 1e9, np.nan]))
    assert bands.tolist() == [0, 0, 1, 6, 7, 7, UNKNOWN_BAND]


def test_rows_survive_growth() -> None:
    rows = ProfileRows()
    many = [f"user-{number}" for number in range(5_000)]
    rows.restore(
        [user.encode() for user in many], [to_bytes(record_of(folded([view("lamp", n)]))) for n in range(5_000)]
    )
    assert len(rows) == 5_000
    assert [rows.records["times"][rows.row(user), 0] for user in many[:3]] == [START_MS // 1000 + n for n in range(3)]


GOLDEN = Path(__file__).parent / "golden"


def golden(version: int) -> tuple[bytes, dict[str, object]]:
    """A row as that version wrote it, and what it says."""
    said: dict[str, object] = json.loads((GOLDEN / f"version-{version}.json").read_text())
    return (GOLDEN / f"version-{version}.bin").read_bytes(), said


def test_every_version_has_its_golden_row() -> None:
    assert sorted(LAYOUTS) == [int(path.stem.removeprefix("version-")) for path in sorted(GOLDEN.glob("*.bin"))]


@pytest.mark.parametrize("version", LAYOUTS)
def test_the_bytes_of_a_version_say_for_ever_what_they_said(version: int) -> None:
    """They lie in people's changelogs. Whoever sees this fail has changed a layout instead of adding one."""
    value, said = golden(version)
    written = np.frombuffer(value, dtype=LAYOUTS[version])[0]
    assert {name: written[name].tolist() for name in written.dtype.names or ()} == said
    read = from_bytes([value])[0]
    assert {name: read[name].tolist() for name in said if name != "version"} == {
        name: what for name, what in said.items() if name != "version"
    }


def test_the_fold_writes_the_golden_bytes() -> None:
    """Names, order, codes and sizes: none of it follows from a constant that something else needs changed."""
    value, said = golden(VERSION)
    rows = folded(CLICKED, first_offset=17)
    folded(BOUGHT, rows, first_offset=4_000_000_000, source=PURCHASES)
    (written,) = rows.encode(rows.live())
    assert len(written) == len(value)
    record = np.frombuffer(written, dtype=LAYOUTS[VERSION])[0]
    for name, what in said.items():
        # Powers of two may differ in the last bit between machines.
        assert record[name].tolist() == (pytest.approx(np.array(what)) if record[name].dtype.kind == "f" else what)


def test_layouts_grow_at_the_end_only() -> None:
    for old, new in itertools.pairwise(LAYOUTS[version] for version in sorted(LAYOUTS)):
        grown = dict(new.fields or {})
        assert all(grown[name] == field for name, field in (old.fields or {}).items())
        assert all(field[1] >= old.itemsize for name, field in grown.items() if name not in (old.fields or {}))
    assert sorted(LAYOUTS) == list(range(1, VERSION + 1))


def test_an_event_type_beyond_the_counts_of_the_layout_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {kind.name: kind.value for kind in behaviour.EventType} | {"SHARE": TYPE_SLOTS}
    more = IntEnum("EventType", types)  # type: ignore[misc]
    monkeypatch.setattr(behaviour, "EventType", more)
    spec = importlib.util.spec_from_file_location("fold_of_more", fold.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match="needs a new layout"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
