"""`mmrec send` publishes one checked event; `mmrec tail` shows what lies and what comes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from mmrec_stream.contracts.behaviour import decode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.dead_letters import DeadLetter, Fault, Origin, encode_dead_letter
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.contracts.recommendations import (
    Cause,
    RecommendationList,
    Recommended,
    Times,
    encode_list,
)
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from tests.cli.folding import NOW, click, publish
from tests.conftest import Outcome, environment

Mmrec = Callable[..., Outcome]


@pytest.mark.parametrize(
    ("args", "topic", "fields"),
    [
        (["click", "ann", "sofa"], "clicks", {"type": "click", "item_id": "sofa"}),
        (["click", "ann", "sofa", "--list", "l1", "--position", "3"], "clicks", {"list_id": "l1", "position": 3}),
        (["purchase", "ann", "sofa", "--quantity", "2", "--order", "o1"], "purchases", {"quantity": 2}),
        (["rating", "ann", "sofa", "--rating", "4.5"], "feedback", {"rating": 4.5}),
        (["follow", "ann", "--brand", "Norrsken"], "feedback", {"brand": "Norrsken"}),
        (["follow", "ann", "--followed", "bob"], "feedback", {"followed_user_id": "bob"}),
        (["--json", click("ann", "chair").decode()], "clicks", {"item_id": "chair", "ts": NOW}),
    ],
)
def test_an_event_goes_where_it_belongs(
    settings: Settings, topics: Topics, mmrec: Mmrec, args: list[str], topic: str, fields: dict[str, object]
) -> None:
    outcome = mmrec(settings, "send", *args)
    assert outcome.exit_code == 0, outcome.output
    (message,) = read(settings, getattr(topics, topic))
    partition = partition_of(b"ann", settings.partitions)
    assert (message.partition(), message.key()) == (partition, b"ann")
    assert outcome.stdout.strip() == f"{getattr(topics, topic)}, partition {partition}, offset 0"
    assert json.loads(message.value()).items() >= fields.items()
    assert abs(decode_event(message.value()).ts - time.time() * 1000) < 3_600_000


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["click", "ann"], "missing required field `item_id`"),
        (["click", "ann", "sofa", "--rating", "3"], "a click has no rating"),
        (["rating", "ann", "sofa", "--rating", "7"], "`$.rating`"),
        (["follow", "ann"], "either `followed_user_id` or `brand`"),
        (["click"], "mmrec send TYPE USER ITEM"),
        (["click", "ann", "sofa", "--ts", "1700000000"], "`$.ts`"),
        (["--json", "{"], "no valid event"),
        (["click", "ann", "sofa", "--json", "{}"], "--json is the whole event"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_sent(mmrec: Mmrec, args: list[str], complaint: str) -> None:
    outcome = mmrec(Settings(_env_file=None, bootstrap="127.0.0.1:1"), "send", *args)  # type: ignore[call-arg]
    assert outcome.exit_code == 1
    assert complaint in outcome.stderr


def test_sending_without_topics_says_what_to_do(settings: Settings, mmrec: Mmrec) -> None:
    outcome = mmrec(settings, "send", "click", "ann", "sofa")
    assert outcome.exit_code == 1
    assert "mmrec topics" in outcome.stderr


def test_lists_are_shown_with_titles_scores_and_latency(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    sofa = CatalogueItem(item_id="sofa", title="Blue sofa")
    with BatchProducer(settings, idempotent=False) as producer:
        producer.send(topics.catalogue, encode_item(sofa), key=b"sofa")
        for user in ("ann", "bob"):
            producer.send(topics.recommendations, encode_list(a_list(user)), key=user.encode())
    outcome = mmrec(settings, "tail", "recommendations", "--from-start", "--user", "ann", "-n", "1", "--top", "1")
    assert outcome.exit_code == 0, outcome.output
    head, way, first = outcome.stdout.splitlines()
    assert head.endswith("ann: 2 items, hybrid, release r1, α 0.40")
    assert way.strip() == "8.0 ms: fetched 1.0, folded 2.0, scored 4.0, published 1.0"
    assert first.split() == ["1.", "0.9000", "user", "0.5000", "item", "0.4000", "Blue", "sofa", "(sofa)"]


def test_json_lines_are_whole(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("ann", click("ann"))])
    outcome = mmrec(settings, "tail", "clicks", "--from-start", "--json", "-n", "1")
    document = json.loads(outcome.stdout)
    assert document["topic"] == topics.clicks
    assert (document["offset"], document["key"]) == (0, "ann")
    assert document["value"] == json.loads(click("ann"))


def test_other_topics_are_readable_too(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    letter = DeadLetter(
        fault=Fault.INVALID,
        detail="missing `item_id`",
        origin=Origin(topic="clicks", partition=1, offset=7),
        value=b"{}",
        noticed=NOW,
    )
    with BatchProducer(settings, idempotent=False) as producer:
        producer.send(topics.dead_letters, encode_dead_letter(letter), key=letter.record_key)
        producer.send(topics.dead_letters, None, key=letter.record_key)
        producer.send(topics.clicks, b"\x1b[2Jnot an event", key=b"ann", partition=0)
    letters = mmrec(settings, "tail", "dead-letters", "--from-start", "-n", "2").stdout
    assert "clicks/1/7: invalid: missing `item_id`: b'{}'" in letters
    assert "clicks/1/7: published again" in letters
    broken = mmrec(settings, "tail", "clicks", "--from-start", "-n", "1").stdout
    assert "0/0 cannot be read" in broken
    assert "\x1b" not in broken


def test_it_follows_what_comes(settings: Settings, topics: Topics) -> None:
    publish(settings, topics.clicks, [("early", click("early"))])
    command = [sys.executable, "-c", "from mmrec_stream.cli import main; main()", "tail", "clicks", "-n", "3"]
    following = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(settings))
    sent = 0
    while following.poll() is None:  # it starts at an end that only it knows: publish until it has seen three
        sent += 1
        publish(settings, topics.clicks, [("late", click("late", item=f"item-{sent}"))])
    lines = following.communicate()[0].splitlines()
    items = [next(word for word in line.split() if word.startswith("item-")) for line in lines]
    first = int(items[0].removeprefix("item-"))
    assert items == [f"item-{number}" for number in range(first, first + 3)]
    assert "early" not in "".join(lines)


def a_list(user: str) -> RecommendationList:
    base = float(NOW)
    return RecommendationList(
        list_id="l1",
        user_id=user,
        items=[
            Recommended(item_id="sofa", score=0.9, p_user=0.5, p_item=0.4),
            Recommended(item_id="chair", score=0.1),
        ],
        release="r1",
        strategy="hybrid",
        cause=Cause(topic="clicks", partition=0, offset=0),
        times=Times(
            event=base - 50, appended=base, fetched=base + 1, folded=base + 3, scored=base + 7, published=base + 8
        ),
        alpha=0.4,
    )
