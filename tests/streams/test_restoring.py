"""Restores from real brokers: whose rows they are, what the changelog may hold, and that each is complete."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.profiles.record import VERSION
from mmrec_stream.profiles.rows import Restored
from mmrec_stream.settings import Settings
from mmrec_stream.topics import changelog_topic
from streams.changelog import ChangelogWriter
from streams.metrics import Metrics
from streams.ownership import Ownership
from streams.restoring import Restorer
from tests.conftest import RunningBroker
from tests.profiles.test_rows import value
from tests.streams.owners import KeptChangelog

USERS = [f"user-{number}" for number in range(6_000)]


class HeldRows(PartitionRows):
    """Rows whose first batch waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def take(self, offsets: Sequence[int], keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Restored:
        self.reached.set()
        assert self.go_on.wait(30)
        return super().take(offsets, keys, values)


class FartherRows(PartitionRows):
    """Rows that know more than their changelog, which was made anew and is read from its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.advance(1_000)

    @property
    def position(self) -> int:
        return 0


@pytest.fixture
async def restorer(settings: Settings, topics: Any) -> AsyncIterator[Restorer]:
    restorer = Restorer(settings, changelog_topic(settings), Metrics())
    yield restorer
    await asyncio.to_thread(restorer.close)


def owner_of(partition: int) -> Ownership:
    return Ownership(partition, {}, cast("Any", KeptChangelog()))


def send(settings: Settings, partition: int, rows: Sequence[tuple[bytes | None, bytes | None]]) -> None:
    with BatchProducer(settings) as producer:
        for key, one in rows:
            producer.send(changelog_topic(settings), one, key=key, partition=partition)


def write(settings: Settings, partition: int, users: Sequence[str], events: int) -> None:
    """Write rows as a worker does."""
    writer = ChangelogWriter(settings, changelog_topic(settings), partition)
    writer.open()
    writer.write(users, [value(events)] * len(users))
    writer.close()


def counts(owner: Ownership) -> dict[str, int]:
    rows = owner.table.rows
    return {user: int(rows.records["events"][row]) for user, row in zip(rows, rows.live(), strict=True)}


async def test_each_partition_gets_its_own_rows_and_the_newest_of_each_user(
    restorer: Restorer, settings: Settings
) -> None:
    owners = [owner_of(partition) for partition in range(4)]
    for partition in range(3):
        await asyncio.to_thread(write, settings, partition, [f"{partition}-{user}" for user in USERS], 1)
        await asyncio.to_thread(write, settings, partition, [f"{partition}-{user}" for user in USERS[:9]], 2)
    restored = await asyncio.gather(*(restorer.restore(owner) for owner in owners))
    for partition, owner in enumerate(owners[:3]):
        assert counts(owner) == {f"{partition}-{user}": 1 + (place < 9) for place, user in enumerate(USERS)}
    assert [one.rows for one in restored] == [len(USERS) + 9] * 3 + [0]
    assert counts(owners[3]) == {}


async def test_a_partition_that_goes_and_comes_back_during_its_restore_is_complete_for_its_new_owner(
    restorer: Restorer, settings: Settings
) -> None:
    await asyncio.to_thread(write, settings, 1, USERS, 1)
    earlier = owner_of(1)
    earlier.table = held = HeldRows()
    lost = asyncio.create_task(restorer.restore(earlier))
    assert await asyncio.to_thread(held.reached.wait, 30)
    earlier.close()
    later = owner_of(1)
    found = asyncio.create_task(restorer.restore(later))
    await asyncio.sleep(0)
    held.go_on.set()
    async with asyncio.timeout(60):
        await found
        with pytest.raises(asyncio.CancelledError):
            await lost
    assert counts(later) == dict.fromkeys(USERS, 1)
    assert later.table.position >= len(USERS)


async def test_a_restore_does_not_wait_for_one_that_nobody_wants_any_more(
    restorer: Restorer, settings: Settings
) -> None:
    await asyncio.to_thread(write, settings, 0, USERS[:5], 1)
    gone = [owner_of(partition) for partition in (1, 2, 3, 0)]
    waiting = [asyncio.create_task(restorer.restore(owner)) for owner in gone]
    for owner in gone:
        owner.close()
    wanted = owner_of(0)
    async with asyncio.timeout(60):
        await restorer.restore(wanted)
        await asyncio.gather(*waiting, return_exceptions=True)
    assert len(counts(wanted)) == 5
    assert all(task.cancelled() for task in waiting)


async def test_what_is_in_a_changelog_beside_rows_stops_no_restore(
    restorer: Restorer, settings: Settings, broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Deletions, keys of nobody, rows of a newer version, garbage: none may stop the partition."""
    rows: list[tuple[bytes | None, bytes | None]] = [
        (b"ann", value(9)),
        (None, value(1)),
        (b"", value(1)),
        (b"\xff\xfe", value(1)),
        (b"bob", value(4)),
        (b"bob", None),
        (b"cat", b"garbage"),
        (b"dan", value(5, VERSION + 1, b"what we do not know")),
        (b"ann", value(3)),  # less than before, and yet the last word
        (None, None),
        (b"eve", None),
        (b"bob", value(2)),
    ]
    if broker.is_kafka:  # which takes no record without a key for a compacted topic; one that was not may hold some
        rows[1], rows[9] = (b"", value(1)), (b"\xff", None)
    await asyncio.to_thread(send, settings, 2, rows)
    owner = owner_of(2)
    restored = await restorer.restore(owner)
    assert counts(owner) == {"ann": 3, "bob": 2, "dan": 5}
    assert (restored.rows, restored.tombstones, restored.unreadable, restored.newer) == (5, 2, 5, 1)
    table = owner.table.rows
    assert table.encode(table.rows_of(["dan"])) == [value(5, VERSION + 1, b"what we do not know")]
    assert f"{changelog_topic(settings)}[2]@6 is passed over" in caplog.text


async def test_rows_that_were_not_committed_are_not_restored(kafka_settings: Settings, kafka_topics: Any) -> None:
    settings, topic = kafka_settings, changelog_topic(kafka_settings)
    dead = ChangelogWriter(settings, topic, 1)
    await asyncio.to_thread(dead.open)
    await asyncio.to_thread(dead.write, ["ann", "bob"], [value(2), value(2)])
    dead._producer.begin_transaction()
    dead._producer.produce(topic, value(7), "ann", 1)
    dead._producer.produce(topic, None, "bob", 1)
    dead._producer.flush()
    owner = Ownership(1, {}, ChangelogWriter(settings, topic, 1))
    restorer = Restorer(settings, topic, Metrics())
    with ThreadPoolExecutor(1) as opening:
        await asyncio.get_running_loop().run_in_executor(opening, owner.open)
    await restorer.restore(owner)
    await asyncio.to_thread(restorer.close)
    assert counts(owner) == {"ann": 2, "bob": 2}


async def test_a_changelog_that_ends_before_what_was_read_of_it_is_told_and_stops_no_other_restore(
    restorer: Restorer, settings: Settings
) -> None:
    await asyncio.to_thread(write, settings, 1, USERS[:5], 1)
    await asyncio.to_thread(write, settings, 2, USERS[5:9], 1)
    farther = owner_of(1)
    farther.table = FartherRows()
    async with asyncio.timeout(30):
        with pytest.raises(ValueError, match="is known already"):
            await restorer.restore(farther)
        assert (await restorer.restore(owner_of(2))).rows == 4


async def test_a_restorer_that_is_closed_leaves_nobody_waiting(settings: Settings, topics: Any) -> None:
    restorer = Restorer(settings, changelog_topic(settings), Metrics())
    await asyncio.to_thread(write, settings, 1, USERS[:5], 1)
    owners = [owner_of(1), owner_of(2)]
    owners[0].table = held = HeldRows()
    waiting = [asyncio.create_task(restorer.restore(owner)) for owner in owners]
    assert await asyncio.to_thread(held.reached.wait, 30)
    closing = asyncio.create_task(asyncio.to_thread(restorer.close))
    await asyncio.sleep(0)
    held.go_on.set()
    async with asyncio.timeout(30):
        await closing
        await asyncio.gather(*waiting, return_exceptions=True)
