"""Every contract alike: the bytes on the wire never change, and only what is right is read."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import BehaviourRecord, CommandType, EventType, Follow, View, decode_event
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.contracts.dead_letters import DeadLetter
from mmrec_stream.contracts.fields import EARLIEST_MS
from mmrec_stream.contracts.recommendations import RecommendationList
from mmrec_stream.contracts.releases import ReleaseAnnouncement
from tests.contracts.examples import EVENT_NAMES, EXAMPLES, any_of, as_json, codec

GOLDEN = Path(__file__).parent / "golden"

REQUIRED = [
    (name, field.name) for name, value in EXAMPLES.items() for field in msgspec.structs.fields(value) if field.required
]
FIELDS = [(name, field.name) for name, value in EXAMPLES.items() for field in msgspec.structs.fields(value)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bytes_on_the_wire_are_the_golden_ones(name: str) -> None:
    encode, decode, _ = codec(EXAMPLES[name])
    golden = (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")
    assert encode(EXAMPLES[name]) == golden
    assert decode(golden) == EXAMPLES[name]


def test_every_golden_file_is_of_an_example() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_unknown_fields_are_passed_over(name: str) -> None:
    _, decode, _ = codec(EXAMPLES[name])
    golden = json.loads((GOLDEN / f"{name}.json").read_bytes())
    later = {"new_in_version_2": {"deep": [1, None, "x"]}, **golden, "another": 1.5}
    assert decode(json.dumps(later).encode()) == EXAMPLES[name]


@pytest.mark.parametrize(("name", "field"), REQUIRED)
def test_a_missing_field_is_named(name: str, field: str) -> None:
    message = as_json(EXAMPLES[name])
    del message[field]
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field}`"):
        codec(EXAMPLES[name])[1](json.dumps(message).encode())


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_wrong_field_is_named(name: str, field: str) -> None:
    # No field of any contract is a list of lists.
    message = as_json(EXAMPLES[name]) | {field: [[]]}
    with pytest.raises(msgspec.ValidationError, match=rf"`\$\.{field}"):
        codec(EXAMPLES[name])[1](json.dumps(message).encode())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ts": EARLIEST_MS - 1}, r"\$\.ts"),
        ({"ts": 1_790_000_000}, r"\$\.ts"),
        ({"ts": "2026-11-24"}, r"\$\.ts"),
        ({"ts": 1.5}, r"\$\.ts"),
        ({"user_id": ""}, r"\$\.user_id"),
        ({"user_id": 17}, r"\$\.user_id"),
        ({"user_id": "x" * 129}, r"\$\.user_id"),
        ({"price": -1}, r"\$\.price"),
        ({"price": 1e13}, r"\$\.price"),
        ({"v": 2}, r"\$\.v"),
        ({"type": "glance"}, r"\$\.type"),
        ({"type": None}, r"\$\.type"),
    ],
)
def test_a_value_out_of_bounds_is_named(change: dict[str, Any], named: str) -> None:
    message = {**as_json(EXAMPLES["view"]), **change}
    with pytest.raises(msgspec.ValidationError, match=named):
        decode_event(json.dumps(message).encode())


@pytest.mark.parametrize("whom", [{}, {"followed_user_id": "u-2", "brand": "Ember"}])
def test_a_follow_names_exactly_one(whom: dict[str, str]) -> None:
    message = {"type": "follow", "user_id": "u-1", "ts": 1_790_000_000_000, **whom}
    with pytest.raises(msgspec.ValidationError, match="either `followed_user_id` or `brand`"):
        decode_event(json.dumps(message).encode())
    with pytest.raises(ValueError, match="either"):
        Follow(user_id="u-1", ts=1_790_000_000_000, **whom)  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [b"", b"\x00", b"{", b"[]", b"null", b'"view"', b'{"type":"view"', b"\xff\xfe"])
def test_junk_is_an_error_and_nothing_worse(junk: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_event(junk)


@given(any_of(BehaviourRecord))
def test_any_event_comes_back_as_it_went(value: Any) -> None:
    _comes_back(value)


@pytest.mark.parametrize("contract", [CatalogueItem, RecommendationList, ReleaseAnnouncement, DeadLetter])
@given(data=st.data())
def test_any_other_message_comes_back_as_it_went(contract: Any, data: st.DataObject) -> None:
    _comes_back(data.draw(any_of(contract)))


def _comes_back(value: Any) -> None:
    encode, decode, _ = codec(value)
    wire = encode(value)
    assert b"\n" not in wire
    assert decode(wire) == value


def test_event_type_codes_are_for_ever() -> None:
    assert {kind.name: kind.value for kind in EventType} == {
        "VIEW": 1,
        "CLICK": 2,
        "ADD_TO_CART": 3,
        "REMOVE_FROM_CART": 4,
        "PURCHASE": 5,
        "CANCEL": 6,
        "RETURN": 7,
        "RATING": 8,
        "FOLLOW": 9,
        "IMPRESSION": 10,
    }
    assert {kind.name: kind.value for kind in CommandType} == {"FORGET": 200}
    assert {type(EXAMPLES[name]).CODE for name in EVENT_NAMES} == {*EventType, *CommandType}


def test_events_cannot_be_changed() -> None:
    event = View(user_id="u", ts=1_790_000_000_000, item_id="i")
    with pytest.raises(AttributeError):
        event.ts = 1  # type: ignore[misc]


def test_an_item_without_stock_or_taken_down_is_not_sellable() -> None:
    assert CatalogueItem(item_id="i").offered
    assert CatalogueItem(item_id="i", stock=1).offered
    assert not CatalogueItem(item_id="i", stock=0).offered
    assert not CatalogueItem(item_id="i", available=False).offered


def test_an_item_can_be_sold_from_the_first_moment_of_its_window_until_the_last() -> None:
    item = CatalogueItem(item_id="i", available_from=1_790_000_000_000, available_until=1_790_000_000_500)
    moments = [1_789_999_999_999, 1_790_000_000_000, 1_790_000_000_499, 1_790_000_000_500]
    assert [item.sellable_at(moment) for moment in moments] == [False, True, True, False]
    assert not msgspec.structs.replace(item, stock=0).sellable_at(moments[1])
    assert CatalogueItem(item_id="i", available_from=moments[1]).sellable_at(9_000_000_000_000)


def test_a_dead_letter_is_keyed_by_its_origin() -> None:
    assert EXAMPLES["dead_letter"].record_key == b"mmrec.clicks/1/17"
