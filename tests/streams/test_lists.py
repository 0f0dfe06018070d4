"""Who gets which list when, with deliveries in the test's hands."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mmrec_stream.ranking.recommend import Recommender
from streams import lists as module
from tests.streams.bench import TOPICS, Bench, forget, purchase, view


@pytest.fixture
def for_ever_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_S", 3_600.0)


@pytest.fixture
async def catching_up(bench: Bench, for_ever_behind: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """Lists are made, and old events' lists put off until the test says that the partition has caught up."""
    task = asyncio.create_task(bench.lists.run())

    def caught_up() -> None:
        monkeypatch.setattr(module, "QUIET_S", 0.0)
        bench.lists.wake()

    yield caught_up
    task.cancel()


@pytest.mark.usefixtures("scoring")
async def test_what_came_together_is_scored_together(bench: Bench, batches: list[int]) -> None:
    await bench.chunk(view("ann"), more=True)
    await bench.chunk(view("bob"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert batches == [2]


@pytest.mark.usefixtures("scoring")
async def test_many_users_at_once_get_their_lists_in_the_order_in_which_they_came(bench: Bench) -> None:
    users = [f"u{number}" for number in range(3 * module.HERE)]
    await bench.chunk(*map(view, users))
    await bench.until(lambda: len(bench.outbox.published) == len(users))
    assert [one.user_id for one in bench.outbox.published] == users


@pytest.mark.usefixtures("scoring")
async def test_few_users_are_scored_on_the_loop_unless_that_takes_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    recommend = Recommender.recommend

    def slow_at_first(recommender: Recommender, users: Any, records: Any, now_ms: int) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        if len(threads) < 3:
            time.sleep(2 * module.HERE_S)
        return recommend(recommender, users, records, now_ms)

    # Far above what a busy machine adds to a run of one user.
    monkeypatch.setattr(module, "HERE_S", 0.1)
    monkeypatch.setattr(Recommender, "recommend", slow_at_first)
    for number in range(5):
        await bench.chunk(view("ann"))
        await bench.until(lambda made=number + 1: len(bench.outbox.published) == made)  # type: ignore[misc]
    assert threads == [True, False, False, True, True]


async def test_the_next_fetch_waits_for_lists_that_are_due_and_not_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = [f"u{number}" for number in range(module.HERE + 1)]
    await bench.chunk(*map(view, users))
    await bench.lists.pace()  # nobody makes the lists, and yet it ends
    monkeypatch.setattr(module, "PACE_S", 60.0)
    pacing = asyncio.create_task(bench.lists.pace())
    await asyncio.sleep(0)
    assert not pacing.done()
    task = asyncio.create_task(bench.lists.run())
    async with asyncio.timeout(10):
        await pacing
    task.cancel()
    assert len(bench.lists) <= module.HERE


@pytest.mark.usefixtures("scoring")
async def test_a_batch_that_cannot_be_scored_holds_nothing_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the runtime is out of order")

    monkeypatch.setattr(bench.recommender, "recommend", broken)
    last = await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.lists) == 0 and bench.metrics.scoring_failures._value.get() == 1)
    await bench.write()
    assert bench.finished() == last + 1


@pytest.mark.usefixtures("scoring")
async def test_a_list_that_was_not_delivered_is_made_anew_of_the_newest_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    last = await bench.chunk(view("ann"))
    await bench.write()
    await bench.until(lambda: len(bench.outbox.published) == 1)
    bench.outbox.confirm(delivered=False)
    assert bench.finished() is None
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert bench.finished() is None
    bench.outbox.confirm()
    assert bench.finished() == last + 1
    first, again = bench.outbox.published
    assert first.list_id == again.list_id
    assert again.times.scored > first.times.scored


