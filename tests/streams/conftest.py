"""A bench for the way of a chunk; see `tests.streams.bench`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mmrec_stream.ranking.recommend import Recommender
from tests.streams.bench import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.lists.close()


@pytest.fixture
async def scoring(bench: Bench) -> AsyncIterator[None]:
    """Lists that are due are made meanwhile."""
    task = asyncio.create_task(bench.lists.run())
    yield
    task.cancel()


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many users each scoring run had."""
    sizes: list[int] = []
    recommend = Recommender.recommend

    def counted(recommender: Recommender, users: Any, records: Any, now_ms: int) -> Any:
        sizes.append(len(records))
        return recommend(recommender, users, records, now_ms)

    monkeypatch.setattr(Recommender, "recommend", counted)
    return sizes
