"""A sample of records shows where its producers put users, and what they most likely do wrong."""

import zlib
from dataclasses import dataclass

import pytest

from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.operations.findings import Level
from mmrec_stream.operations.health import placement_finding
from mmrec_stream.operations.placement import Placement, judge
from tests.cli.folding import click

PARTITIONS = 8
USERS = [f"user-{number}" for number in range(200)]


@dataclass
class Record:
    """What `judge` reads of a confluent message."""

    where: int
    k: bytes | None
    v: bytes | None

    def partition(self) -> int:
        return self.where

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return self.k

    def value(self) -> bytes | None:
        return self.v


def murmur(user: str) -> int:
    return partition_of(user.encode(), PARTITIONS)


def sample(records: list[Record]) -> Placement:
    return judge(records, PARTITIONS, 65_536)


def test_records_in_their_place_are_well() -> None:
    found = sample([Record(murmur(user), user.encode(), click(user)) for user in USERS])
    assert (found.judged, found.misplaced, found.other_key, found.keyless) == (200, 0, 0, 0)
    assert placement_finding("t", found).level is Level.OK


@pytest.mark.parametrize(
    ("records", "cause"),
    [
        ([Record(zlib.crc32(u.encode()) % 8, u.encode(), click(u)) for u in USERS], "CRC32"),
        ([Record(n % 8, None, click(u)) for n, u in enumerate(USERS)], "sends no keys"),
        ([Record(partition_of(b"sofa", 8), b"sofa", click(u)) for u in USERS], "something else than the user id"),
        ([Record((murmur(u) + 1) % 8, u.encode(), click(u)) for u in USERS], "other means than murmur2"),
    ],
)
def test_misplaced_records_are_broken_and_the_cause_is_told(records: list[Record], cause: str) -> None:
    finding = placement_finding("shop.clicks", sample(records))
    assert finding.level is Level.BROKEN
    assert cause in finding.detail
    assert "mmrec repartition --from shop.clicks" in finding.remedy


def test_right_places_with_other_keys_are_a_note() -> None:
    finding = placement_finding("t", sample([Record(murmur(user), b"session", click(user)) for user in USERS]))
    assert finding.level is Level.NOTE


def test_records_that_are_no_events_are_not_judged() -> None:
    found = sample([Record(0, b"u", b"not json"), Record(0, b"u", None)])
    assert (found.sampled, found.judged) == (2, 0)
    assert placement_finding("t", found).level is Level.NOTE
    assert placement_finding("t", sample([])).level is Level.OK