@pytest.mark.usefixtures("scoring")
async def test_of_several_undelivered_lists_of_a_user_the_newest_event_has_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    last = await bench.chunk(view("ann", "rug"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    bench.outbox.confirm(delivered=False)
    await bench.until(lambda: len(bench.outbox.published) == 3)
    assert bench.outbox.causes[-1] == ("ann", TOPICS.clicks, last)
    await bench.write()
    bench.outbox.confirm()
    assert bench.finished() == last + 1
    assert len(bench.lists) == 0


@pytest.mark.usefixtures("scoring")
async def test_an_undelivered_list_does_not_follow_a_newer_one_that_is_on_its_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    last = await bench.chunk(view("ann", "rug"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    await bench.write()
    bench.outbox.confirm(delivered=False, first=1)
    await bench.chunk(view("bob"))
    await bench.until(lambda: bench.outbox.causes[-1][0] == "bob")
    assert bench.finished() is None  # the first chunk waits for what its successor is still to bring
    bench.outbox.confirm(first=1)
    assert bench.finished() == last + 1
    assert [offset for user, _, offset in bench.outbox.causes if user == "ann"] == [0, last]


@dataclass
class HeldScoring:
    """Scores a batch when the test lets it."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go_on: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @classmethod
    def in_place(cls, monkeypatch: pytest.MonkeyPatch) -> "HeldScoring":
        held, recommend = cls(), Recommender.recommend

        def recommend_then(recommender: Recommender, users: Any, records: Any, now_ms: int) -> Any:
            held.begun.release()
            assert held.go_on.acquire(timeout=10)
            return recommend(recommender, users, records, now_ms)

        monkeypatch.setattr(Recommender, "recommend", recommend_then)
        return held


async def test_a_list_that_was_scored_in_vain_does_not_follow_a_newer_one_that_is_being_scored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = HeldScoring.in_place(monkeypatch)
    others = [f"u{number}" for number in range(23)]
    await bench.chunk(*map(view, [*others[:8], "ann", *others[8:16]]))
    task = asyncio.create_task(bench.lists.run())
    assert await asyncio.to_thread(scoring.begun.acquire, timeout=10)  # two batches of 8 are taken
    last = await bench.chunk(view("ann", "rug"), *map(view, others[16:]))
    scoring.go_on.release()
    await bench.until(lambda: len(bench.outbox.published) == 8 and len(bench.lists) == 1)  # and now a third
    bench.entitled = False
    scoring.go_on.release()
    await bench.until(lambda: len(bench.lists) >= 8)  # the second came too late, and is back
    bench.entitled = True
    scoring.go_on.release(100)
    await bench.until(lambda: {user for user, _, _ in bench.outbox.causes} == {"ann", *others})
    await bench.until(lambda: len(bench.lists) == 0)
    task.cancel()
    assert [offset for user, _, offset in bench.outbox.causes if user == "ann"] == [last - 7]
    await bench.write()
    bench.outbox.confirm()
    assert bench.finished() == last + 1


async def test_a_list_that_was_scored_in_vain_takes_nobodys_place_under_the_next_ownership(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = HeldScoring.in_place(monkeypatch)
    users = [f"u{number}" for number in range(8)]
    monkeypatch.setattr(module, "HERE", 0)
    await bench.chunk(*map(view, users))
    task = asyncio.create_task(bench.lists.run())
    assert await asyncio.to_thread(scoring.begun.acquire, timeout=10)
    bench.hand_over(clicks=0)
    last = await bench.chunk(*map(view, users))
    bench.entitled = False
    scoring.go_on.release(100)
    await bench.turns()
    bench.entitled = True
    await bench.until(lambda: len(bench.outbox.published) == 8)
    task.cancel()
    await bench.write()
    bench.outbox.confirm()
    assert bench.finished() == last + 1


@pytest.mark.usefixtures("scoring")
async def test_a_worker_that_may_have_lost_its_partitions_publishes_nothing_until_it_knows(bench: Bench) -> None:
    bench.entitled = False
    last = await bench.chunk(view("ann"))
    await bench.turns()
    assert (bench.outbox.published, len(bench.lists)) == ([], 1)
    bench.entitled = True
    await bench.until(lambda: bench.outbox.causes == [("ann", TOPICS.clicks, last)])


@pytest.mark.usefixtures("scoring")
async def test_a_suspended_ownership_publishes_nothing_until_it_serves(bench: Bench) -> None:
    bench.owner.suspend()
    last = await bench.chunk(view("ann"))
    await bench.turns()
    assert bench.outbox.published == []
    bench.owner.serve()
    await bench.until(lambda: bench.outbox.causes == [("ann", TOPICS.clicks, last)])


async def test_a_list_that_is_scored_when_its_ownership_is_suspended_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend = Recommender.recommend

    def suspended_meanwhile(recommender: Recommender, users: Any, records: Any, now_ms: int) -> Any:
        bench.owner.suspend()
        return recommend(recommender, users, records, now_ms)

    monkeypatch.setattr(Recommender, "recommend", suspended_meanwhile)
    last = await bench.chunk(view("ann"))
    task = asyncio.create_task(bench.lists.run())
    await bench.turns()
    assert bench.outbox.published == []
    assert len(bench.lists) == 1
    monkeypatch.undo()
    bench.owner.serve()
    await bench.until(lambda: bench.outbox.causes == [("ann", TOPICS.clicks, last)])
    task.cancel()


async def test_lists_of_an_ownership_that_is_over_are_neither_made_nor_published(
    bench: Bench, batches: list[int]
) -> None:
    await bench.chunk(view("ann"))
    bench.hand_over()
    await bench.chunk(view("bob"))
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: bool(bench.outbox.published))
    task.cancel()
    assert ([user for user, _, _ in bench.outbox.causes], batches) == (["bob"], [1])


async def test_a_list_that_is_scored_when_its_ownership_ends_is_not_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend = Recommender.recommend

    def over_meanwhile(recommender: Recommender, users: Any, records: Any, now_ms: int) -> Any:
        bench.owner.close()
        return recommend(recommender, users, records, now_ms)

    monkeypatch.setattr(Recommender, "recommend", over_meanwhile)
    await bench.chunk(view("ann"))
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: len(bench.lists) == 0)
    await bench.turns()
    task.cancel()
    assert bench.outbox.published == []


@pytest.mark.usefixtures("scoring")
async def test_an_undelivered_list_of_an_ownership_that_is_over_is_not_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    bench.hand_over()
    bench.outbox.confirm(delivered=False)
    await bench.chunk(view("bob"))
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert [user for user, _, _ in bench.outbox.causes] == ["ann", "bob"]


async def test_old_events_far_behind_bring_one_list_a_user_when_the_partition_has_caught_up(
    bench: Bench, catching_up: Any
) -> None:
    await bench.old_chunk(view("ann"), view("bob"))
    last = await bench.old_chunk(view("ann", "rug"))
    await bench.write()
    await bench.turns()
    assert (bench.outbox.published, bench.lists.late, bench.finished()) == ([], 2, None)
    catching_up()
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert sorted(bench.outbox.causes) == [("ann", TOPICS.clicks, last), ("bob", TOPICS.clicks, 1)]
    bench.outbox.confirm(first=1)
    assert bench.finished() is None  # each of the chunks waits for all who were put off
    bench.outbox.confirm()
    assert bench.finished() == last + 1
    await bench.turns()
    assert (len(bench.outbox.published), bench.lists.late) == (2, 0)


@pytest.mark.usefixtures("scoring", "for_ever_behind")
@pytest.mark.parametrize(("age_s", "behind"), [(3_600.0, 0), (0.0, 1_000_000)])
async def test_neither_a_replay_of_old_events_nor_young_ones_in_a_long_line_are_put_off(
    bench: Bench, age_s: float, behind: int
) -> None:
    await bench.chunk(view("ann"), age_s=age_s, behind=behind)
    await bench.until(lambda: len(bench.outbox.published) == 1)


async def test_a_user_of_old_events_who_does_something_now_has_that_list_and_no_older_one(
    bench: Bench, catching_up: Any
) -> None:
    await bench.old_chunk(purchase("ann"), topic=TOPICS.purchases)
    last = await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    catching_up()
    await bench.until(lambda: bench.lists.late == 0)
    await bench.turns()
    assert bench.outbox.causes == [("ann", TOPICS.clicks, last)]
    await bench.write()
    bench.outbox.confirm()
    assert (bench.finished(TOPICS.purchases), bench.finished()) == (1, last + 1)


async def test_a_young_event_goes_before_all_who_were_put_off(bench: Bench, for_ever_behind: None) -> None:
    users = [f"u{number}" for number in range(3 * module.HERE)]
    await bench.old_chunk(*map(view, users))
    module.QUIET_S = 0.0  # the fixture puts it back
    await bench.chunk(view("bob"))
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: len(bench.outbox.published) == 1 + len(users))
    task.cancel()
    assert [user for user, _, _ in bench.outbox.causes] == ["bob", *users]


async def test_those_put_off_go_with_their_ownership(bench: Bench, catching_up: Any) -> None:
    await bench.old_chunk(view("ann"))
    bench.hand_over()
    assert await bench.old_chunk(view("bob")) == 1
    catching_up()
    await bench.until(lambda: bench.lists.late == 0 and len(bench.outbox.published) == 1)
    assert bench.outbox.causes == [("bob", TOPICS.clicks, 1)]


async def test_an_undelivered_list_of_one_put_off_is_made_again(
    bench: Bench, catching_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    last = await bench.old_chunk(view("ann"))
    await bench.write()
    catching_up()
    await bench.until(lambda: len(bench.outbox.published) == 1)
    bench.outbox.confirm(delivered=False)
    assert bench.finished() is None
    await bench.until(lambda: len(bench.outbox.published) == 2)
    bench.outbox.confirm()
    assert bench.finished() == last + 1


async def test_a_list_that_fails_while_its_user_is_put_off_and_in_line_again_holds_no_chunk_back(
    bench: Bench, catching_up: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    await bench.chunk(view("ann"))
    await bench.until(lambda: len(bench.outbox.published) == 1)
    last = await bench.old_chunk(view("ann", "rug"))
    await bench.write()
    bench.entitled = False  # nobody is taken out of the line
    catching_up()
    await bench.turns()
    bench.lists._release()
    bench.outbox.confirm(delivered=False)
    bench.entitled = True
    await bench.until(lambda: len(bench.outbox.published) == 2)
    assert bench.outbox.causes[1] == ("ann", TOPICS.clicks, last)
    bench.outbox.confirm()
    assert bench.finished() == last + 1
    await bench.turns()
    assert len(bench.outbox.published) == 2


async def test_a_list_in_line_since_before_its_user_was_put_off_is_made_for_what_came_then(
    bench: Bench, catching_up: Any
) -> None:
    bench.entitled = False
    await bench.chunk(view("ann"))
    last = await bench.old_chunk(view("ann", "rug"))
    await bench.write()
    catching_up()
    await bench.turns()
    bench.lists._release()
    assert bench.lists.late == 0
    bench.entitled = True
    await bench.until(lambda: len(bench.outbox.published) == 1)
    assert bench.outbox.causes == [("ann", TOPICS.clicks, last)]
    bench.outbox.confirm()
    assert bench.finished() == last + 1


async def test_a_forgotten_user_has_no_list_any_more_and_the_chunk_waits_for_that(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    await bench.chunk(view("ann"), view("bob"))
    last = await bench.chunk(forget("ann"), topic=TOPICS.feedback)
    task = asyncio.create_task(bench.lists.run())
    await bench.until(lambda: len(bench.outbox.published) == 1)
    await bench.write()
    bench.outbox.confirm(delivered=False, first=1)
    await bench.until(lambda: bench.outbox.taken_back == ["ann", "ann"])
    assert bench.finished(TOPICS.feedback) is None
    bench.outbox.confirm()
    assert (bench.finished(TOPICS.feedback), bench.finished()) == (last + 1, 2)
    await bench.turns()
    task.cancel()
    assert [user for user, _, _ in bench.outbox.causes] == ["bob"]


async def test_a_list_that_is_made_while_its_user_is_forgotten_is_not_published(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring = HeldScoring.in_place(monkeypatch)
    monkeypatch.setattr(module, "HERE", 0)
    await bench.chunk(view("ann"))
    task = asyncio.create_task(bench.lists.run())
    assert await asyncio.to_thread(scoring.begun.acquire, timeout=10)
    await bench.chunk(forget("ann"), topic=TOPICS.feedback)
    scoring.go_on.release(100)
    await bench.chunk(view("bob"))
    await bench.until(lambda: bool(bench.outbox.published))
    task.cancel()
    assert [user for user, _, _ in bench.outbox.causes] == ["bob"]
    await bench.write()
    bench.outbox.confirm()
    assert (bench.finished(TOPICS.feedback), bench.finished()) == (1, 2)


async def test_a_forgotten_users_list_is_not_taken_back_by_one_who_has_the_partition_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    await bench.chunk(view("ann"))
    await bench.chunk(forget("ann"), topic=TOPICS.feedback)
    bench.hand_over()
    bench.outbox.confirm(delivered=False)
    await bench.turns()
    assert bench.outbox.taken_back == ["ann"]
