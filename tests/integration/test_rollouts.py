"""Releases on trial in running workers: a bad one is gone by itself, a sound one comes to serve."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmrec_stream.contracts.behaviour import View, encode_event
from mmrec_stream.contracts.rollouts import StageRecord, decode_rollout
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.rollouts import announce_release
from mmrec_stream.releases import load_release
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.integration.workers import WorkerProcess, folded, lists, newest_lists, wait_for
from tests.tiny import tiny_release, tiny_variant

# Fifty seconds on two free cores; what guards need is observations, which a busy machine makes more slowly.
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(600)]

QUICK: dict[str, Any] = {"stage": "shadow", "shadow_s": 1.0, "canary_s": 1.0, "share": 0.5}
USERS = 40

GUARDED_S = 150.0
"""s, for what takes 200 compared users, or evidence against a release: some ten on two free cores."""


@contextmanager
def traffic(settings: Settings) -> Iterator[list[int]]:
    """Shoppers look at products, all the time; gives how many events there were."""
    items, sent, stop = load_release(tiny_release()).item_ids, [0], threading.Event()

    def look() -> None:
        topic = Topics.of(settings).clicks
        with BatchProducer(settings) as producer:
            while not stop.wait(0.005):
                number = sent[0]
                event = View(
                    user_id=f"user-{number % USERS}",
                    item_id=items[number * number % len(items)],
                    ts=int(time.time() * 1000),
                )
                producer.send(topic, encode_event(event), key=event.user_id.encode())
                sent[0] += 1

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()


def stages(settings: Settings, version: str) -> dict[str, str]:
    """The stages that a release has reached, and why."""
    found: dict[str, str] = {}
    for message in read(settings, Topics.of(settings).rollouts):
        if (value := message.value()) is not None:
            told = decode_rollout(value)
            if isinstance(told, StageRecord) and told.version == version:
                found[told.stage] = told.reason
    return found


def test_bad_releases_are_gone_by_themselves_and_a_sound_one_serves_though_the_worker_starts_anew(
    settings: Settings, topics: Topics, tmp_path: Path
) -> None:
    known = load_release(tiny_release())
    announce_release(settings, tiny_release(), stage="live")
    unreadable = tiny_variant(tmp_path, "nan", item_vectors=np.full_like(known.item_vectors, np.nan))
    # Whole by every check: only lists show that its products are mixed up.
    mixed = tiny_variant(tmp_path, "mixed", ids=known.item_ids[13:] + known.item_ids[:13])
    sound = tiny_variant(tmp_path, "sound")
    with WorkerProcess(settings, tmp_path / "worker.log") as worker, traffic(settings) as sent:
        worker.wait_ready()
        announce_release(settings, unreadable, **QUICK)
        why = wait_for(
            "the withdrawal of what cannot be loaded", lambda: stages(settings, "nan").get("withdrawn"), GUARDED_S
        )
        assert "cannot load it" in why
        announce_release(settings, mixed, **(QUICK | {"shadow_s": 3600.0}))
        why = wait_for(
            "the withdrawal of mixed-up products", lambda: stages(settings, "mixed").get("withdrawn"), GUARDED_S
        )
        assert "share with the live release's what chance gives" in why
        announce_release(settings, sound, **(QUICK | {"canary_s": 600.0}))
        wait_for("the canary", lambda: "canary" in stages(settings, "sound"), GUARDED_S)
        shown = wait_for(
            "lists of both releases",
            lambda: len(found := {one.release for one in newest_lists(settings).values()}) == 2 and found,
        )
        assert shown == {"tiny-1", "sound"}
        worker.kill()
        with WorkerProcess(settings, tmp_path / "again.log") as again:
            again.wait_ready()
            status = wait_for("the worker's health page", again.status)
            assert status["release"] == "tiny-1"
            assert (status["trial"]["release"], status["trial"]["stage"]) == ("sound", "canary")
            announce_release(settings, sound, **QUICK)
            wait_for("the sound release for everybody", lambda: again.status().get("release") == "sound", GUARDED_S)
            total = sent[0]
            wait_for("every event folded", lambda: folded(settings) >= total)
    assert {one.release for one in lists(settings)} == {"tiny-1", "sound"}
    assert set(stages(settings, "sound")) == {"canary", "live"}
