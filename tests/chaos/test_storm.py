"""Workers killed, stopped and started while events flow: every event is folded once, and every user gets a list."""

import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from mmrec_stream.contracts.behaviour import AddToCart, BehaviourEvent, Click, Purchase, View, encode_event
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.workers import WorkerProcess, folded, lists, profiles, wait_for

EVENTS = 60_000
RATE = 3_000
USERS = 3_000


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_storm_loses_and_doubles_nothing(kafka_settings: Settings, kafka_topics: Topics, tmp_path: Path) -> None:
    settings, rng = kafka_settings, random.Random(4)
    events = [_event(rng) for _ in range(EVENTS)]
    flow = threading.Thread(target=_publish_at_rate, args=(settings, events))
    workers = [WorkerProcess(settings, tmp_path / "0.log"), WorkerProcess(settings, tmp_path / "1.log")]
    try:
        for worker in workers:
            worker.wait_ready()
        flow.start()
        for number in range(2, 8):
            victim = rng.randrange(2)
            if number % 2:
                workers[victim].kill()
            else:
                assert workers[victim].stop() == 0
            workers[victim] = WorkerProcess(settings, tmp_path / f"{number}.log").wait_ready()
        flow.join()
        wait_for("everything folded", lambda: folded(settings) >= EVENTS, 120)
        wait_for("nothing under way", lambda: not any(worker.status()["open_chunks"] for worker in workers))
    finally:
        for worker in workers:
            worker.kill()
    per_user = Counter(event.user_id for event in events)
    assert {user: int(record["events"]) for user, record in profiles(settings).items()} == per_user
    assert {one.user_id for one in lists(settings)} == set(per_user)


def _event(rng: random.Random) -> BehaviourEvent:
    kind = rng.choice([View, View, View, Click, AddToCart, Purchase])
    made: BehaviourEvent = kind(
        user_id=f"user-{rng.randrange(USERS)}", item_id=f"item-{rng.randrange(500)}", ts=int(time.time() * 1000)
    )
    return made


def _publish_at_rate(settings: Settings, events: list[BehaviourEvent]) -> None:
    topics, began = Topics.of(settings), time.monotonic()
    with BatchProducer(settings) as producer:
        for number, event in enumerate(events):
            producer.send(topics.of_event(event), encode_event(event), key=event.user_id.encode())
            ahead = began + number / RATE - time.monotonic()
            if ahead > 0.01:
                time.sleep(ahead)
