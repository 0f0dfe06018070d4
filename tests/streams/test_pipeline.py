"""The pipeline's promises, with confirmations in the test's hands: what is finished when, what is set aside."""

import asyncio

import pytest

from mmrec_stream.contracts.behaviour import BehaviourEvent
from mmrec_stream.contracts.dead_letters import Fault
from mmrec_stream.profiles.columns import EventColumns, columns_of
from streams import intake
from streams import pipeline as module
from tests.streams.bench import Bench, impression, view


@pytest.mark.usefixtures("scoring")
@pytest.mark.parametrize("rows_first", [True, False])
async def test_a_chunk_is_finished_when_its_rows_are_committed_and_its_lists_confirmed(
    bench: Bench, rows_first: bool
) -> None:
    last = await bench.chunk(view("ann"), view("bob"), view("ann", "rug"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert bench.owner.open_chunks == 1
    if rows_first:
        await bench.write()
    else:
        bench.outbox.confirm()
    assert bench.finished() is None
    if rows_first:
        bench.outbox.confirm()
    else:
        await bench.write()
    assert [user for user, _ in bench.changelog.rows] == ["ann", "bob"]
    assert bench.finished() == last + 1
    assert bench.owner.open_chunks == 0


async def test_users_in_line_get_one_list_of_their_newest_state(bench: Bench) -> None:
    first = await bench.chunk(view("ann"), view("bob"))
    second = await bench.chunk(view("ann", "rug"))
    assert len(bench.lists) == 2
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: len(bench.outbox.published) == 2)
    task.cancel()
    causes = {one.user_id: one.cause.offset for one in bench.outbox.published}
    assert causes == {"ann": second, "bob": first}
    assert bench.metrics.coalesced._value.get() == 1
    await bench.write()
    assert bench.finished() is None  # both chunks wait for ann's one list
    bench.outbox.confirm()
    assert bench.finished() == second + 1


async def test_a_replayed_event_changes_no_profile_and_still_brings_its_list(bench: Bench) -> None:
    await bench.chunk(view("ann"))
    await bench.write()
    bench.hand_over(clicks=0)
    task = asyncio.create_task(bench.lists.run())
    last = await bench.chunk(view("ann", "rug"))
    await bench.until(lambda: bool(bench.outbox.published))
    task.cancel()
    bench.outbox.confirm()
    assert bench.finished() is None  # the one who had it before may not have committed the row
    await bench.write()
    (_, first), (_, again) = bench.changelog.rows
    assert first == again
    assert bench.finished() == last + 1
    assert bench.metrics.repeats._value.get() == 1


async def test_bad_records_are_set_aside_and_their_chunk_waits_for_that(bench: Bench) -> None:
    last = await bench.chunk(b"no json", impression("ann"))
    assert [letter.fault for letter in bench.outbox.letters] == [Fault.NOT_JSON]
    await bench.write()
    assert bench.finished() is None
    bench.outbox.confirm()
    assert bench.finished() == last + 1


async def test_a_mistake_of_ours_before_the_fold_sets_the_chunk_aside_and_folds_nothing_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(events: list[BehaviourEvent], offsets: list[int]) -> EventColumns:
        if events:
            raise ZeroDivisionError("our mistake")
        return columns_of(events, offsets)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "columns_of", broken)
        last = await bench.chunk(view("ann"), view("bob"))
    assert [(letter.fault, letter.origin.offset) for letter in bench.outbox.letters] == [
        (Fault.INTERNAL, 0),
        (Fault.INTERNAL, 1),
    ]
    assert "our mistake" in bench.outbox.letters[0].detail
    assert len(bench.owner.table.rows) == 0
    bench.outbox.confirm()
    assert bench.finished() == last + 1
    await bench.chunk(view("ann"))
    await bench.write()
    assert [user for user, _ in bench.changelog.rows] == ["ann"]


async def test_what_is_set_aside_is_not_folded_and_what_is_folded_not_set_aside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter of an event that counts all the same would be folded twice when it is driven back."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("our mistake")

    monkeypatch.setattr(bench.pipeline._popularity, "count", broken)
    with pytest.raises(ZeroDivisionError):
        await bench.chunk(view("ann"))
    assert bench.outbox.letters == []
    await bench.write()
    assert bench.finished() is None  # it is read again, and counts once
    bench.hand_over(clicks=0)
    monkeypatch.undo()
    await bench.chunk(view("ann"))
    assert bench.metrics.folds._value.get() == 0
    assert bench.metrics.repeats._value.get() == 1


async def test_chunks_of_an_ownership_that_is_over_are_taken_without_any_effect(bench: Bench) -> None:
    gone = bench.owner
    bench.hand_over()
    last = await bench.chunk(view("ann"), b"no json", owner=gone)
    assert bench.begun == [last]  # the others of its fetch do not wait for it
    assert (len(gone.table.rows), len(bench.owner.table.rows), len(bench.lists)) == (0, 0, 0)
    assert bench.outbox.letters == []


async def test_a_chunk_that_waits_for_lists_while_its_ownership_ends_is_not_folded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DUE", 0)
    await bench.chunk(view("ann"))
    waiting = asyncio.create_task(bench.chunk(view("bob")))
    await bench.turns()
    assert bench.begun == [0]
    gone = bench.owner
    bench.hand_over(clicks=0)
    async with asyncio.timeout(10):
        await waiting
    assert list(gone.table.rows) == ["ann"]
    assert list(bench.owner.table.rows) == []


async def test_confirmations_that_come_after_the_end_finish_nothing(bench: Bench) -> None:
    task = asyncio.create_task(bench.lists.run())
    await bench.chunk(b"no json", view("ann"))
    await bench.until(lambda: bool(bench.outbox.published))
    gone = bench.owner
    bench.hand_over(clicks=0)
    last = await bench.chunk(b"no json", view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    task.cancel()
    await bench.write()
    bench.outbox.confirm(first=2)  # letter and list of before
    assert gone.committable() == {}
    assert bench.finished() is None
    bench.outbox.confirm()
    assert bench.finished() == last + 1


@pytest.mark.usefixtures("scoring")
async def test_what_asks_for_no_list_starts_no_scoring(bench: Bench, batches: list[int]) -> None:
    await bench.chunk(impression("ann"))
    await bench.turns()
    await bench.chunk(view("bob"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    assert batches == [1]
