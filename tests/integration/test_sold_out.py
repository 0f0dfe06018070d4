"""A product sells out while people look at it: their lists are made again without it."""

import time
from pathlib import Path
from typing import Any

import pytest

from mmrec_stream.contracts.behaviour import View
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.workers import WorkerProcess, lists, newest_lists, publish, wait_for

pytestmark = pytest.mark.broker

ITEMS = [f"item-{number}" for number in range(8)]
USERS = [f"user-{number}" for number in range(12)]


def products(settings: Settings, *items: CatalogueItem) -> None:
    with BatchProducer(settings) as producer:
        for item in items:
            producer.send(Topics.of(settings).catalogue, encode_item(item), key=item.item_id.encode())


def test_lists_that_hold_what_sells_out_are_made_again(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    products(settings, *(CatalogueItem(item_id=item) for item in ITEMS))
    now = int(time.time() * 1000)
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        publish(settings, (View(user_id="crowd", item_id=item, ts=now) for item in ITEMS))
        wait_for("something popular", lambda: newest_lists(settings))
        publish(settings, (View(user_id=user, item_id="elsewhere", ts=now) for user in USERS))
        before = wait_for(
            "lists with what is to sell out",
            lambda: len(found := newest_lists(settings)) == len(USERS) + 1 and found,
        )
        holding = {user for user, one in before.items() if any(place.item_id == "item-3" for place in one.items)}
        assert holding
        products(settings, CatalogueItem(item_id="item-3", stock=0))

        def gone() -> bool:
            return not any(place.item_id == "item-3" for one in newest_lists(settings).values() for place in one.items)

        wait_for("lists without it", gone)
        after = newest_lists(settings)
        assert worker.stop() == 0
    assert {user: one.cause for user, one in after.items()} == {user: one.cause for user, one in before.items()}
    assert {user for user, one in after.items() if one.revision} == holding
    assert len({one.list_id for one in lists(settings)}) == len(lists(settings))


@pytest.mark.usefixtures("topics")
def test_what_a_window_closes_is_gone_by_the_clock_and_what_one_opens_is_there(
    settings: Settings, tmp_path: Path
) -> None:
    now = int(time.time() * 1000)
    tomorrow = now + 86_400_000
    season: dict[str, Any] = {"item-0": {"available_until": tomorrow}, "item-1": {"available_from": tomorrow}}
    products(settings, *(CatalogueItem(item_id=item, **season.get(item, {})) for item in ITEMS))

    def held() -> set[str]:
        found = newest_lists(settings)
        return {place.item_id for place in found["ann"].items} if "ann" in found else set()

    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        publish(settings, (View(user_id="crowd", item_id=item, ts=now) for item in ITEMS))
        wait_for("something popular", lambda: newest_lists(settings))
        publish(settings, [View(user_id="ann", item_id="elsewhere", ts=now)])
        assert wait_for("ann's list", held) == set(ITEMS) - {"item-1"}
        soon = int(time.time() * 1000) + 1_500
        products(
            settings,
            CatalogueItem(item_id="item-0", available_until=soon),
            CatalogueItem(item_id="item-1", available_from=soon),
        )
        # Nothing is published from here on: the list without it is made as the moment comes.
        wait_for("a list without what has closed", lambda: "item-0" not in held())
        assert time.time() * 1000 >= soon
        again = newest_lists(settings)["ann"]
        assert (again.revision, again.times.published >= soon) == (1, True)
        wait_for("the last moment's end", lambda: "item-1" in held())
        assert worker.stop() == 0
