"""`mmrec audit` finds what was lost or counted twice, by name, and nothing else."""

import json
from collections.abc import Callable
from typing import Any

from mmrec_stream.contracts.behaviour import Forget, encode_event
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.profiles.record import VERSION
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from tests.cli.folding import NOW, click, delete_before, fold_log, publish
from tests.conftest import Outcome

Mmrec = Callable[..., Outcome]
USERS = [f"user-{number}" for number in range(40)]


def place_of(settings: Settings, topic: str, user: str, offset: int) -> tuple[str, int, int]:
    return topic, partition_of(user.encode(), settings.partitions), offset


def audited(mmrec: Mmrec, settings: Settings) -> tuple[int, dict[str, Any]]:
    outcome = mmrec(settings, "audit", "--json")
    return outcome.exit_code, json.loads(outcome.stdout)


def test_a_log_folded_whole_agrees(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [(user, click(user)) for user in USERS * 3])
    publish(settings, topics.purchases, [(user, click(user)) for user in USERS[:5]])
    fold_log(settings)
    status, found = audited(mmrec, settings)
    assert status == 0
    assert (found["users"], found["agreeing"], found["ok"]) == (40, 40, True)
    assert sum(source["folded"] for source in found["sources"]) == 125
    table = mmrec(settings, "audit")
    assert table.exit_code == 0
    assert "users: 40; agree: 40" in table.stdout
    assert "the profiles agree with the log" in table.stdout


def test_bad_events_are_accounted_for_by_their_dead_letters(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    bad = [("u", b"not json"), ("u", b'{"type":"click"}'), ("u", None), ("u", b"[" * 70_000)]
    publish(settings, topics.clicks, [("u", click("u")), *bad, ("u", click("u"))])
    fold_log(settings)
    status, found = audited(mmrec, settings)
    assert status == 0
    assert found["dead_letters"] == {"not_json": 1, "invalid": 1, "empty": 1, "oversized": 1}
    assert sum(source["dead"] for source in found["sources"]) == 4


def test_a_changelog_with_deletions_rubbish_and_a_newer_workers_rows_is_read(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    publish(settings, topics.clicks, [("ann", click("ann")), ("bob", click("bob"))])
    fold_log(settings)
    changelog = changelog_topic(settings)
    rows = {message.key(): message.value() or b"" for message in read(settings, changelog)}
    with BatchProducer(settings) as producer:
        for key, value in rows.items():
            producer.send(changelog, bytes([VERSION + 1]) + value[1:] + b"more", key=key)
        producer.send(changelog, None, key=b"never-seen")
        producer.send(changelog, rows[b"ann"], key=b"\xff")
        producer.send(changelog, b"rubbish", key=b"bob")
    status, found = audited(mmrec, settings)
    assert status == 0
    assert (found["users"], found["agreeing"], found["unreadable_profiles"]) == (2, 2, 2)
    assert "2 changelog records are no profile" in mmrec(settings, "audit").stdout


def test_what_is_missing_of_a_user_who_asked_to_be_forgotten_is_no_loss(
    settings: Settings, topics: Topics, mmrec: Mmrec
) -> None:
    publish(settings, topics.clicks, [(user, click(user)) for user in ("ann", "bob", "eve") for _ in range(3)])
    mine = {user: first_offset(settings, topics, user) for user in ("ann", "bob", "eve")}
    forget = encode_event(Forget(user_id="ann", ts=NOW))
    publish(settings, topics.feedback, [("ann", forget), ("never-seen", forget.replace(b"ann", b"never-seen"))])
    erased = [place_of(settings, topics.clicks, "ann", mine["ann"] + number) for number in range(3)]
    lost = place_of(settings, topics.clicks, "bob", mine["bob"] + 2)
    fold_log(settings, lose=[*erased, lost])
    status, found = audited(mmrec, settings)
    assert status == 1
    assert [(fault["user"], fault["in_log"], fault["folded"]) for fault in found["faults"]] == [("bob", 3, 2)]
    assert found["lost_records"] == [list(lost)]
    assert (found["users"], found["agreeing"], found["forgotten_users"], found["unjudged_users"]) == (3, 1, 1, 1)
    counts = {name: sum(source[name] for source in found["sources"]) for name in ("erased", "lost", "folded")}
    assert counts == {"erased": 5, "lost": 1, "folded": 5}
    assert "1 users asked to be forgotten" in mmrec(settings, "audit").stdout


def test_bad_events_without_dead_letters_are_lost(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("u", b"not json"), ("u", click("u"))])
    fold_log(settings, letters=False)
    status, found = audited(mmrec, settings)
    assert status == 1
    assert found["lost_records"] == [list(place_of(settings, topics.clicks, "u", 0))]


def test_lost_and_doubled_events_are_named(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    for user in ("ann", "bob", "eve"):
        publish(settings, topics.clicks, [(user, click(user)) for _ in range(10)])
    mine = {user: first_offset(settings, topics, user) for user in ("ann", "bob", "eve")}
    fold_log(
        settings,
        lose=[place_of(settings, topics.clicks, "ann", mine["ann"] + 3)],
        double=[place_of(settings, topics.clicks, "bob", mine["bob"])],
    )
    status, found = audited(mmrec, settings)
    assert status == 1
    assert found["faults"] == [
        {"user": "ann", "in_log": 10, "folded": 9},
        {"user": "bob", "in_log": 10, "folded": 11},
    ]
    assert found["agreeing"] == 1
    text = mmrec(settings, "audit").stdout
    assert "lost user 'ann': 10 events in the log, 9 folded" in text
    assert "doubled user 'bob': 10 events in the log, 11 folded" in text
    assert "'eve'" not in text


def test_a_user_whose_only_event_is_lost_is_named(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("ghost", click("ghost"))])
    fold_log(settings, lose=[place_of(settings, topics.clicks, "ghost", 0)])
    status, found = audited(mmrec, settings)
    assert status == 1
    assert found["faults"] == [{"user": "ghost", "in_log": 1, "folded": 0}]
    assert found["lost_records"] == [list(place_of(settings, topics.clicks, "ghost", 0))]


def test_events_under_way_are_pending_and_no_fault(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("u", click("u")) for _ in range(10)])
    publish(settings, topics.clicks, [("u", b"not json")])
    fold_log(settings, up_to={topics.clicks: 4})
    status, found = audited(mmrec, settings)
    assert status == 0
    assert sum(source["pending"] for source in found["sources"]) == 7


