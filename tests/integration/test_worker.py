"""The whole way of an event, on every broker: worker processes, real topics, real lists."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from mmrec_stream.contracts.behaviour import (
    AddToCart,
    BehaviourEvent,
    Click,
    Impression,
    Purchase,
    View,
    encode_event,
)
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.dead_letters import Fault
from mmrec_stream.contracts.identity import id_key, list_id, partition_of
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec, topic_plan
from tests.integration.workers import (
    FAUST,
    WorkerProcess,
    dead_letters,
    folded,
    length,
    lists,
    newest_lists,
    profiles,
    publish,
    wait_for,
)

pytestmark = pytest.mark.broker


def now_ms() -> int:
    return int(time.time() * 1000)


def views(count: int, users: int = 50, items: int = 30) -> list[BehaviourEvent]:
    start = now_ms() - count
    kinds = [View, View, Click, AddToCart, Purchase]
    return [
        kinds[n % 5](user_id=f"user-{n % users}", item_id=f"item-{n * 7 % items}", ts=start + n) for n in range(count)
    ]


def test_every_event_is_folded_once_and_every_user_gets_a_list(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    count = publish(settings, views(3_000))
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        wait_for("all events folded", lambda: folded(settings) == count)
        users = {f"user-{n}" for n in range(50)}
        wait_for("a list for everybody", lambda: set(newest_lists(settings)) == users)
        assert worker.stop() == 0
    assert dead_letters(settings) == []
    for one in lists(settings):
        assert one.list_id == list_id(one.user_id, one.cause.topic, one.cause.partition, one.cause.offset, one.release)
        times = one.times
        assert times.event <= times.appended + 1
        assert times.fetched <= times.folded <= times.scored <= times.published
        assert one.cause.partition == partition_of(one.user_id.encode(), settings.partitions)
        assert one.items


def test_a_restarted_worker_restores_its_table_and_goes_on(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    first = publish(settings, views(1_000))
    with WorkerProcess(settings, tmp_path / "first.log") as worker:
        worker.wait_ready()
        wait_for("the first events folded", lambda: folded(settings) == first)
        assert worker.stop() == 0
    before = profiles(settings)
    second = publish(settings, views(500))
    with WorkerProcess(settings, tmp_path / "second.log") as worker:
        worker.wait_ready()
        wait_for("the rest folded on top", lambda: folded(settings) == first + second)
    after = profiles(settings)
    assert {user: int(after[user]["events"]) - int(before[user]["events"]) for user in before} == dict.fromkeys(
        before, 10
    )


def test_two_workers_share_the_partitions_and_hand_them_over(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    everything = set(range(settings.partitions))
    with WorkerProcess(settings, tmp_path / "one.log") as one:
        one.wait_ready(everything)
        count = publish(settings, views(1_000))
        with WorkerProcess(settings, tmp_path / "two.log") as two:
            two.wait_ready()
            wait_for(
                "two workers with all partitions between them",
                lambda: (
                    sorted(one.status()["partitions"] + two.status()["partitions"]) == sorted(everything)
                    and one.status()["ready"]
                ),
            )
            count += publish(settings, views(1_000))
            wait_for("both shares folded", lambda: folded(settings) == count)
            assert all(worker.status()["profiles"] for worker in (one, two))
            assert two.stop() == 0
        one.wait_ready(everything)
        count += publish(settings, views(1_000))
        wait_for("all folded by the one that stayed", lambda: folded(settings) == count)
        assert one.status()["profiles"] == 50


def test_bad_input_goes_to_the_dead_letters_whole_and_harms_nothing(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    oversized = b'{"type":"view","user_id":"ann","item_id":"x","ts":%d,"note":"%s"}' % (now_ms(), b"y" * 70_000)
    stranger = next(f"user-{n}" for n in range(99) if partition_of(f"user-{n}".encode(), settings.partitions) != 0)
    poison = {
        Fault.NOT_JSON: b"\xff\xfe not json",
        Fault.INVALID: b'{"type":"view","user_id":"ann","ts":%d}' % now_ms(),
        Fault.EMPTY: None,
        Fault.OVERSIZED: oversized,
        Fault.FUTURE: encode_event(View(user_id="ann", item_id="x", ts=now_ms() + 10**9)),
        Fault.MISPLACED: encode_event(View(user_id=stranger, item_id="x", ts=now_ms())),
    }
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        with BatchProducer(settings) as producer:
            for fault, value in poison.items():
                where = 0 if fault is Fault.MISPLACED else None
                producer.send(topics.clicks, value, key=b"ann", partition=where)
        count = publish(settings, views(500))
        wait_for("the good events folded", lambda: folded(settings) == count)
        letters = wait_for("all dead letters", lambda: len(found := dead_letters(settings)) == len(poison) and found)
        assert worker.status()["well"]
    assert {letter.fault: letter.value for letter in letters} == poison
    assert all((letter.origin.topic, letter.key) == (topics.clicks, b"ann") for letter in letters)
    assert "item_id" in next(letter.detail for letter in letters if letter.fault is Fault.INVALID)


def test_a_user_nobody_knows_gets_what_is_popular(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    with BatchProducer(settings) as producer:
        producer.send(topics.catalogue, encode_item(CatalogueItem(item_id="hit")), key=b"hit")
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        crowd = [View(user_id=f"user-{n}", item_id="hit" if n % 2 else f"item-{n}", ts=now_ms()) for n in range(200)]
        publish(settings, crowd)
        wait_for("the crowd folded", lambda: folded(settings) == 200)
        publish(settings, [View(user_id="newcomer", item_id="never seen before", ts=now_ms())])
        one = wait_for("the newcomer's list", lambda: newest_lists(settings).get("newcomer"))
        assert worker.stop() == 0
    # A worker that has just started knows it from the profiles that it restored.
    with WorkerProcess(settings, tmp_path / "second.log") as worker:
        worker.wait_ready()
        publish(settings, [View(user_id="latecomer", item_id="never seen before", ts=now_ms())])
        other = wait_for("the latecomer's list", lambda: newest_lists(settings).get("latecomer"))
    for found in (one, other):
        assert found.strategy == "popular"
        assert found.items[0].item_id == "hit"


def test_lists_leave_out_what_is_held_unavailable_or_withdrawn(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    out = {"in the cart", "just bought", "sold out", "withdrawn"}
    with BatchProducer(settings) as producer:
        for name in (*out, "fine"):
            item = CatalogueItem(item_id=name, stock=0 if name == "sold out" else 5)
            producer.send(topics.catalogue, encode_item(item), key=name.encode())
        producer.send(topics.catalogue, None, key=b"withdrawn")
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        publish(settings, [View(user_id="bob", item_id=name, ts=now_ms()) for name in (*out, "fine")])
        wait_for("everything is popular", lambda: folded(settings) == 5)
        publish(
            settings,
            [
                AddToCart(user_id="ann", item_id="in the cart", ts=now_ms()),
                Purchase(user_id="ann", item_id="just bought", ts=now_ms()),
            ],
        )
        wait_for("ann's events folded", lambda: folded(settings) == 7)
        one = wait_for(
            "ann's list after her purchase",
            lambda: (found := newest_lists(settings).get("ann")) and found.cause.offset and found,
        )
        assert [item.item_id for item in one.items] == ["fine"]
        # A withdrawal counts from the moment it is published.
        with BatchProducer(settings) as producer:
            producer.send(topics.catalogue, None, key=b"fine")

        def nothing_left() -> bool:
            publish(settings, [View(user_id="ann", item_id="just bought", ts=now_ms())])
            return newest_lists(settings)["ann"].items == []

        wait_for("a list without the withdrawn item", nothing_left)


def test_impressions_are_folded_and_bring_no_list(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        shown = [
            Impression(user_id="ann", item_id=f"item-{n}", list_id="l", position=n, ts=now_ms()) for n in range(20)
        ]
        publish(settings, shown)
        wait_for("impressions folded", lambda: folded(settings) == 20)
        publish(settings, [View(user_id="bob", item_id="item-1", ts=now_ms())])
        wait_for("bob's list", lambda: "bob" in newest_lists(settings))
        assert set(newest_lists(settings)) == {"bob"}


def test_plain_faust_starts_the_same_worker(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    count = publish(settings, views(200))
    with WorkerProcess(settings, tmp_path / "faust.log", FAUST) as worker:
        worker.wait_ready()
        wait_for("all events folded", lambda: folded(settings) == count)
        assert worker.stop() == 0


def test_a_shops_own_topic_takes_part(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    own = f"{settings.prefix}shop-events"
    Cluster(settings).create([TopicSpec(own, "user id", settings.partitions, 1)])
    with WorkerProcess(settings, tmp_path / "worker.log", behaviour_topics=own) as worker:
        worker.wait_ready()
        with BatchProducer(settings) as producer:
            for event in views(100):
                producer.send(own, encode_event(event), key=event.user_id.encode())
        publish(settings, views(100))
        wait_for("both topics folded", lambda: folded(settings) == 200)
    newest = profiles(settings)["user-1"]
    assert id_key("item-7") in newest["items"]


@pytest.mark.kafka
def test_a_list_that_cannot_be_delivered_ends_the_worker_and_nothing_is_lost(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    settings = kafka_settings
    names = Topics.of(settings)
    plan = [
        replace(spec, config={"max.message.bytes": "200"}) if spec.name == names.recommendations else spec
        for spec in topic_plan(settings)
    ]
    cluster = Cluster(settings)
    cluster.create(plan)
    with WorkerProcess(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        publish(settings, views(50))
        assert worker.process.wait(60) != 0
    assert "was not delivered" in worker.log.read_text()
    committed = cluster.committed(settings.app_id, [names.clicks])
    assert not any(committed.get((names.clicks, partition), 0) for partition in range(settings.partitions))
    # The operator mends the topic: the same events are read again and bring their lists.
    cluster.set_config(names.recommendations, {"max.message.bytes": "1000000"})
    with WorkerProcess(settings, tmp_path / "second.log") as worker:
        worker.wait_ready()
        wait_for("a list for everybody", lambda: len(newest_lists(settings)) == 50)
        wait_for("all events folded", lambda: folded(settings) == 50)


@pytest.mark.kafka
def test_kill_9_in_the_middle_loses_and_doubles_nothing(
    kafka_settings: Settings, kafka_topics: Topics, tmp_path: Path
) -> None:
    settings = kafka_settings
    count = 0
    for attempt in range(3):
        with WorkerProcess(settings, tmp_path / f"{attempt}.log") as worker:
            worker.wait_ready()
            count += publish(settings, views(20_000, users=2_000))
            wait_for("some of it is on its way", lambda: length(settings, f"{settings.app_id}-profiles-changelog") > 0)
            wait_for("the worker is at it", lambda: worker.status()["positions"])
            worker.kill()
    with WorkerProcess(settings, tmp_path / "last.log") as worker:
        worker.wait_ready()
        wait_for("everything folded", lambda: folded(settings) >= count, 90)
        wait_for("nothing under way", lambda: not worker.status()["open_chunks"])
    assert folded(settings) == count
    per_user = Counter(event.user_id for event in views(20_000, users=2_000) * 3)
    assert {user: int(record["events"]) for user, record in profiles(settings).items()} == per_user
    users = {one.user_id for one in lists(settings)}
    assert users == set(per_user)
