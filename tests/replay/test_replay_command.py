"""`mmrec replay` end to end: rows in = events in the topics + rejects, at the times asked for."""

import csv
import os
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from time import time
from typing import Any

import pytest

from mmrec_stream.contracts.behaviour import BehaviourRecord, View, decode_event, encode_event
from mmrec_stream.contracts.catalogue import decode_item
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.reader import read
from mmrec_stream.replay.mapping import builtin
from mmrec_stream.replay.reading import Source, read_events
from mmrec_stream.replay.rows import Reject
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

HEAD = "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"


@pytest.fixture
def october(tmp_path: Path) -> Path:
    """Two hours of 300 shoppers' events, a tenth of a minute apart; every fiftieth row has no user."""
    kinds = ["view"] * 8 + ["cart", "purchase"]
    rows = []
    for n in range(1200):
        user = "" if n % 50 == 7 else str(n * 7 % 300)
        at = f"{n * 6 // 3600:02d}:{n * 6 // 60 % 60:02d}:{n * 6 % 60:02d}"
        rows.append(f"2019-10-01 {at} UTC,{kinds[n % 10]},{n % 40},9,toys.kite,acme,{n % 40}.5,{user},s{n % 300}\n")
    path = tmp_path / "october.csv"
    path.write_text(HEAD + "".join(rows))
    return path


def events_in(settings: Settings, topics: Topics) -> dict[str, list[BehaviourRecord]]:
    return {
        topic: [decode_event(message.value() or b"") for message in read(settings, topic)]
        for topic in (topics.clicks, topics.purchases, topics.feedback)
    }


def test_every_row_is_an_event_or_a_reject(settings: Settings, topics: Topics, mmrec: Any, october: Path) -> None:
    result = mmrec(settings, "replay", str(october), "--format", "rees46")
    assert result.exit_code == 0, result.output
    chunks = list(read_events(Source(october, builtin("rees46"))))
    expected = [o for chunk in chunks for o in chunk.outcomes if not isinstance(o, Reject)]
    published = events_in(settings, topics)
    for topic, events in published.items():
        by_user: dict[str, list[BehaviourRecord]] = defaultdict(list)
        for event in events:
            by_user[event.user_id].append(event)
        wanted: dict[str, list[BehaviourRecord]] = defaultdict(list)
        for event in expected:
            if topics.of_event(event) == topic:
                wanted[event.user_id].append(event)
        assert by_user == wanted
    for message in read(settings, topics.clicks):
        assert message.partition() == partition_of(message.key() or b"", settings.partitions)
    assert re.search(r"\b1,200  rows read", result.stdout)
    assert re.search(rf"\b{len(published[topics.clicks])}  published to {re.escape(topics.clicks)}", result.stdout)
    assert re.search(r"\b24  rejected, see .*october\.csv\.rejects\.csv", result.stdout)
    assert "line 9: user_id is missing, and 23 more with a wrong user_id" in result.stdout
    with (october.parent / "october.csv.rejects.csv").open(newline="") as file:
        rejects = list(csv.DictReader(file))
    assert len(rejects) == 24
    assert rejects[0]["line"] == "9"
    assert rejects[0]["row"] == october.read_text().splitlines()[8]
    assert not list(read(settings, topics.catalogue))


def test_the_catalogue_can_be_had_from_the_file(settings: Settings, topics: Topics, mmrec: Any, october: Path) -> None:
    result = mmrec(settings, "replay", str(october), "--format", "rees46", "--catalogue")
    assert result.exit_code == 0, result.output
    items = {message.key(): decode_item(message.value() or b"") for message in read(settings, topics.catalogue)}
    assert len(items) == 40
    assert (items[b"3"].category, items[b"3"].brand, items[b"3"].price) == ("toys.kite", "acme", 3.5)


@pytest.mark.parametrize("anchor", ["first", "last"])
def test_times_can_be_moved_to_now(settings: Settings, topics: Topics, mmrec: Any, october: Path, anchor: str) -> None:
    before = time() * 1000
    result = mmrec(settings, "replay", str(october), "--format", "rees46", "--now", anchor)
    assert result.exit_code == 0, result.output
    times = sorted(event.ts for events in events_in(settings, topics).values() for event in events)
    assert times[-1] - times[0] == 1199 * 6000
    assert before <= times[0 if anchor == "first" else -1] <= time() * 1000


def test_a_replay_keeps_its_pace(settings: Settings, topics: Topics, mmrec: Any, october: Path) -> None:
    # Two hours at 3600 times the speed are two seconds.
    began_ms = time() * 1000
    result = mmrec(settings, "replay", str(october), "--format", "rees46", "--speed", "3600x")
    assert result.exit_code == 0, result.output
    by_user: dict[bytes | None, list[int]] = defaultdict(list)
    appended: dict[int, int] = {}
    for message in read(settings, topics.clicks):
        event_ms = decode_event(message.value() or b"").ts
        by_user[message.key()].append(event_ms)
        appended[event_ms] = message.timestamp()[1]
    first_ms = min(appended)
    # Nothing comes before its time; how much later it may come is up to how busy the machine is.
    early_ms = max(began_ms + (event_ms - first_ms) / 3600 - came for event_ms, came in appended.items())
    assert early_ms < 5
    assert max(appended.values()) - min(appended.values()) < 4000
    assert all(a <= b for times in by_user.values() for a, b in pairwise(times))