def test_before_any_worker_everything_is_pending(settings: Settings, topics: Topics, mmrec: Mmrec) -> None:
    publish(settings, topics.clicks, [("u", click("u"))])
    status, found = audited(mmrec, settings)
    assert status == 0
    assert (found["users"], sum(source["pending"] for source in found["sources"])) == (0, 1)


def test_a_deleted_beginning_is_said_and_not_taken_for_doubles(
    kafka_settings: Settings, kafka_topics: Topics, mmrec: Mmrec
) -> None:
    publish(kafka_settings, kafka_topics.clicks, [("u", click("u")) for _ in range(10)])
    fold_log(kafka_settings)
    partition = partition_of(b"u", kafka_settings.partitions)
    delete_before(kafka_settings, kafka_topics.clicks, partition, 6)
    status, found = audited(mmrec, kafka_settings)
    assert status == 0
    assert (found["unjudged_users"], found["agreeing"]) == (1, 0)
    assert "whose beginning retention has deleted" in " ".join(mmrec(kafka_settings, "audit").stdout.split())


def test_a_missing_changelog_is_a_readable_line(settings: Settings, mmrec: Mmrec) -> None:
    outcome = mmrec(settings, "audit")
    assert outcome.exit_code == 1
    assert "`mmrec topics` creates ours" in outcome.stderr


def first_offset(settings: Settings, topics: Topics, user: str) -> int:
    offsets = [message.offset() for message in read(settings, topics.clicks) if message.key() == user.encode()]
    return int(offsets[0])
