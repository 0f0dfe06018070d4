"""What a worker leaves of a log, made with the product's own fold and contracts, for tests to spoil parts of it."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from benchmarks.storm.judge import Changelog, Letters, Lists, Log, Receipts, Verdict, judge
from benchmarks.storm.traffic import Shoppers
from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourEvent, EventType, Forget
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, dead_letter, encode_dead_letter
from mmrec_stream.contracts.identity import partition_of, source_key
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Times, encode_list
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import Records, empty, to_bytes

PARTITIONS = 2


@dataclass(frozen=True)
class Published:
    """A record as it lies in the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes | None


@dataclass
class Scene:
    """Topics as lists of records."""

    log: list[Published] = field(default_factory=list)
    rows: list[tuple[int, bytes, bytes | None]] = field(default_factory=list)
    """Partition, key and value."""
    letters: list[tuple[bytes, bytes]] = field(default_factory=list)
    lists: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    """Time (ms), key and value."""
    receipts: Receipts = field(default_factory=Receipts)

    def verdict(self) -> Verdict:
        """What the judge says of it."""
        log, changelog, letters, lists = Log(self.receipts), Changelog(), Letters(), Lists()
        for record in self.log:
            log.take(record.topic, record.partition, record.offset, record.timestamp_ms, record.value)
        for offset, (partition, key, value) in enumerate(self.rows):
            changelog.take(partition, offset, key, value)
        for letter in self.letters:
            letters.take(*letter)
        for made in self.lists:
            lists.take(*made)
        return judge(log, changelog, letters, lists, self.receipts)

    def found(self) -> set[str]:
        """The names of what the judge finds wrong."""
        return {fault for fault, count in self.verdict().faults.items() if count}

    def rows_of(self, user: bytes) -> list[int]:
        """Where the rows of a user lie."""
        return [place for place, (_, key, _) in enumerate(self.rows) if key == user]


def published(count: int, users: int, *, seed: int = 1, bad_share: float = 0.02) -> list[Published]:
    """Records of a storm's shoppers, five seconds apart for each of them, up to now; some are late, some bad."""
    shoppers, ends = Shoppers(seed, users, bad_share=bad_share), dict[tuple[str, int], int]()
    began = time.time() - count * 5 / users
    log = []
    for number in range(count):
        at = began + number * 5 / users
        record = shoppers.next(at)
        partition = partition_of(record.key, PARTITIONS)
        offset = ends.get((record.topic, partition), 0)
        ends[record.topic, partition] = offset + 1
        log.append(Published(record.topic, partition, offset, int(at * 1000), record.key, record.value))
    return log


def worked(log: list[Published], *, lose: Collection[int] = (), double: Collection[int] = ()) -> Scene:
    """What a worker leaves of `log`: a row an event, a list an event that is no impression.

    Args:
        log: in the order in which the worker takes it.
        lose: places of records that it passes over as if it had folded them.
        double: places of records that it folds twice.
    """
    scene, profiles = Scene(log=log), dict[bytes, Records]()
    for place, record in enumerate(log):
        scene.receipts.add(record.topic, record.partition, record.offset, record.value)
        event = accept(record.value, 65_536)
        if not isinstance(event, Refusal) and event.ts > record.timestamp_ms + 3_600_000:
            event = Refusal(Fault.FUTURE, "")
        if isinstance(event, Refusal):
            letter = letter_of(record, event.fault)
            scene.letters.append((letter.record_key, encode_dead_letter(letter)))
            continue
        assert not isinstance(event, Forget)
        profile = profiles.setdefault(record.key, empty(1))
        if place not in lose:
            _fold(profile, event, record)
            if place in double:
                profile["source_offsets"][0][profile["source_keys"][0] == _source(record)] -= 1
                _fold(profile, event, record)
        scene.rows.append((record.partition, record.key, to_bytes(profile[0])))
        if event.CODE != EventType.IMPRESSION:
            scene.lists.append((record.timestamp_ms + 3, record.key, encode_list(list_for(record))))
    return scene


def letter_of(record: Published, fault: Fault) -> DeadLetter:
    """The dead letter of a record."""
    origin = Origin(topic=record.topic, partition=record.partition, offset=record.offset)
    return dead_letter(origin, record.key, record.value, fault, "")


def list_for(record: Published) -> RecommendationList:
    """An empty list that a record has caused."""
    at = float(record.timestamp_ms)
    return RecommendationList(
        list_id="l",
        user_id=record.key.decode(),
        items=[],
        release="none",
        strategy="popular",
        cause=Cause(topic=record.topic, partition=record.partition, offset=record.offset),
        times=Times(event=at, appended=at, fetched=at, folded=at, scored=at, published=at),
    )


def _fold(profile: Records, event: BehaviourEvent, record: Published) -> None:
    fold(profile, np.zeros(1, dtype=np.int64), columns_of([event], [record.offset]), _source(record))


def _source(record: Published) -> int:
    return source_key(record.topic, record.partition)
