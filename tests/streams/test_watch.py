"""When a worker says that it is not well, and when it waits. The broker and the work are the test's."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mmrec_stream.settings import Settings
from streams import watch as module
from streams.metrics import Metrics
from streams.ownership import Ownership, Ownerships
from streams.watch import Watch
from tests.streams.owners import KeptChangelog, own

LOOK_S, SHORT_S = 0.002, 0.05


class GivenApp:
    """A worker with a client and an assignment as the test wants them."""

    settings = Settings(_env_file=None)  # type: ignore[call-arg]

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.assignment = SimpleNamespace(owners=Ownerships())
        self.there = True
        self.asked = 0
        self.failures: list[str] = []
        self.client: Any = SimpleNamespace(
            leaving=False, member="me", unreachable_since=None, reachable=self._reachable
        )

    async def _reachable(self) -> bool:
        self.asked += 1
        if self.there:
            self.client.unreachable_since = None
        return self.there

    def fail(self, reason: str) -> None:
        self.failures.append(reason)


class Watched:
    def __init__(self) -> None:
        self.app = GivenApp()
        self.watch = Watch(cast("Any", self.app))
        self.owner = own(KeptChangelog(), {"clicks": 0})
        self.app.assignment.owners.add(self.owner)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(LOOK_S)

    async def looks(self, count: int = 20) -> None:
        """Let it look this often; each time it may take the worker for lost."""
        await asyncio.sleep(count * LOOK_S)


@pytest.fixture
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    monkeypatch.setattr(module, "LOOK_S", LOOK_S)
    monkeypatch.setattr(module, "SUSPICIOUS_S", SHORT_S / 2)
    monkeypatch.setattr(module, "STALL_S", SHORT_S)
    watched = Watched()
    task = asyncio.create_task(watched.watch.run())
    yield watched
    task.cancel()


async def test_work_that_is_begun_and_not_finished_is_a_complaint_once(watched: Watched) -> None:
    watched.owner.begin("clicks", 0, 3)
    await watched.until(lambda: bool(watched.app.failures))
    await watched.looks()
    assert len(watched.app.failures) == 1
    assert "nothing is finished" in watched.app.failures[0]
    assert watched.watch.complaint == watched.app.failures[0]


async def test_work_that_is_finished_one_after_the_other_is_none(watched: Watched) -> None:
    """Under load something is always open; what counts is that some of it is finished."""
    deadline = time.monotonic() + 4 * SHORT_S
    offset = 0
    while time.monotonic() < deadline:
        watched.owner.begin("clicks", 0, offset)
        offset += 1
        watched.app.metrics.progress()
        await asyncio.sleep(LOOK_S)
    assert watched.owner.oldest_open_s > 2 * SHORT_S
    assert watched.app.failures == []


async def test_a_broker_that_is_away_is_no_complaint_and_the_work_gets_its_time_anew(watched: Watched) -> None:
    watched.app.there = False
    watched.app.client.unreachable_since = time.monotonic()
    watched.owner.begin("clicks", 0, 3)
    await watched.until(lambda: watched.watch.broker_away and watched.owner.oldest_open_s > 3 * SHORT_S)
    await watched.looks()
    assert (watched.app.failures, watched.watch.complaint) == ([], None)
    back = time.monotonic()
    watched.app.there = True
    await watched.until(lambda: not watched.watch.broker_away)
    await watched.until(lambda: bool(watched.app.failures))
    assert time.monotonic() - back > SHORT_S


async def test_a_broker_is_not_asked_while_all_goes_well(watched: Watched) -> None:
    ticket = watched.owner.begin("clicks", 0, 3)
    ticket.seal()
    await watched.looks()
    assert watched.app.asked == 0


async def test_a_worker_that_no_group_takes_complains_while_the_broker_answers(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_S", SHORT_S)
    watched.app.client.member = ""
    await watched.until(lambda: bool(watched.app.failures))
    assert "the group has not taken this worker" in watched.app.failures[0]


async def test_a_worker_that_waits_for_a_broker_to_join_does_not_complain(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_S", SHORT_S)
    watched.app.client.member, watched.app.there = "", False
    await watched.looks(int(3 * SHORT_S / LOOK_S))
    assert (watched.watch.broker_away, watched.app.failures) == (True, [])


async def test_a_partition_that_is_never_restored_is_a_complaint(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.app.assignment.owners.add(Ownership(7, {}, cast("Any", KeptChangelog())))
    await watched.looks()
    assert watched.app.failures == []
    monkeypatch.setattr(module, "OPEN_S", SHORT_S)
    await watched.until(lambda: bool(watched.app.failures))
    assert "partition 7 is not restored" in watched.app.failures[0]


async def test_a_restore_that_stood_still_for_want_of_a_broker_gets_its_time_anew(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Ownership(7, {}, cast("Any", KeptChangelog()))
    watched.app.there = False
    watched.app.client.unreachable_since = time.monotonic()
    await watched.until(lambda: watched.watch.broker_away)
    watched.app.assignment.owners.add(opening)
    await watched.until(lambda: opening.age_s > 2 * SHORT_S)
    monkeypatch.setattr(module, "OPEN_S", 2 * SHORT_S)
    back = time.monotonic()
    watched.app.there = True
    await watched.until(lambda: bool(watched.app.failures))
    assert time.monotonic() - back > 2 * SHORT_S


async def test_a_worker_that_leaves_is_left_alone(watched: Watched) -> None:
    watched.app.client.leaving = True
    watched.owner.begin("clicks", 0, 3)
    await watched.looks(int(3 * SHORT_S / LOOK_S))
    assert (watched.app.failures, watched.app.asked) == ([], 0)


async def test_that_a_broker_is_away_is_said_once_in_a_while(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.app.there = False
    watched.app.client.unreachable_since = time.monotonic()
    await watched.until(lambda: watched.app.asked > 20)
    assert sum("no broker answers" in record.message for record in caplog.records) == 1
