"""The judge agrees with the product's fold where nothing is wrong, and finds each thing that can be."""

import random
import struct
from dataclasses import replace

import pytest

from benchmarks.storm.judge import FAULTS, read_event, read_row
from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.behaviour import decode_event
from mmrec_stream.contracts.dead_letters import Fault, encode_dead_letter
from mmrec_stream.contracts.recommendations import decode_list, encode_list
from tests.benchmarks.storm import Published, Scene, letter_of, list_for, published, worked

FEW, MANY = 4, 30


@pytest.fixture(scope="module")
def log() -> list[Published]:
    return published(1_000, MANY)


@pytest.fixture
def scene(log: list[Published]) -> Scene:
    return worked(log)


def test_nothing_is_wrong_where_nothing_is(log: list[Published], scene: Scene) -> None:
    verdict = scene.verdict()
    assert verdict.ok, verdict.examples
    assert tuple(verdict.faults) == FAULTS
    assert (verdict.users, verdict.events + verdict.bad) == (MANY, len(log))
    assert verdict.bad > 3
    assert verdict.undetermined == 0


def test_full_rings_and_carts_are_judged_and_late_events_among_them() -> None:
    log = published(600, FEW)
    scene = worked(log)
    assert scene.verdict().ok, scene.verdict().examples
    rows = [read_row(value) for _, _, value in scene.rows if value]
    assert max(len(row.ring) for row in rows) == 50
    assert max(len(row.held) for row in rows) == 8
    times = [decode_event(one.value or b"").ts for one in log if one.key == log[0].key and not _is_bad(one)]
    assert times != sorted(times)


def test_topics_may_be_taken_in_any_order(log: list[Published]) -> None:
    for seed in range(3):
        topics = [[one for one in log if one.topic == topic] for topic in ("clicks", "purchases", "feedback")]
        rng, mixed = random.Random(seed), []
        while any(topics):
            mixed.append(rng.choice([one for one in topics if one]).pop(0))
        scene = worked(mixed)
        # Times at which lists went out are those of the log, so that only what was folded can be compared.
        assert scene.found() <= {"last lists not of the last event"}


def test_a_lost_event_is_found(log: list[Published]) -> None:
    lost = _place(log, lambda one: one.topic == "purchases")
    verdict = worked(log, lose=[lost]).verdict()
    assert verdict.faults["events lost"] == 1
    assert verdict.faults["users with a wrong ring"] == 1
    assert verdict.faults["users with wrong counts"] == 1
    assert verdict.faults["events doubled"] == 0
    assert log[lost].key.decode() in verdict.examples["events lost"][0]


def test_a_doubled_event_is_found_also_beside_a_lost_one_of_the_same_user(log: list[Published]) -> None:
    of_user = [n for n, one in enumerate(log) if one.key == log[-1].key and not _is_bad(one) and one.topic == "clicks"]
    assert worked(log, double=of_user[-1:]).verdict().faults["events doubled"] == 1
    both = worked(log, double=of_user[-1:], lose=of_user[-2:-1]).verdict()
    assert both.faults["events lost"] == both.faults["events doubled"] == 0
    assert both.faults["users with a wrong ring"] == 1


def test_a_lost_impression_is_found_though_no_ring_has_it(log: list[Published]) -> None:
    lost = _place(log, lambda one: b'"impression"' in (one.value or b""))
    verdict = worked(log, lose=[lost]).verdict()
    assert (verdict.faults["events lost"], verdict.faults["users with wrong counts"]) == (1, 1)
    assert verdict.faults["users with a wrong ring"] == 0


def test_the_last_event_of_a_source_is_judged(log: list[Published]) -> None:
    verdict = worked(log, lose=[_place(log, lambda one: one.topic == "feedback")]).verdict()
    assert verdict.faults["users with wrong source offsets"] == 1


def test_a_row_that_goes_backwards_is_found_also_where_a_later_one_mends_it(scene: Scene) -> None:
    first, second, *_ = scene.rows_of(b"shopper-000001")
    scene.rows.insert(second + 1, scene.rows[first])
    assert scene.found() == {"rows going backwards"}


