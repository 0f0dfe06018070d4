"""Keys and partitions: the same for ever, and the same as other clients'."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrec_stream.contracts.identity import id_key, id_keys, list_id, murmur2, partition_of, short_key, source_key


@pytest.mark.parametrize(
    ("data", "java"),
    [
        # Apache Kafka's own UtilsTest.testMurmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(data: bytes, java: int) -> None:
    assert murmur2(data) == java % 2**32


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_a_partition_is_one_of_those_there_are(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions


@pytest.mark.parametrize(
    ("text", "key"),
    [
        # XXH3-64 with seed 0: xxHash's reference values.
        ("", 0x2D06800538D394C2),
        ("a", 0xE6C632B61E964E1F),
        ("item-0001", 0xEA2EF5C866FB1F3),
        ("Größe 42 ✓", 0x14A5CE4093BDAC00),
    ],
)
def test_item_keys_are_for_ever(text: str, key: int) -> None:
    assert id_key(text) == key
    assert short_key(text) == key >> 32


def test_list_and_source_ids_are_for_ever() -> None:
    assert list_id("u-1", "mmrec.clicks", 3, 41, "r-1") == "38bdd8d064522ad534420f2773702ed9"
    assert source_key("mmrec.clicks", 3) == 3097948476


def test_a_list_id_depends_on_every_part_of_its_cause() -> None:
    causes = [("u", "t", 1, 2, "r"), ("v", "t", 1, 2, "r"), ("u", "s", 1, 2, "r"), ("u", "t", 2, 2, "r")]
    causes += [("u", "t", 1, 3, "r"), ("u", "t", 1, 2, "q"), ("u", "t", 12, 0, "r"), ("u", "t", 1, 20, "r")]
    assert len({list_id(*cause) for cause in causes}) == len(causes)


@given(st.lists(st.text()))
def test_many_keys_are_each_ones(texts: list[str]) -> None:
    keys = id_keys(texts)
    assert keys.dtype == np.uint64
    assert keys.tolist() == [id_key(text) for text in texts]
    assert all(0 < short_key(text) < 2**32 for text in texts)
