"""An ownership's promises: what may be committed when, that nothing happens after its end, and how a user is erased."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec_stream.contracts.behaviour import View
from mmrec_stream.contracts.identity import source_key
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import from_bytes
from streams.ownership import Ownership, Ownerships, State, Ticket
from tests.streams.chunks import TIME_MS
from tests.streams.owners import Held, KeptChangelog, own, write

CLICKS, PURCHASES, FEEDBACK = "clicks", "purchases", "feedback"


def begin(owner: Ownership, topic: str, offsets: Sequence[int], user: str = "ann") -> Ticket:
    """Fold events with these offsets; the ticket of their chunk, not sealed."""
    rows = owner.table.rows
    row_of_event = rows.rows_of([user] * len(offsets))
    events = [View(user_id=user, item_id="lamp", ts=TIME_MS) for _ in offsets]
    ticket = owner.begin(topic, offsets[0], offsets[-1])
    fold(rows.records, row_of_event, columns_of(events, offsets), source_key(topic, owner.partition))
    owner.touch(np.unique(row_of_event), ticket)
    return ticket


def take(owner: Ownership, topic: str, offsets: Sequence[int], user: str = "ann") -> None:
    begin(owner, topic, offsets, user).seal()


def request(owner: Ownership, offset: int, user: str = "ann") -> bool:
    """Take a request to forget the user from the feedback topic."""
    ticket = owner.begin(FEEDBACK, offset, offset)
    asked = owner.erase(user, source_key(FEEDBACK, owner.partition), offset, ticket)
    ticket.seal()
    return asked


def commit(owner: Ownership, *topics: str) -> dict[str, int]:
    """Let the group know what is finished, of these topics or all; what it knows then."""
    known = {topic: offset for topic, offset in owner.committable().items() if topic in topics or not topics}
    for topic, offset in known.items():
        owner.committed(topic, offset)
    return known


def events_of(changelog: KeptChangelog) -> dict[str, int]:
    """How many events each user's profile has, as who restores it would find."""
    newest = {user: value for user, value in changelog.rows if value is not None}
    gone = {user for user, value in dict(changelog.rows).items() if value is None}
    return {user: int(from_bytes([value])[0]["events"]) for user, value in newest.items() if user not in gone}


async def test_what_changes_between_two_writes_is_written_once_and_ends_all_that_waits_for_it() -> None:
    changelog = KeptChangelog()
    owner = own(changelog, {CLICKS: 0})
    for offset in range(0, 30, 10):
        take(owner, CLICKS, range(offset, offset + 10))
    assert (owner.unwritten, owner.open_chunks, owner.committable()) == (True, 3, {})
    await write(owner)
    assert events_of(changelog) == {"ann": 30}
    assert len(changelog.rows) == 1
    assert (owner.unwritten, owner.open_chunks, owner.committable()) == (False, 0, {CLICKS: 30})


async def test_what_changes_during_a_write_waits_for_the_next() -> None:
    changelog, held = KeptChangelog(), Held()
    owner = own(changelog, {CLICKS: 0})
    take(owner, CLICKS, [0])
    await write(owner, held)
    take(owner, CLICKS, [1])
    await write(owner, held)  # one is under way
    assert len(held) == 1
    await held.go_on()
    assert (events_of(changelog), owner.committable(), owner.unwritten) == ({"ann": 1}, {CLICKS: 1}, True)
    await write(owner)
    assert (events_of(changelog), owner.committable()) == ({"ann": 2}, {CLICKS: 2})


async def test_what_the_group_has_not_taken_is_committed_again() -> None:
    owner = own(KeptChangelog(), {CLICKS: 0, PURCHASES: 0})
    take(owner, CLICKS, [0])
    take(owner, PURCHASES, [0, 1])
    await write(owner)
    assert owner.committable() == owner.committable() == {CLICKS: 1, PURCHASES: 2}
    owner.committed(CLICKS, 1)
    assert owner.committable() == {PURCHASES: 2}


@pytest.mark.parametrize("committed", [True, False])
async def test_a_write_that_ends_after_the_ownership_settles_nothing(committed: bool) -> None:
    changelog, held, told = KeptChangelog(), Held(), list[object]()
    owner = own(changelog, {CLICKS: 0})
    ticket = begin(owner, CLICKS, [0])
    ticket.seal()
    owner.write(held, told.append, told.append)
    await asyncio.sleep(0)
    if committed:
        held.do()
    owner.close()
    await held.go_on()
    assert events_of(changelog) == ({"ann": 1} if committed else {})
    assert (told, ticket.pending) == ([], 1)
    assert (owner.committable(), owner.open_chunks) == ({}, 0)


async def test_work_that_is_finished_after_the_ownership_is_not_committed() -> None:
    owner = own(KeptChangelog(), {CLICKS: 0})
    begun, done = owner.begin(CLICKS, 0, 4), owner.begin(CLICKS, 5, 9)
    begun.seal()
    owner.close()
    done.seal()
    assert owner.committable() == {}


