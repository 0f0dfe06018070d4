"""What the group assigns, kept: opened, restored, served, committed, handed over. The client is the test's, the
changelog a real broker's."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import OFFSET_BEGINNING
from faust.types import TP

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.profiles.record import VERSION
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from streams import assignment as module
from streams.assignment import Assignment
from streams.changelog import ChangelogWriter
from streams.metrics import Metrics
from streams.ownership import Ownership, State
from streams.standbys import Standbys
from tests.streams.test_restoring import counts, write


class GivenClient:
    """What the group has committed, and what is fetched."""

    member = "me"
    leaving = False

    def __init__(self) -> None:
        self.committed: dict[TP, int | None] = {}
        self.fetched: set[TP] = set()
        self.refuses = False
        self.rebound: list[Ownership] = []

    def pause(self, partitions: Iterable[TP]) -> None:
        self.fetched -= set(partitions)

    def resume(self, partitions: Iterable[TP]) -> None:
        self.fetched |= set(partitions)

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        if not self.refuses:
            self.committed |= offsets
        return not self.refuses

    async def rebind(self, owner: Ownership) -> None:
        self.rebound.append(owner)
        for topic in owner.fetched:
            owner.restart(topic, self.committed.get(TP(topic, owner.partition)))


class Group:
    """Plays the group to an assignment."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = Topics.of(settings).behaviour
        self.metrics = Metrics()
        self.failures: list[str] = []
        self.client = GivenClient()
        self.standbys = Standbys(settings, changelog_topic(settings))
        self.assignment = Assignment(
            settings,
            self.topics,
            changelog_topic(settings),
            Catalogue(),
            Popularity(),
            self.metrics,
            self.standbys,
            self.failures.append,
        )
        self.assignment.attach(cast("Any", self.client))

    def places(self, *partitions: int) -> set[TP]:
        return {TP(topic, partition) for topic in self.topics for partition in partitions}

    async def assign(self, *partitions: int) -> Mapping[TP, tuple[Ownership, int]]:
        """Assign partitions, but do not say yet that they are placed."""
        return await self.assignment.on_assigned(
            {place: self.client.committed.get(place) for place in self.places(*partitions)}
        )

    async def give(self, *partitions: int) -> dict[int, Ownership]:
        """Assign partitions, and say that they are placed."""
        placed = await self.assign(*partitions)
        self.assignment.on_placed({place: owner for place, (owner, _) in placed.items()})
        return {place.partition: owner for place, (owner, _) in placed.items()}

    async def take(self, *partitions: int, may_return: bool = False) -> None:
        places = self.places(*partitions)
        await self.assignment.on_revoked(places, may_return=may_return)
        self.client.fetched -= places

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)

    async def served(self, *partitions: int) -> None:
        """Wait until exactly these are served and fetched."""
        await self.until(lambda: self.assignment.owners.serving == sorted(partitions))
        assert self.client.fetched == self.places(*partitions)


@pytest.fixture
async def group(settings: Settings, topics: Topics) -> AsyncIterator[Group]:
    group = Group(settings)
    yield group
    await group.assignment.close()


@pytest.fixture
async def running(group: Group) -> AsyncIterator[None]:
    task = asyncio.create_task(group.assignment.run())
    yield
    task.cancel()


def change(owner: Ownership, topic: str, offset: int) -> None:
    """Work on a chunk up to `offset` that changes ann's row."""
    rows = owner.table.rows.rows_of(["ann"])
    owner.table.rows.records["version"][rows] = VERSION
    owner.table.rows.records["events"][rows] += np.uint32(1)
    ticket = owner.begin(topic, offset, offset)
    owner.touch(rows, ticket)
    ticket.seal()


async def test_a_partition_is_fetched_when_its_rows_are_complete_from_where_the_group_has_committed(
    group: Group, settings: Settings
) -> None:
    await asyncio.to_thread(write, settings, 1, ["ann", "bob"], 3)
    clicks = group.topics[0]
    group.client.committed[TP(clicks, 1)] = 7
    placed = await group.assign(1, 2)
    owner = placed[TP(clicks, 1)][0]
    assert placed[TP(clicks, 1)] == (owner, 7)
    assert placed[TP(clicks, 2)][1] == OFFSET_BEGINNING
    assert {one.partition for one, _ in placed.values()} == {1, 2}
    assert (group.client.fetched, group.assignment.ready) == (set(), False)
    group.assignment.on_placed({place: one for place, (one, _) in placed.items()})
    await group.served(1, 2)
    assert counts(owner) == {"ann": 3, "bob": 3}
    assert owner.fetched == dict.fromkeys(group.topics, 0) | {clicks: 7}
    assert group.assignment.ready


async def test_a_partition_that_is_restored_before_it_is_placed_is_fetched_when_it_is(group: Group) -> None:
    placed = await group.assign(1)
    await group.until(lambda: group.assignment.owners.serving == [1])
    assert group.client.fetched == set()
    group.assignment.on_placed({place: one for place, (one, _) in placed.items()})
    await group.served(1)


async def test_a_partition_that_goes_during_its_restore_and_comes_back_is_complete(
    group: Group, settings: Settings
) -> None:
    users = [f"user-{number}" for number in range(4_000)]
    await asyncio.to_thread(write, settings, 1, users, 2)
    earlier = (await group.give(1))[1]
    await group.take(1)
    assert (earlier.closed, len(group.assignment.owners)) == (True, 0)
    later = (await group.give(1))[1]
    assert later is not earlier
    await group.served(1)
    assert counts(later) == dict.fromkeys(users, 2)
    assert earlier.closed