def test_a_row_with_more_events_and_an_older_source_goes_backwards(scene: Scene) -> None:
    # What a cut-off worker has folded beside the new owner: more of one topic, less of another.
    key = scene.rows[-1][1]
    place = scene.rows_of(key)[-2]
    partition, _, value = scene.rows[place]
    stale = bytearray(value or b"")
    struct.pack_into("<I", stale, 840, 10_000)
    struct.pack_into("<q", stale, 536, 0)
    scene.rows.insert(scene.rows_of(key)[-1], (partition, key, bytes(stale)))
    assert "rows going backwards" in scene.found()


def test_a_stale_row_that_stays_is_found_as_lost_events(scene: Scene) -> None:
    first = scene.rows_of(b"shopper-000001")[0]
    scene.rows.append(scene.rows[first])
    assert {"rows going backwards", "events lost", "users with a wrong ring"} <= scene.found()


@pytest.mark.parametrize(
    ("offset", "fault"),
    [
        (3, "users with a wrong ring"),  # a type
        (64, "users with a wrong ring"),  # an item
        (608, "users with a wrong ring"),  # a time
        (536, "users with wrong source offsets"),
        (1_008 + 4 * 12, "users with wrong counts"),
    ],
)
def test_every_byte_that_is_judged_counts(scene: Scene, offset: int, fault: str) -> None:
    partition, key, value = scene.rows[-1]
    spoilt = bytearray(value or b"")
    spoilt[offset + (2 if offset >= 1_008 else 0)] ^= 0x55
    scene.rows[-1] = partition, key, bytes(spoilt)
    assert fault in scene.found()


def test_wrong_held_items_are_found() -> None:
    scene = worked(published(300, FEW))
    place = next(n for n in range(len(scene.rows) - 1, 0, -1) if scene.rows_of(scene.rows[n][1])[-1] == n)
    partition, key, value = scene.rows[place]
    spoilt = bytearray(value or b"")
    spoilt[464] ^= 1
    scene.rows[place] = partition, key, bytes(spoilt)
    assert scene.found() == {"users with wrong held items"}


def test_a_row_of_a_newer_version_is_read_as_far_as_it_is_known(scene: Scene) -> None:
    partition, key, value = scene.rows[-1]
    scene.rows[-1] = partition, key, b"\x02" + (value or b"")[1:] + bytes(16)
    assert scene.found() == set()


def test_tombstones_unreadable_rows_and_strangers_are_found(scene: Scene) -> None:
    partition, key, value = scene.rows[-1]
    scene.rows += [(partition, key, spoilt) for spoilt in (b"", b"\x02" + (value or b"")[1:], (value or b"")[:-1])]
    scene.rows.append((partition, b"nobody", value))
    assert scene.found() == {"rows unreadable", "profiles of nobody"}
    scene.rows.append((partition, key, None))
    assert "events lost" in scene.found()


def test_a_profile_on_another_partition_is_a_strangers(scene: Scene) -> None:
    partition, key, value = scene.rows[-1]
    scene.rows.append((1 - partition, key, value))
    assert scene.found() == {"profiles of nobody"}


def test_an_acknowledged_record_that_is_gone_or_another_is_found(log: list[Published], scene: Scene) -> None:
    scene.receipts.add("clicks", 0, 1_000_000, b"{}")
    assert scene.found() == {"acknowledged, not in the log"}
    swapped = worked(log)
    swapped.receipts.add(log[0].topic, log[0].partition, log[0].offset, b"something else")
    assert swapped.verdict().faults["acknowledged, not in the log"] == 2