async def test_a_write_that_the_broker_refuses_is_told_and_settles_nothing() -> None:
    held, lost = Held(), list[str]()
    owner = own(KeptChangelog(), {CLICKS: 0})
    owner._writer.lost = True  # type: ignore[attr-defined]
    take(owner, CLICKS, [0])
    owner.write(held, lambda _: pytest.fail("nothing was written"), lost.append)
    await asyncio.sleep(0)
    await held.go_on()
    assert lost == ["a newer owner"]
    assert owner.committable() == {}


async def test_who_hands_over_can_wait_for_the_write_under_way() -> None:
    held = Held()
    owner = own(KeptChangelog(), {CLICKS: 0})
    await owner.written()
    take(owner, CLICKS, [0])
    await write(owner, held)
    waiting = asyncio.create_task(owner.written())
    await asyncio.sleep(0)
    assert not waiting.done()
    await held.go_on()
    async with asyncio.timeout(10):
        await waiting
    assert owner.committable() == {CLICKS: 1}


def test_a_restore_that_ends_after_the_ownership_does_not_open_it_again() -> None:
    owner = own(KeptChangelog(), {CLICKS: 0})
    owner.close()
    owner.restored()
    owner.serve()
    owner.suspend()
    assert owner.closed


def test_a_new_owner_is_not_found_or_ended_through_an_earlier_one() -> None:
    owners, changelog = Ownerships(), KeptChangelog()
    earlier, later = own(changelog, {}, 3), own(changelog, {}, 3)
    owners.add(earlier)
    with pytest.raises(ValueError, match="partition 3 is held already"):
        owners.add(later)
    owners.close([earlier])
    owners.add(later)
    owners.close([earlier])
    assert (owners.get(3), later.state, owners.serving) == (later, State.SERVING, [3])


# What a user is forgotten with, and what may bring him back.


async def test_a_forgotten_user_is_emptied_at_once_and_goes_when_nothing_of_him_can_come_again() -> None:
    changelog = KeptChangelog()
    owner = own(changelog, {CLICKS: 0, PURCHASES: 0, FEEDBACK: 0})
    take(owner, CLICKS, range(5))
    take(owner, PURCHASES, range(3))
    take(owner, CLICKS, range(5, 6), "bob")
    assert request(owner, 7)
    await write(owner)
    assert events_of(changelog) == {"ann": 0, "bob": 1}
    commit(owner, CLICKS)
    await write(owner)
    commit(owner, FEEDBACK)
    await write(owner)
    assert dict(changelog.rows)["ann"] is not None  # purchases may come again
    commit(owner, PURCHASES)
    assert owner.unwritten
    await write(owner)
    assert dict(changelog.rows)["ann"] is None
    assert events_of(changelog) == {"bob": 1}
    assert list(owner.table.rows) == ["bob"]
    assert not owner.unwritten


async def test_events_of_before_that_come_again_do_not_bring_a_forgotten_user_back() -> None:
    changelog = KeptChangelog()
    before = own(changelog, {CLICKS: 0, PURCHASES: 0, FEEDBACK: 0})
    take(before, CLICKS, range(5))
    take(before, PURCHASES, range(3))
    assert request(before, 7)
    await write(before)
    commit(before, FEEDBACK)
    before.close()  # before the group has heard of the rest
    owner = own(changelog, {CLICKS: 0, PURCHASES: 0, FEEDBACK: 8})
    take(owner, CLICKS, range(5))
    await write(owner)
    commit(owner)
    await write(owner)
    take(owner, PURCHASES, range(3))
    await write(owner)
    assert events_of(changelog) == {"ann": 0}
    commit(owner)
    await write(owner)
    assert dict(changelog.rows) == {"ann": None}


async def test_a_request_that_comes_again_erases_nothing_that_was_done_after_it() -> None:
    changelog = KeptChangelog()
    before = own(changelog, {CLICKS: 0, FEEDBACK: 0})
    take(before, CLICKS, [0])
    assert request(before, 7)
    take(before, CLICKS, [1])
    await write(before)
    before.close()
    owner = own(changelog, {CLICKS: 0, FEEDBACK: 0})
    take(owner, CLICKS, [0, 1])
    assert not request(owner, 7)
    await write(owner)
    assert events_of(changelog) == {"ann": 1}
    assert commit(owner) == {CLICKS: 2, FEEDBACK: 8}  # there is nothing to wait for


async def test_a_user_who_comes_back_before_his_row_is_gone_keeps_it() -> None:
    changelog = KeptChangelog()
    owner = own(changelog, {CLICKS: 0, FEEDBACK: 0})
    take(owner, CLICKS, [0])
    assert request(owner, 0)
    take(owner, CLICKS, [1])
    await write(owner)
    commit(owner)
    await write(owner)
    assert events_of(changelog) == {"ann": 1}


