"""Partitions kept warm on real brokers: what is read, who has it afterwards, and what a takeover still reads."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from streams import standbys as module
from streams.metrics import Metrics
from streams.ownership import Ownership
from streams.restoring import Restorer
from streams.standbys import Replica, Standbys
from tests.profiles.test_rows import value
from tests.streams.owners import Held, KeptChangelog, own
from tests.streams.test_restoring import counts, write

USERS = [f"user-{number}" for number in range(3_000)]


@pytest.fixture
async def standbys(settings: Settings, topics: Topics) -> AsyncIterator[Standbys]:
    standbys = Standbys(settings.model_copy(update={"standbys": 1}), changelog_topic(settings))
    yield standbys
    await standbys.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


def table(*users: str) -> PartitionRows:
    rows = PartitionRows()
    rows.take(range(len(users)), [user.encode() for user in users], [value(1) for _ in users])
    return rows


async def test_a_takeover_reads_what_came_after_and_nothing_else(standbys: Standbys, settings: Settings) -> None:
    await asyncio.to_thread(write, settings, 1, USERS, 1)
    standbys.want([1])
    await until(lambda: standbys.rows == len(USERS) and not standbys.behind and standbys._complete())
    await asyncio.to_thread(write, settings, 1, ["user-0", "new"], 2)
    await until(lambda: standbys.rows == len(USERS) + 1)
    owner = Ownership(1, {}, cast("Any", KeptChangelog()), standbys.take(1))
    assert (standbys.partitions, standbys.rows) == ([], 0)
    await asyncio.to_thread(write, settings, 1, ["user-1", "newer"], 3)
    restorer = Restorer(settings, changelog_topic(settings), metrics := Metrics())
    await restorer.restore(owner)
    await asyncio.to_thread(restorer.close)
    assert metrics.restored._value.get() == 2
    assert counts(owner) == dict.fromkeys(USERS, 1) | {"user-0": 2, "new": 2, "user-1": 3, "newer": 3}


async def test_what_is_owned_is_nobodys_standby_whatever_the_group_said_before(standbys: Standbys) -> None:
    standbys.want([1, 2])
    standbys.take(1)
    standbys.want([1, 2, 3])
    assert standbys.partitions == [2, 3]
    standbys.give(1, None)
    standbys.want([1])
    assert standbys.partitions == [1, 2, 3]


async def test_what_is_given_up_stays_warm_for_a_while_and_is_followed(
    standbys: Standbys, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(write, settings, 1, ["ann", "bob"], 1)
    standbys.take(1)
    kept = table("ann", "bob")
    standbys.give(1, kept)
    assert (standbys.partitions, standbys.rows) == ([1], 2)
    await asyncio.to_thread(write, settings, 1, ["cat"], 1)
    await until(lambda: standbys.rows == 3)
    standbys.want([2])
    assert standbys.partitions == [1, 2]
    monkeypatch.setattr(module, "KEEP_S", -1.0)
    standbys.want([2])
    assert standbys.partitions == [2]


async def test_rows_of_another_changelog_are_read_anew(kafka_settings: Settings, kafka_topics: Topics) -> None:
    """The topic was made anew: its offsets begin again, and what was read is not in it."""
    settings = kafka_settings
    standbys = Standbys(settings.model_copy(update={"standbys": 1}), changelog_topic(settings))
    await asyncio.to_thread(write, settings, 1, ["ann"], 1)
    standbys.take(1)
    standbys.give(1, table(*USERS))
    owner = Ownership(1, {}, cast("Any", KeptChangelog()), standbys.take(1))
    restorer = Restorer(settings, changelog_topic(settings), Metrics())
    await restorer.restore(owner)
    await asyncio.to_thread(restorer.close)
    await standbys.close()
    assert counts(owner) == {"ann": 1}


async def test_what_does_not_fit_is_not_kept_and_the_least_wanted_goes_first(
    settings: Settings, topics: Topics
) -> None:
    for partition in (1, 2):
        await asyncio.to_thread(write, settings, partition, USERS, 1)
    room = 1.5 * len(USERS) * module.ROW_BYTES / 1e6
    tight = settings.model_copy(update={"standbys": 1, "standbys_mb": room})
    standbys = Standbys(tight, changelog_topic(settings))
    standbys.want([2, 1])
    await until(lambda: standbys.partitions == [2] and standbys.rows == len(USERS))
    standbys.want([2, 1])
    assert standbys.partitions == [2]
    await standbys.close()


def test_a_replica_that_was_surrendered_takes_nothing_more() -> None:
    replica = Replica(table("ann"))
    rows = replica.surrender()
    assert rows is not None
    replica.take([1], [b"bob"], [value(1)], 2)
    replica.reach(9)
    assert (list(rows.rows), rows.position) == (["ann"], 1)
    assert replica.surrender() is None


def test_one_that_has_stood_still_for_too_long_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE_S", 0.0)
    assert Replica(table("ann")).surrender() is None


async def test_without_the_setting_nothing_is_kept(settings: Settings) -> None:
    standbys = Standbys(settings, changelog_topic(settings))
    standbys.take(1)
    standbys.give(1, table("ann"))
    assert (standbys.partitions, len(standbys.take(1).rows)) == ([], 0)
    await standbys.close()


async def test_an_ownership_gives_its_rows_away_when_the_changelog_has_all_of_them() -> None:
    kept = KeptChangelog([("ann", value(1))])
    owner, held = own(kept, {"t": None}), Held()
    ticket = owner.begin("t", 0, 0)
    owner.touch(owner.table.rows.rows_of(["ann"]), ticket)
    ticket.seal()
    owner.write(held, lambda _: None, lambda _: None)
    await asyncio.sleep(0)
    await held.go_on()
    rows = owner.release()
    assert rows is not None
    assert (list(rows.rows), rows.position) == (["ann"], 2)
    assert (owner.closed, len(owner.table.rows), owner.release()) == (True, 0, None)


@pytest.mark.parametrize("sent", [False, True], ids=["not-sent", "under-way"])
async def test_an_ownership_keeps_rows_to_itself_that_are_not_committed(sent: bool) -> None:
    owner, held = own(KeptChangelog([("ann", value(1))]), {"t": None}), Held()
    owner.touch(owner.table.rows.rows_of(["ann"]), owner.begin("t", 0, 0))
    if sent:
        owner.write(held, lambda _: None, lambda _: None)
        await asyncio.sleep(0)
    assert owner.release() is None
    await held.go_on()