async def test_what_is_finished_in_time_is_written_and_committed_before_the_partition_goes(
    group: Group, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 30.0)
    clicks = group.topics[0]
    owner = (await group.give(1, 2))[1]
    await group.served(1, 2)
    change(owner, clicks, 4)
    await group.take(1)
    assert group.client.committed == {TP(clicks, 1): 5}
    assert (owner.closed, group.assignment.owners.serving) == (True, [2])
    again = (await group.give(1))[1]
    await group.served(1, 2)
    assert counts(again) == {"ann": 1}
    assert again.fetched[clicks] == 5


async def test_what_is_not_finished_in_time_is_not_committed(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.02)
    clicks = group.topics[0]
    owner = (await group.give(1))[1]
    await group.served(1)
    ticket = owner.begin(clicks, 2, 4)
    await group.take(1)
    ticket.seal()
    await group.assignment._commit([owner])
    assert group.client.committed.get(TP(clicks, 1)) in (None, 2)  # nothing lay before it


async def test_partitions_that_may_return_are_neither_fetched_nor_given_up_until_the_group_has_said(
    group: Group,
) -> None:
    held = await group.give(1, 2)
    await group.served(1, 2)
    await group.take(1, 2, may_return=True)
    assert {owner.state for owner in held.values()} == {State.SUSPENDED}
    assert (group.client.fetched, group.assignment.ready) == (set(), False)
    back = await group.give(1)
    assert back[1] is held[1]
    assert held[2].closed
    await group.served(1)
    assert group.assignment.ready


async def test_a_restore_that_ends_in_the_middle_of_a_rebalance_does_not_open_the_fetching(
    group: Group, settings: Settings
) -> None:
    await asyncio.to_thread(write, settings, 1, ["ann"], 3)
    owner = (await group.give(1))[1]
    await group.take(1, may_return=True)
    await group.until(lambda: owner.state is State.SUSPENDED)  # restored
    assert group.client.fetched == set()
    assert (await group.give(1))[1] is owner
    await group.served(1)
    assert counts(owner) == {"ann": 3}


async def test_partitions_that_somebody_else_has_are_given_up_without_a_commit(group: Group) -> None:
    owner = (await group.give(1))[1]
    await group.served(1)
    change(owner, group.topics[0], 4)
    group.assignment.on_lost(group.places(1))
    assert (owner.closed, group.client.committed, len(group.assignment.owners)) == (True, {}, 0)


@pytest.mark.usefixtures("running")
async def test_rows_are_written_and_offsets_committed_by_and_by_and_again_where_they_were_refused(
    group: Group, settings: Settings
) -> None:
    clicks = group.topics[0]
    owner = (await group.give(1))[1]
    await group.served(1)
    group.client.refuses = True
    change(owner, clicks, 4)
    await group.until(lambda: owner.committable() == {clicks: 5})
    await asyncio.sleep(0)
    group.client.refuses = False
    await group.until(lambda: group.client.committed == {TP(clicks, 1): 5})
    await group.until(lambda: owner.committable() == {})


@pytest.mark.usefixtures("running")
async def test_a_partition_whose_changelog_another_has_opened_begins_anew_at_what_is_committed(
    group: Group, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = group.topics[0]
    group.client.committed[TP(clicks, 1)] = 2
    owner = (await group.give(1))[1]
    await group.served(1)
    other = ChangelogWriter(settings, changelog_topic(settings), 1)
    await asyncio.to_thread(other.open)
    owner.fetched[clicks] = 50
    change(owner, clicks, 49)
    await group.until(lambda: owner.closed)
    assert not group.assignment.ready  # the group counts on us for it
    await group.until(lambda: group.assignment.owners.serving == [1])
    again = group.assignment.owners.get(1)
    assert again is not None
    assert group.client.rebound == [again]
    assert (again.fetched[clicks], again.known[clicks], counts(again)) == (2, 2, {})
    assert group.client.committed[TP(clicks, 1)] == 2
    assert group.metrics.fenced._value.get() == 1
    assert group.assignment.ready


async def test_a_partition_that_is_lost_before_it_is_placed_begins_anew_all_the_same(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REOPEN_S", 0.01)
    placed = await group.assign(1)
    (earlier,) = {owner for owner, _ in placed.values()}
    group.assignment._lost(earlier, "another has opened it")
    group.assignment.on_placed({place: one for place, (one, _) in placed.items()})
    await group.served(1)
    assert group.assignment.owners.get(1) is not earlier


async def test_a_group_that_shares_topics_unevenly_ends_the_worker(group: Group) -> None:
    assert await group.assignment.on_assigned({TP(group.topics[0], 1): None}) == {}
    assert f"partition 1 without that of {', '.join(sorted(group.topics[1:]))}" in group.failures[0]


async def test_topics_that_have_grown_end_the_worker(group: Group, settings: Settings) -> None:
    assert await group.assign(0, settings.partitions) == {}
    assert f"more than {settings.partitions} partitions" in group.failures[0]
    assert len(group.assignment.owners) == 0


async def test_a_worker_is_entitled_while_the_group_has_lately_taken_it_for_a_member(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not group.assignment.entitled()
    group.client.committed[TP(group.topics[0], 1)] = 2
    owner = (await group.give(1))[1]
    assert group.assignment.entitled()
    group.assignment._proved = time.monotonic() - module.ENTITLED_S
    assert not group.assignment.entitled()
    group.client.refuses = True
    await group.assignment._commit([owner])
    assert not group.assignment.entitled()
    group.client.refuses = False
    await group.assignment._commit([owner])  # there is nothing new to commit
    assert group.assignment.entitled()
    assert group.client.committed == {TP(group.topics[0], 1): 2}


async def test_closing_ends_what_is_being_restored(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    group = Group(settings)
    owners = await group.give(0, 1, 2, 3)
    async with asyncio.timeout(30):
        await group.assignment.close()
    assert all(owner.closed for owner in owners.values())
    assert group.failures == []