def test_our_own_events_need_no_format(settings: Settings, topics: Topics, mmrec: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(encode_event(View(user_id="u", item_id="i", ts=1_569_888_000_000)) + b"\n{}\n")
    result = mmrec(settings, "replay", str(path), "--rejects", str(tmp_path / "bad.csv"))
    assert result.exit_code == 0, result.output
    assert [event.user_id for event in events_in(settings, topics)[topics.clicks]] == ["u"]
    assert (tmp_path / "bad.csv").read_text().splitlines()[1].startswith("2,type,is missing")


def test_ones_own_mapping(settings: Settings, topics: Topics, mmrec: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("wann;wer;was\n01.10.2019;u1;i1\n")
    (tmp_path / "mine.toml").write_text(
        '[file]\ndelimiter = ";"\n[time]\ncolumn = "wann"\nformat = "%d.%m.%Y"\n[type]\nconstant = "purchase"\n'
        '[fields]\nuser_id = "wer"\nitem_id = "was"\n'
    )
    result = mmrec(settings, "replay", str(tmp_path / "mine.csv"), "--mapping", str(tmp_path / "mine.toml"))
    assert result.exit_code == 0, result.output
    assert [event.ts for event in events_in(settings, topics)[topics.purchases]] == [1_569_888_000_000]


def test_an_old_rejects_file_does_not_stay(settings: Settings, topics: Topics, mmrec: Any, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(encode_event(View(user_id="u", item_id="i", ts=1_569_888_000_000)) + b"\n")
    old = tmp_path / "log.jsonl.rejects.csv"
    old.write_text("of yesterday")
    assert mmrec(settings, "replay", str(path)).exit_code == 0
    assert not old.exists()


def test_a_file_of_another_kind_fails(settings: Settings, topics: Topics, mmrec: Any, october: Path) -> None:
    result = mmrec(settings, "replay", str(october), "--format", "jsonl")
    assert result.exit_code == 1
    assert "is an event: is it really jsonl?" in result.output


def test_what_a_broker_refuses_is_an_error(
    kafka_settings: Settings, kafka_topics: Topics, mmrec: Any, tmp_path: Path
) -> None:
    Cluster(kafka_settings).set_config(kafka_topics.clicks, {"max.message.bytes": "200"})
    path = tmp_path / "log.jsonl"
    wide = View(user_id="u" * 100, item_id="i" * 100, ts=1_569_888_000_000, brand="b" * 200)
    path.write_bytes(encode_event(wide) + b"\n")
    result = mmrec(kafka_settings, "replay", str(path))
    assert result.exit_code == 1
    assert "1 records were not delivered" in result.output
    assert kafka_topics.clicks in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x.csv"], "say what x.csv is"),
        (["x.csv", "--format", "csv"], "--mapping"),
        (["x.csv", "--format", "amazon"], "'amazon'"),
        (["x.csv", "--format", "rees46", "--mapping", "m.toml"], "contradict"),
        (["x.csv", "--format", "rees46", "--speed", "fast"], "--speed fast"),
        (["x.csv", "--format", "rees46", "--anonymous-as", "invoice"], "nothing called 'invoice'"),
        (["x.csv", "--mapping", "gone.toml"], "gone.toml"),
    ],
)
def test_mistakes_are_told_before_anything_is_published(mmrec: Any, arguments: list[str], complaint: str) -> None:
    nowhere = Settings(_env_file=None, bootstrap="127.0.0.1:1")  # type: ignore[call-arg]
    result = mmrec(nowhere, "replay", *arguments)
    assert result.exit_code == 1
    assert complaint in result.output
    assert "Traceback" not in result.output


@pytest.mark.data
def test_the_whole_rees46_sample(settings: Settings, topics: Topics, mmrec: Any, tmp_path: Path) -> None:
    if "MMREC_DATA" not in os.environ:
        pytest.skip("needs the real data sets: set MMREC_DATA")
    path = Path(os.environ["MMREC_DATA"]) / "rees46_2019oct_sample" / "2019-Oct_first_rows.csv"
    result = mmrec(
        settings, "replay", str(path), "--format", "rees46", "--catalogue", "--rejects", str(tmp_path / "rejects.csv")
    )
    assert result.exit_code == 0, result.output
    published = events_in(settings, topics)
    counts = Counter(type(event).__name__ for events in published.values() for event in events)
    assert counts == {"View": 17055, "AddToCart": 165, "Purchase": 214}
    assert not (tmp_path / "rejects.csv").exists()
    assert sum(1 for _ in read(settings, topics.catalogue)) == 6493
