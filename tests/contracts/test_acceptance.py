"""Whatever bytes come in, they are an event or have a fault; nothing is raised."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.behaviour import encode_event
from mmrec_stream.contracts.dead_letters import Fault
from tests.profiles.events import events

GOOD = b'{"type":"click","user_id":"ann","item_id":"sofa","ts":1700000000000'
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "user_id", "ts", "x"]) | st.text(), inner),
)


@given(st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
def test_nothing_is_raised(value: bytes) -> None:
    found = accept(value, 150)
    if len(value) > 150:
        assert isinstance(found, Refusal)
        assert found.fault is Fault.OVERSIZED


@given(events())
def test_an_event_comes_back_as_it_was(event: object) -> None:
    assert accept(encode_event(event), 65_536) == event


@pytest.mark.parametrize(
    ("value", "fault", "word"),
    [
        (None, Fault.EMPTY, "no value"),
        (b"", Fault.EMPTY, "no value"),
        (GOOD, Fault.NOT_JSON, "truncated"),
        (b'{"type":"click","user_id":"\xff"}', Fault.NOT_JSON, "utf-8"),
        (GOOD.replace(b'"sofa"', b"7") + b"}", Fault.INVALID, "$.item_id"),
        (GOOD + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", Fault.NOT_JSON, "recursion"),
        (b'{"x":' + b'{"y":' * 5_000, Fault.NOT_JSON, "recursion"),
        (GOOD + b',"x":"' + b"y" * 70_000 + b'"}', Fault.OVERSIZED, "at most 65536"),
    ],
)
def test_each_fault_says_what_is_wrong(value: bytes | None, fault: Fault, word: str) -> None:
    found = accept(value, 65_536)
    assert isinstance(found, Refusal)
    assert found.fault is fault
    assert word in found.detail