def test_dead_letters_are_judged_one_by_one(log: list[Published], scene: Scene) -> None:
    assert scene.letters
    scene.letters.append(scene.letters[0])
    assert scene.found() == set()  # the same key: it takes the first one's place
    assert scene.verdict().repeated_letters == 1

    missing = worked(log)
    del missing.letters[0]
    assert missing.found() == {"bad records without a letter"}

    good = next(one for one in log if not _is_bad(one))
    folded_and_buried = worked(log)
    letter = letter_of(good, Fault.INTERNAL)
    folded_and_buried.letters.append((letter.record_key, encode_dead_letter(letter)))
    assert folded_and_buried.found() == {"letters for good records"}

    for spoilt in (
        replace_letter(log, fault=Fault.MISPLACED),
        replace_letter(log, value=b"another"),
        replace_letter(log, key=b"clicks/0/0/0"),
    ):
        assert spoilt.found() == {"letters with a wrong fault, key or value"}


def replace_letter(
    log: list[Published], *, fault: Fault | None = None, value: bytes | None = None, key: bytes | None = None
) -> Scene:
    """The scene with its first letter changed."""
    scene, bad = worked(log), next(one for one in log if _is_bad(one))
    refusal = read_event(bad.value, bad.timestamp_ms)
    assert isinstance(refusal, str)
    letter = letter_of(bad if value is None else replace(bad, value=value), fault or Fault(refusal))
    scene.letters[0] = key or letter.record_key, encode_dead_letter(letter)
    return scene


def test_last_lists_are_judged(log: list[Published], scene: Scene) -> None:
    _, key, value = scene.lists[-1]
    user = key.decode()
    scene.lists = [one for one in scene.lists if one[1] != key]
    assert scene.found() == {"active users without a list"}

    older = worked(log)
    of_user = [one for one in older.lists if one[1] == key]
    older.lists.append(of_user[0])
    assert older.found() == {"last lists not of the last event"}
    assert user in older.verdict().examples["last lists not of the last event"][0]

    broken = worked(log)
    broken.lists.append((0, key, b"{}"))
    assert broken.found() == {"lists unreadable"}
    assert decode_list(value).user_id == user


def test_a_list_that_is_older_than_an_event_of_another_topic_is_stale(log: list[Published], scene: Scene) -> None:
    active = [one for one in log if not _is_bad(one) and b'"impression"' not in (one.value or b"")]
    user = next(key for key in {one.key for one in active} if len({one.topic for one in active if one.key == key}) > 1)
    last = {one.topic: one for one in active if one.key == user}
    older, newer = sorted(last.values(), key=lambda one: one.timestamp_ms)[-2:]
    scene.lists.append((older.timestamp_ms + 1, user, encode_list(list_for(older))))
    assert scene.found() == {"last lists not of the last event"}
    scene.lists[-1] = newer.timestamp_ms + 1, user, encode_list(list_for(older))
    assert scene.found() == set()  # the worker took the other topic's event first


def test_an_order_that_the_log_does_not_tell_is_not_judged() -> None:
    one = Published("clicks", 0, 0, 10_000_000_000_000, b"u", _event("view", "a", 1_790_000_000_000))
    other = replace(one, topic="feedback", value=_event("view", "b", 1_790_000_000_500))
    for order in ([one, other], [other, one]):
        verdict = worked(order).verdict()
        assert verdict.ok, verdict.examples
        assert verdict.undetermined == 1


def test_bad_records_are_bad_to_the_product_too(log: list[Published]) -> None:
    faults = set()
    for record in published(2_000, 100):
        ours, theirs = read_event(record.value, record.timestamp_ms), accept(record.value, 65_536)
        if isinstance(ours, str):
            faults.add(ours)
            assert ours == "future" or (isinstance(theirs, Refusal) and theirs.fault == ours)
        else:
            assert not isinstance(theirs, Refusal)
    assert faults == {"not_json", "invalid", "empty", "oversized", "future"}


def _event(kind: str, item: str, ts: int) -> bytes:
    return b'{"type":"%s","user_id":"u","item_id":"%s","ts":%d}' % (kind.encode(), item.encode(), ts)


def _is_bad(record: Published) -> bool:
    return isinstance(read_event(record.value, record.timestamp_ms), str)


def _place(log: list[Published], wanted: object) -> int:
    """Where the last good record lies for which `wanted` holds."""
    assert callable(wanted)
    return max(place for place, one in enumerate(log) if wanted(one) and not _is_bad(one))
