"""Fetching from real brokers: where it begins, what it leaves out, that neither seek nor cancelled wait loses any."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from faust.types import TP
from streams.fetching import Fetching

from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.plan import ensure_topics
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams import fetching as module


@pytest.fixture
def partitions(settings: Settings) -> tuple[TP, TP]:
    """Two partitions with the values 0 to 9 each."""
    ensure_topics(settings)
    one, other = TP(Topics.of(settings).clicks, 0), TP(Topics.of(settings).clicks, 1)
    send(settings, one, range(10))
    send(settings, other, range(10))
    return one, other


@pytest.fixture
async def fetching(settings: Settings) -> AsyncIterator[Fetching]:
    opened = Fetching(settings)
    yield opened
    await asyncio.to_thread(opened.close)


def send(settings: Settings, tp: TP, values: range) -> None:
    with BatchProducer(settings) as producer:
        for value in values:
            producer.send(tp.topic, b"%d" % value, partition=tp.partition)


async def until(fetching: Fetching, wanted: dict[TP, int]) -> dict[TP, list[int]]:
    """Fetch until this many values have come of each partition."""
    found: dict[TP, list[int]] = {tp: [] for tp in wanted}
    async with asyncio.timeout(20):
        while any(len(found[tp]) < count for tp, count in wanted.items()):
            for chunk in await fetching.fetch(0.1):
                found[TP(chunk.topic, chunk.partition)] += [int(value or b"") for value in chunk.values]
    return found


async def test_each_partition_goes_on_where_the_seek_put_it(fetching: Fetching, partitions: tuple[TP, TP]) -> None:
    one, other = partitions
    fetching.seek({one: None, other: 7})
    fetching.resume(partitions)
    assert await until(fetching, {one: 10, other: 3}) == {one: list(range(10)), other: [7, 8, 9]}


async def test_a_partition_waits_for_being_resumed(fetching: Fetching, partitions: tuple[TP, TP]) -> None:
    one, other = partitions
    fetching.seek({one: None, other: 4})
    fetching.resume({one, TP(one.topic, 3)})  # the last is nobody's that the seek has named
    assert await until(fetching, {one: 10}) == {one: list(range(10))}
    assert await fetching.fetch(0.1) == []
    fetching.resume({other})
    assert await until(fetching, {other: 6}) == {other: [4, 5, 6, 7, 8, 9]}


async def test_a_paused_partition_goes_on_after_the_next_seek(
    fetching: Fetching, partitions: tuple[TP, TP], settings: Settings
) -> None:
    one, other = partitions
    fetching.seek({one: None, other: None})
    fetching.resume(partitions)
    await until(fetching, {one: 10, other: 10})
    fetching.pause({other})
    fetching.resume({other})
    send(settings, one, range(10, 12))
    send(settings, other, range(10, 12))
    assert await until(fetching, {one: 2}) == {one: [10, 11]}
    assert await fetching.fetch(0.1) == []
    fetching.seek({one: 12, other: 10})
    fetching.resume(partitions)
    assert await until(fetching, {other: 2}) == {other: [10, 11]}


async def test_a_seek_while_a_fetch_waits_neither_loses_nor_repeats_a_record(
    fetching: Fetching, partitions: tuple[TP, TP], settings: Settings
) -> None:
    one, other = partitions
    fetching.seek({one: 10, other: 10})
    fetching.resume(partitions)
    waiting = asyncio.create_task(fetching.fetch(5.0))
    await asyncio.sleep(0)  # the wait is under way
    fetching.seek({one: 5, other: 10})
    fetching.resume(partitions)
    assert await waiting == []
    send(settings, other, range(10, 11))
    assert await until(fetching, {one: 5, other: 1}) == {one: [5, 6, 7, 8, 9], other: [10]}


async def test_a_cancelled_fetch_leaves_what_it_waits_for_to_the_next(
    fetching: Fetching, partitions: tuple[TP, TP], settings: Settings
) -> None:
    one, _ = partitions
    fetching.seek({one: 10})
    fetching.resume({one})
    waiting = asyncio.create_task(fetching.fetch(5.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    send(settings, one, range(10, 12))
    assert await until(fetching, {one: 2}) == {one: [10, 11]}


async def test_a_chunk_has_all_of_its_records(
    fetching: Fetching, partitions: tuple[TP, TP], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEN_AT_ONCE", 3)
    one, _ = partitions
    with BatchProducer(settings) as producer:
        producer.send(one.topic, b"x", key=b"ann", partition=one.partition, timestamp_ms=1_700_000_000_123)
        producer.send(one.topic, None, partition=one.partition, timestamp_ms=1_700_000_000_124)
    fetching.seek({one: 9})
    fetching.resume({one})
    seen: list[Any] = []
    async with asyncio.timeout(20):
        while len(seen) < 3:
            for chunk in await fetching.fetch(0.1):
                assert abs(chunk.fetched - time.time()) < 60
                seen += zip(chunk.offsets, chunk.times_ms, chunk.keys, chunk.values, strict=True)
    assert seen[0][0] == 9
    assert seen[1:] == [(10, 1_700_000_000_123, b"ann", b"x"), (11, 1_700_000_000_124, None, None)]


async def test_a_fetch_brings_no_more_than_its_bound(
    fetching: Fetching, partitions: tuple[TP, TP], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RECORDS", 4)
    fetching.seek(dict.fromkeys(partitions))
    fetching.resume(partitions)
    left = 20
    async with asyncio.timeout(20):
        while left:
            came = sum(map(len, await fetching.fetch(0.1)))
            assert came <= 4
            left -= came
