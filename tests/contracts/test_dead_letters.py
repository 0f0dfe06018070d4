"""A letter always fits into its topic, whatever the record was, and says when it is not all of it."""

from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.dead_letters import (
    MAX_DETAIL_CHARACTERS,
    MAX_KEY_BYTES,
    MAX_LETTER_BYTES,
    MAX_VALUE_BYTES,
    Fault,
    Origin,
    dead_letter,
    decode_dead_letter,
    encode_dead_letter,
)

LARGEST = Origin(topic="\x7f" * 249, partition=2**31 - 1, offset=2**63 - 1, timestamp=2**63 - 1)
sizes = st.sampled_from([0, 1, 300, MAX_KEY_BYTES, MAX_KEY_BYTES + 1, MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1, 800_000])
contents = st.none() | st.builds(lambda size, byte: bytes([byte]) * size, sizes, st.integers(0, 255))
# One character of any kind, half of a surrogate pair and control characters among them, many times.
characters = st.characters(exclude_categories=())
details = st.builds(lambda text, times: text * times, st.text(characters), st.sampled_from([1, 3_000]))


@given(contents, contents, st.sampled_from(Fault), details)
def test_a_letter_fits_and_says_whether_it_is_cut(
    key: bytes | None, value: bytes | None, fault: Fault, detail: str
) -> None:
    letter = dead_letter(LARGEST, key, value, fault, detail)
    encoded = encode_dead_letter(letter)
    assert len(encoded) <= MAX_LETTER_BYTES
    read = decode_dead_letter(encoded)
    assert read == letter
    whole = (read.key, read.value) == (key, value)
    assert read.truncated is not whole
    assert read.key is None if key is None else key.startswith(read.key or b"")
    assert read.value is None if value is None else value.startswith(read.value or b"")


def test_the_largest_letter_fits() -> None:
    detail = "\0" * (MAX_DETAIL_CHARACTERS + 1)
    encoded = encode_dead_letter(dead_letter(LARGEST, b"k" * 800_000, b"v" * 10**6, Fault.OVERSIZED, detail))
    assert 750_000 < len(encoded) <= MAX_LETTER_BYTES
