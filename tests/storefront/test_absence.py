"""What the gateway does while Kafka is away, and when it comes back. On a broker of its own."""

import asyncio
from pathlib import Path

import pytest

from mmrec_stream.brokers import apache_kafka, free_port, why_no_kafka
from mmrec_stream.settings import Settings
from tests.conftest import RunningBroker, corner, with_topics
from tests.storefront.shop import bearer, events, open_shop, product, publish, recommended

CLICK = {"id": "e-1", "type": "click", "item_id": "a", "ts": 1_790_000_000_000}


@pytest.mark.kafka
@pytest.mark.slow
async def test_lists_are_served_while_kafka_is_away_and_events_are_not_lost(tmp_path: Path) -> None:
    if missing := why_no_kafka():
        pytest.skip(missing)
    broker = apache_kafka(data=tmp_path / "kafka").start()
    try:
        settings = corner(RunningBroker(broker.bootstrap, broker.name, is_kafka=True), "absence", tmp_path)
        topics = with_topics(settings)
        publish(settings, product("a"), product("b"), recommended("alice", ["b"], list_id="hers"))
        async with open_shop(settings) as shop, shop.stream(bearer("alice")) as reader:
            await reader.event("recommendations")
            await asyncio.to_thread(broker.kill)
            assert (await shop.get("/v1/recommendations", bearer("alice"))).json["list_id"] == "hers"
            assert (await shop.get("/v1/recommendations")).items == ["a", "b"]
            assert (await shop.get("/readyz")).status == (await shop.get("/healthz")).status == 200
            lost = await shop.post("/v1/events", CLICK, bearer("alice"))
            assert (lost.status, lost.code) == (503, "not_confirmed")
            assert lost.headers["Retry-After"]
            await asyncio.to_thread(broker.start)
            # As the page does: again, with the same id.
            while (again := await shop.post("/v1/events", CLICK, bearer("alice"))).status == 503:
                await asyncio.sleep(0.5)
            assert again.status == 202
            assert len(events(settings, topics.clicks)) == 1
            publish(settings, recommended("alice", ["a"], list_id="newer"))
            assert (await reader.event("recommendations", timeout_s=60))["list_id"] == "newer"
    finally:
        broker.close()


async def test_a_gateway_that_starts_before_kafka_is_not_ready_and_says_so(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, bootstrap=f"127.0.0.1:{free_port()}", data_dir=tmp_path)  # type: ignore[call-arg]
    async with open_shop(settings, ready=False) as shop:
        assert (await shop.get("/readyz")).status == 503
        assert (await shop.get("/healthz")).status == 200
        assert (await shop.get("/v1/recommendations")).items == []