async def test_a_user_who_comes_back_before_his_tombstone_is_written_is_kept() -> None:
    changelog = KeptChangelog()
    owner = own(changelog, {CLICKS: 0, FEEDBACK: 0})
    take(owner, CLICKS, [0])
    assert request(owner, 0)
    await write(owner)
    commit(owner)
    take(owner, CLICKS, [1])
    await write(owner)
    assert events_of(changelog) == {"ann": 1}
    assert commit(owner) == {CLICKS: 2}
    await write(owner)
    assert events_of(changelog) == {"ann": 1}


async def test_nobody_unknown_is_erased() -> None:
    owner = own(KeptChangelog(), {FEEDBACK: 0})
    assert not request(owner, 0)
    assert not owner.unwritten
    assert commit(owner) == {FEEDBACK: 1}


async def test_a_row_that_goes_while_a_change_of_it_is_unwritten_leaves_a_tombstone_only() -> None:
    changelog = KeptChangelog()
    owner = own(changelog, {CLICKS: 0, FEEDBACK: 0})
    take(owner, CLICKS, [0])
    assert request(owner, 0)
    await write(owner)
    owner.touch(owner.table.rows.live(), owner.begin(CLICKS, 1, 1))
    commit(owner)
    await write(owner)
    assert dict(changelog.rows) == {"ann": None}


# Any order of what can happen.

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "begin",
                "begin",
                "touch",
                "touch",
                "list",
                "listed",
                "seal",
                "write",
                "do",
                "written",
                "commit",
                "refuse",
                "close",
            ]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


@dataclass
class Work:
    """A chunk as the plainest bookkeeping knows it."""

    topic: str
    last: int
    ticket: Ticket
    sealed: bool = False
    lists: int = 0
    unwritten: list[int] = field(default_factory=list)
    """For each change of its rows, the number of the write that brings it; the next one's while none has begun."""

    @property
    def waits(self) -> int:
        return (not self.sealed) + self.lists + len(self.unwritten)

    @property
    def finished(self) -> bool:
        return not self.waits


@settings(max_examples=300)
@given(STEPS)
def test_no_order_of_events_commits_what_is_not_finished_or_anything_after_the_end(
    steps: list[tuple[str, int]],
) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[tuple[str, int]]) -> None:
    held, lost = Held(), list[str]()
    owner = own(KeptChangelog(), {CLICKS: 0, PURCHASES: 0})
    owner.table.rows.rows_of(["ann"])
    owner.table.rows.records["version"] = 1
    work: list[Work] = []
    ends = {CLICKS: -1, PURCHASES: -1}
    committed = {CLICKS: 0, PURCHASES: 0}
    writes = 0
    ended = False

    def expected() -> dict[str, int]:
        found = dict(committed)
        for topic in found:
            for one in work:
                if one.topic == topic:
                    if not one.finished:
                        break
                    found[topic] = one.last + 1
        return {topic: offset for topic, offset in found.items() if offset > committed[topic]}

    for step, choice in steps:
        one = work[choice % len(work)] if work else None
        match step:
            case "begin" if not ended:
                topic = (CLICKS, PURCHASES)[choice % 2]
                ends[topic] += 1 + choice
                work.append(Work(topic, ends[topic], owner.begin(topic, ends[topic] - choice, ends[topic])))
            case "touch" if one and not one.sealed and not ended:
                owner.touch(np.array([0]), one.ticket)
                one.unwritten.append(writes)
            case "list" if one and not one.sealed:
                one.ticket.add()
                one.lists += 1
            case "listed" if one and one.lists:
                one.lists -= 1
                one.ticket.settle()
            case "seal" if one and not one.sealed:
                one.sealed = True
                one.ticket.seal()
            case "write":
                under_way = len(held)
                owner.write(held, lambda _: None, lost.append)
                await asyncio.sleep(0)
                writes += len(held) > under_way
            case "do":
                held.do()
            case "written" if len(held):
                await held.go_on()
                if not ended:
                    for each in work:
                        each.unwritten = [write for write in each.unwritten if write >= writes]
            case "refuse" if len(held) and not ended:
                owner._writer.lost = True  # type: ignore[attr-defined]
                await held.go_on()
                if lost:  # it had not been done before
                    owner.close()
                    ended = True
                else:
                    owner._writer.lost = False  # type: ignore[attr-defined]
                    for each in work:
                        each.unwritten = [write for write in each.unwritten if write >= writes]
            case "close" if choice == 0:
                owner.close()
                ended = True
            case "commit":
                for topic, offset in owner.committable().items():
                    owner.committed(topic, offset)
                    committed[topic] = offset
        assert owner.committable() == ({} if ended else expected())
        assert [each.ticket.pending for each in work] == [each.waits for each in work]
        if not ended:
            assert owner.open_chunks <= len(work)
            assert owner.open_chunks >= (not all(one.finished for one in work))
