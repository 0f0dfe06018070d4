"""What the outbox promises on a real broker: letters arrive whatever is in them, and each list's fate is told."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from faust.types import TP

from mmrec_stream.contracts.dead_letters import Fault, decode_dead_letter, encode_dead_letter
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.intake import letter
from streams.outbox import Outbox
from streams.ownership import Ticket
from tests.streams.bench import TOPICS
from tests.streams.chunks import TIME_MS, chunk_of


class Running:
    """An outbox at work, and what it ended the worker for."""

    def __init__(self, settings: Settings) -> None:
        self.failures: list[str] = []
        self.outbox = Outbox(settings, self.failures.append)

    async def confirmed(self) -> None:
        """Wait until everything that was sent has its answer."""
        async with asyncio.timeout(30):
            while len(self.outbox) and not self.failures:
                await asyncio.sleep(0.01)


@pytest.fixture
async def running(settings: Settings) -> AsyncIterator[Running]:
    running = Running(settings)
    task = asyncio.create_task(running.outbox.run())
    yield running
    task.cancel()
    await asyncio.to_thread(running.outbox.close, 5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"k" * 800_000, b"{}"),
        (b"k" * 800_000, b"v" * 200_000),
        (b"ann", b"v" * 1_000_000),
        (b"\xff" * 800_000, b'{"type":"' + b"\x00" * 100_000 + b'"}'),
    ],
    ids=["key", "both", "value", "control-characters"],
)
async def test_the_letter_of_any_record_that_a_broker_took_is_taken(
    running: Running, settings: Settings, topics: Topics, key: bytes, value: bytes
) -> None:
    chunk = chunk_of(TP(TOPICS.clicks, 2), [value], [41], key=key, time_ms=TIME_MS)
    dead = letter(chunk, 0, Fault.OVERSIZED, "too large: " + value.decode(errors="replace"))
    finished: list[bool] = []
    ticket = Ticket(lambda: finished.append(True))
    running.outbox.letter(topics.dead_letters, dead.record_key, encode_dead_letter(dead), ticket)
    ticket.seal()
    await running.confirmed()
    assert (running.failures, finished) == ([], [True])
    (found,) = read(settings, topics.dead_letters)
    assert decode_dead_letter(found.value() or b"").origin.offset == 41


async def test_each_list_of_a_batch_is_told_apart(running: Running, settings: Settings, topics: Topics) -> None:
    outcomes: list[tuple[int, bool]] = []
    records = [("ann", b"{}"), ("bob", None), ("cat", b"{}")]
    running.outbox.lists(topics.recommendations, records, lambda place, fine: outcomes.append((place, fine)))
    assert outcomes == []
    await running.confirmed()
    async with asyncio.timeout(10):
        while len(outcomes) < 3:
            await asyncio.sleep(0.01)
    assert sorted(outcomes) == [(0, True), (1, True), (2, True)]
    found = {(message.key() or b"").decode(): message.value() for message in read(settings, topics.recommendations)}
    assert found == dict(records)


async def test_a_list_that_no_broker_takes_in_time_is_told_undelivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.outbox.LIST_TIMEOUT_S", 0.3)
    running = Running(Settings(_env_file=None, bootstrap="127.0.0.1:1"))  # type: ignore[call-arg]
    task = asyncio.create_task(running.outbox.run())
    told: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
    running.outbox.lists("lists", [("ann", b"{}")], lambda *outcome: told.set_result(outcome))
    async with asyncio.timeout(20):
        assert await told == (0, False)
    task.cancel()
    assert running.failures == []


@pytest.mark.usefixtures("kafka_topics")
@pytest.mark.parametrize("kind", ["letter", "list"])
async def test_a_topic_that_is_gone_ends_the_worker_with_a_reason(kafka_settings: Settings, kind: str) -> None:
    running = Running(kafka_settings)
    task = asyncio.create_task(running.outbox.run())
    gone = f"{kafka_settings.prefix}gone"

    def again(place: int = 0, delivered: bool = False) -> None:
        assert not delivered
        running.outbox.lists(gone, [("ann", b"{}")], again)

    if kind == "letter":
        running.outbox.letter(gone, b"key", b"{}", Ticket(lambda: pytest.fail("nothing was delivered")))
    else:
        again()
    async with asyncio.timeout(60):
        while not running.failures:
            await asyncio.sleep(0.01)
    task.cancel()
    assert gone in running.failures[0]
