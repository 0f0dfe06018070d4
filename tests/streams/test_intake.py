from collections.abc import Sequence

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import BehaviourEvent, encode_event
from mmrec_stream.contracts.dead_letters import MAX_VALUE_BYTES, Fault, decode_dead_letter, encode_dead_letter
from mmrec_stream.contracts.identity import partition_of
from streams.chunks import Chunk
from streams.intake import Limits, letter, set_aside, sort_chunk
from tests.profiles.events import SPAN_MS, START_MS, events
from tests.streams.chunks import chunk_of

NOW_MS = START_MS + SPAN_MS
LIMITS = Limits(max_bytes=1_000, max_future_ms=60_000, partitions=4)

BAD = {
    Fault.EMPTY: None,
    Fault.NOT_JSON: b'{"type":"view",',
    Fault.INVALID: b'{"type":"view","user_id":"ann","item_id":7,"ts":1700000000000}',
    Fault.OVERSIZED: b'{"type":"view","user_id":"ann","item_id":"lamp","ts":1700000000000,"x":"%s"}' % (b"x" * 1_000),
    Fault.FUTURE: b'{"type":"view","user_id":"ann","item_id":"lamp","ts":%d}' % (NOW_MS + 3_600_000),
}


def nobody(users: Sequence[str]) -> set[str]:
    """Everybody has a profile."""
    return set()


def chunk(*values: bytes | None, first: int = 0, partition: int = 2) -> Chunk:
    return chunk_of(TP("clicks", partition), values, range(first, first + len(values)), time_ms=NOW_MS)


@given(st.lists(st.one_of(events(), st.sampled_from(sorted(BAD))), min_size=1, max_size=30))
def test_every_record_comes_out_once_as_an_event_or_as_a_dead_letter(mixed: list[BehaviourEvent | Fault]) -> None:
    values = [BAD[one] if isinstance(one, Fault) else encode_event(one) for one in mixed]
    intake = sort_chunk(chunk(*values), LIMITS, NOW_MS, nobody)
    assert intake.events == [one for one in mixed if not isinstance(one, Fault)]
    assert intake.chunk.offsets == intake.columns.offsets.tolist()
    assert intake.chunk.values == [encode_event(one) for one in intake.events]
    faults = {dead.origin.offset: dead.fault for dead in intake.letters}
    assert faults == {offset: one for offset, one in enumerate(mixed) if isinstance(one, Fault)}
    for dead in intake.letters:
        assert dead.value == values[dead.origin.offset]


def test_a_dead_letter_names_the_field_and_the_place_and_keeps_the_bytes() -> None:
    intake = sort_chunk(chunk(BAD[Fault.INVALID], first=41), LIMITS, NOW_MS, nobody)
    dead = decode_dead_letter(encode_dead_letter(intake.letters[0]))
    assert "$.item_id" in dead.detail
    assert (dead.origin.topic, dead.origin.partition, dead.origin.offset) == ("clicks", 2, 41)
    assert (dead.key, dead.value) == (b"ann", BAD[Fault.INVALID])


def test_a_value_that_no_letter_can_hold_is_cut_and_says_so() -> None:
    dead = letter(chunk(b"x" * (MAX_VALUE_BYTES + 1)), 0, Fault.OVERSIZED, "")
    assert dead.truncated
    assert dead.value is not None
    assert len(dead.value) == MAX_VALUE_BYTES


@pytest.mark.parametrize("partitions", [1, 3, 4])
def test_newcomers_of_another_partition_are_misplaced_and_known_users_are_not(partitions: int) -> None:
    users = [f"user-{number}" for number in range(50)]
    values = [b'{"type":"view","user_id":"%s","item_id":"lamp","ts":1700000000000}' % user.encode() for user in users]
    limits, known = Limits(1_000, 60_000, partitions), set(users[::2])
    intake = sort_chunk(chunk(*values, partition=0), limits, NOW_MS, lambda asked: set(asked) - known)
    wrong = [n for n, user in enumerate(users) if user not in known and partition_of(user.encode(), partitions) != 0]
    assert [(dead.fault, dead.origin.offset) for dead in intake.letters] == [(Fault.MISPLACED, n) for n in wrong]
    assert intake.columns.offsets.tolist() == [n for n in range(50) if n not in wrong]


def test_a_chunk_that_is_set_aside_has_a_letter_for_every_record_and_nothing_to_fold() -> None:
    intake = set_aside(chunk(b"one", None, b"three", first=7), "ZeroDivisionError: ours")
    assert [(dead.fault, dead.origin.offset, dead.value) for dead in intake.letters] == [
        (Fault.INTERNAL, 7, b"one"),
        (Fault.INTERNAL, 8, None),
        (Fault.INTERNAL, 9, b"three"),
    ]
    assert (intake.events, len(intake.columns), len(intake.chunk)) == ([], 0, 0)


def test_a_value_nested_too_deep_to_read_is_a_dead_letter_among_good_ones() -> None:
    good = b'{"type":"view","user_id":"ann","item_id":"lamp","ts":%d}' % START_MS
    deep = good[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    roomy = Limits(max_bytes=65_536, max_future_ms=60_000, partitions=4)
    intake = sort_chunk(chunk(good, deep, good), roomy, NOW_MS, nobody)
    assert intake.columns.offsets.tolist() == [0, 2]
    assert [(dead.fault, dead.origin.offset) for dead in intake.letters] == [(Fault.NOT_JSON, 1)]
