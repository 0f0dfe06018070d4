"""`mmrec simulate` end to end: what lies in the topics or files afterwards is what it said and what workers need."""

import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import pytest

from mmrec_stream.contracts.behaviour import BehaviourEvent, Click, Follow, Impression, decode_event
from mmrec_stream.contracts.catalogue import decode_item
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Recommended, Times, encode_list
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.simulator.reactions import Merged
from mmrec_stream.topics import Topics
from tests.conftest import environment

SMALL = ("--users", "60", "--items", "80", "--seed", "3")


def test_topics_hold_the_catalogue_the_log_and_live_events(settings: Settings, topics: Topics, mmrec: Any) -> None:
    before = time() * 1000
    result = mmrec(settings, "simulate", *SMALL, "--days-before", "3", "--rate", "100", "--seconds", "1.5")
    assert result.exit_code == 0, result.output
    items = [decode_item(message.value() or b"") for message in read(settings, topics.catalogue)]
    assert len({item.item_id for item in items}) > 60
    by_user: dict[tuple[str, str], list[BehaviourEvent]] = defaultdict(list)
    counts: Counter[str] = Counter({topics.catalogue: len(items)})
    events: list[BehaviourEvent] = []
    for topic in (topics.clicks, topics.purchases, topics.feedback):
        for message in read(settings, topic):
            event = decode_event(message.value() or b"")
            assert message.key() == event.user_id.encode()
            assert message.partition() == partition_of(event.user_id.encode(), settings.partitions)
            assert topics.of_event(event) == topic
            assert message.timestamp()[1] >= before - 1000
            by_user[topic, event.user_id].append(event)
            events.append(event)
            counts[topic] += 1
    assert all(a.ts <= b.ts for log in by_user.values() for a, b in pairwise(log))
    live = [event for event in events if event.ts >= before]
    assert len(live) == pytest.approx(150, rel=0.6)
    assert len(events) - len(live) > 300
    printed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in result.stdout.splitlines()}
    assert printed == counts


def test_shoppers_click_on_the_lists_that_are_published_for_them(settings: Settings, topics: Topics) -> None:
    # Lists of all items for every shopper, until a click on one comes back.
    names = [f"item-{row:02d}" for row in range(80)]
    command = [sys.executable, "-c", "from mmrec_stream.cli import main; main()", "simulate"]
    options = [*SMALL, "--days-before", "0", "--rate", "20"]
    process = subprocess.Popen(
        [*command, *options], env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        with BatchProducer(settings) as producer:
            deadline = monotonic() + 40
            while not (
                clicked := [e for e in _feedback(settings, topics.clicks) if isinstance(e, Click) and e.list_id]
            ):
                assert monotonic() < deadline, "no list was clicked"
                for user in range(60):
                    shown = _list(f"user-{user:02d}", names[:20])
                    producer.send(topics.recommendations, encode_list(shown), key=shown.user_id.encode())
                producer.flush()
                sleep(0.2)
        seen = [e for e in _feedback(settings, topics.feedback) if isinstance(e, Impression)]
        assert {(e.list_id, e.position) for e in clicked} <= {(e.list_id, e.position) for e in seen}
        # Ctrl-C ends it well: what was counted lies in the topics.
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        sent = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in printed.splitlines()}
        assert sent[topics.clicks] == sum(1 for _ in read(settings, topics.clicks))
    finally:
        process.kill()
        process.wait(10)


def test_files_hold_a_log_and_the_items_that_it_is_about(tmp_path: Path, mmrec: Any) -> None:
    nowhere = Settings(_env_file=None)  # type: ignore[call-arg]
    result = mmrec(
        nowhere, "simulate", *SMALL, "--days-before", "2", "--rate", "50", "--seconds", "5", "--out", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    events = [decode_event(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    items = [decode_item(line) for line in (tmp_path / "catalogue.jsonl").read_bytes().splitlines()]
    assert {e.item_id for e in events if not isinstance(e, Follow)} <= {item.item_id for item in items}
    assert events[-1].ts > time() * 1000 > events[0].ts
    assert f"{len(events):,}" in result.stdout


def test_endless_files_are_refused(tmp_path: Path, mmrec: Callable[..., Any]) -> None:
    result = mmrec(Settings(_env_file=None), "simulate", "--out", str(tmp_path / "x"))  # type: ignore[call-arg]
    assert result.exit_code == 1
    assert "--seconds" in result.output
    assert not (tmp_path / "x").exists()


def test_missing_topics_are_named_with_what_to_do(settings: Settings, mmrec: Any) -> None:
    result = mmrec(settings, "simulate", *SMALL)
    assert result.exit_code == 1
    assert f"{settings.prefix}clicks" in result.output
    assert "mmrec topics" in result.output


def test_reactions_come_among_the_events_by_time() -> None:
    def click(ts: int) -> Click:
        return Click(user_id="u", item_id="i", ts=ts)

    merged = Merged([click(10), click(20), click(30)])
    merged.add([click(25), click(5)])
    order = []
    for event in merged:
        order.append(event.ts)
        if event.ts == 20:
            merged.add([click(40), click(22)])
    assert order == [5, 10, 20, 22, 25, 30, 40]


def _feedback(settings: Settings, topic: str) -> list[BehaviourEvent]:
    return [decode_event(message.value() or b"") for message in read(settings, topic)]


def _list(user: str, names: list[str]) -> RecommendationList:
    now = time() * 1000
    times = Times(event=now, appended=now, fetched=now, folded=now, scored=now, published=now)
    items = [Recommended(item_id=name, score=1.0) for name in names]
    cause = Cause(topic="t", partition=0, offset=0)
    return RecommendationList(
        list_id=f"l-{user}-{now}", user_id=user, items=items, release="r", strategy="hybrid", cause=cause, times=times
    )
