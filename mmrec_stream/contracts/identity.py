"""Stable identities: 64-bit keys of ids, and the partition that a key belongs to."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest, xxh3_128_hexdigest

NO_KEY = 0
"""Never the key of an id: marks an empty slot."""


def id_key(text: str) -> int:
    """The 64-bit key of an item, category or brand id: XXH3-64 of its UTF-8 bytes, never 0.

    Keys are what profiles hold, so they must not change between releases or machines.
    Two ids share a key with probability n²/2⁶⁵: about 3·10⁻⁸ for a million items.
    """
    return xxh3_64_intdigest(text.encode()) or 1


def id_keys(texts: Iterable[str]) -> NDArray[np.uint64]:
    """`id_key` of each text, as one array of shape (texts,)."""
    return np.fromiter((xxh3_64_intdigest(text.encode()) or 1 for text in texts), dtype=np.uint64)


def short_key(text: str) -> int:
    """A 32-bit key for the few slots of an affinity table: the high half of `id_key`, never 0."""
    return (id_key(text) >> 32) or 1


def list_id(user_id: str, topic: str, partition: int, offset: int, release: str, revision: int = 0) -> str:
    """The id of a recommendation list, derived from its cause alone, so that a repeat is known as one.

    A list that is made again for the same cause (`revision` times) is another one: its places hold other items.
    """
    again = f"\0{revision}" if revision else ""
    return xxh3_128_hexdigest(f"{user_id}\0{topic}\0{partition}\0{offset}\0{release}{again}".encode())


def source_key(topic: str, partition: int) -> int:
    """A 32-bit key of a source partition, never 0."""
    return (xxh3_64_intdigest(f"{topic}\0{partition}".encode()) & 0xFFFFFFFF) or 1


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Kafka's default partitioner (Java: murmur2) gives a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 as `org.apache.kafka.common.utils.Utils.murmur2` has it: unsigned 32 bits, seed 0x9747b28c."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    h = (0x9747B28C ^ length) & mask
    body = length & ~3
    for start in range(0, body, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if tail := data[body:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)
