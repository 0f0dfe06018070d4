"""The judge of a storm: whether profiles, lists and dead letters are what the log of events asks for.

It knows topics and the documented bytes and fields of what lies in them, and nothing else: it shares no code with the
worker, its fold or `mmrec audit`, so that a mistake of theirs is not a mistake of its own. What is slow and plain here
is meant to be: one event after the other, in Python's own lists and dictionaries.
"""

import base64
import binascii
import json
import struct
from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from zlib import crc32

from xxhash import xxh3_64_intdigest

Place = tuple[str, int, int]
"""Topic, partition, offset."""

User = tuple[int, str]
"""Partition and id: a user who has a profile on two partitions is two."""

CODES = {
    "view": 1,
    "click": 2,
    "add_to_cart": 3,
    "remove_from_cart": 4,
    "purchase": 5,
    "cancel": 6,
    "return": 7,
    "rating": 8,
    "follow": 9,
    "impression": 10,
}
"""The code of each event type in a profile."""

_ADD, _REMOVE, _PURCHASE, _CANCEL, _RETURN = (
    CODES[name] for name in ("add_to_cart", "remove_from_cart", "purchase", "cancel", "return")
)
_FOLLOW, _IMPRESSION = CODES["follow"], CODES["impression"]

MAX_EVENT_BYTES = 65_536
MAX_FUTURE_MS = 3_600_000
"""The worker's defaults, which a storm leaves alone."""

RING, HELD, SOURCES, TYPE_SLOTS = 50, 8, 6, 11
HALF_LIVES_MS = (3_600_000, 86_400_000, 604_800_000)

# Version 1 of the profile record: 1,140 bytes, little-endian, by literal offsets. Later ones have theirs behind them.
_ROW_BYTES = 1_140
_SIZE_AT, _TYPES_AT, _HELD_TYPES_AT = 1, 2, 52
_ITEMS, _HELD_ITEMS, _LAST_MS = struct.Struct("<50Q"), struct.Struct("<8Q"), struct.Struct("<q")
_ITEMS_AT, _HELD_ITEMS_AT, _LAST_MS_AT = 64, 464, 528
_FOLDED, _FOLDED_AT = struct.Struct("<6q6I"), 536
_TIMES, _HELD_TIMES, _EVENTS = struct.Struct("<50I"), struct.Struct("<8I"), struct.Struct("<I")
_TIMES_AT, _HELD_TIMES_AT, _EVENTS_AT = 608, 808, 840
_COUNTS, _COUNTS_AT = struct.Struct("<33f"), 1008

COUNT_TOLERANCE = 1e-3
"""Decayed counts are kept in single precision and brought forward at every event: a thousand roundings of 6e-8."""

EXAMPLES = 3
"""How many of each fault are described by name; the counts are exact beyond."""


def fingerprint(value: bytes | None) -> int:
    """32 bits of a record's value; never 0."""
    return crc32(value or b"") or 1


def item_key(item: str) -> int:
    """How a profile names an item: XXH3-64, never 0."""
    return xxh3_64_intdigest(item.encode()) or 1


def source_key(topic: str, partition: int) -> int:
    """How a profile names a source partition: the low half of XXH3-64, never 0."""
    return (xxh3_64_intdigest(f"{topic}\0{partition}".encode()) & 0xFFFFFFFF) or 1


class Receipts:
    """What the brokers have acknowledged to the producer: by place, a fingerprint of the value."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], array[int]] = {}
        self.total = 0

    def add(self, topic: str, partition: int, offset: int, value: bytes | None) -> None:
        """A record was acknowledged."""
        known = self._known.setdefault((topic, partition), array("I"))
        if offset >= len(known):
            known.extend([0] * (offset + 1 - len(known)))
        known[offset] = fingerprint(value)
        self.total += 1

    def holds(self, topic: str, partition: int, offset: int, value: bytes | None) -> bool:
        """Whether this very record was acknowledged at this place."""
        known = self._known.get((topic, partition), ())
        return offset < len(known) and known[offset] == fingerprint(value)


def read_event(value: bytes | None, timestamp_ms: int) -> dict[str, Any] | str:
    """The event of a behaviour record, or what is wrong with it, in the dead letters' words.

    Args:
        value: the record's value.
        timestamp_ms: when the broker had the record: whoever reads it does so later.
    """
    if not value:
        return "empty"
    if len(value) > MAX_EVENT_BYTES:
        return "oversized"
    try:
        event = json.loads(value)
    except (ValueError, RecursionError):
        return "not_json"
    if not _valid(event):
        return "invalid"
    return "future" if event["ts"] > timestamp_ms + MAX_FUTURE_MS else event


def _valid(event: Any) -> bool:
    if not isinstance(event, dict) or event.get("type") not in CODES:
        return False
    user, ts, code = event.get("user_id"), event.get("ts"), CODES[event["type"]]
    if not _is_id(user) or type(ts) is not int or not 100_000_000_000 <= ts <= 9_000_000_000_000:
        return False
    if code == _FOLLOW:
        return (event.get("followed_user_id") is None) != (event.get("brand") is None)
    if code == CODES["rating"]:
        rating = event.get("rating")
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= 5:
            return False
    if code == _IMPRESSION and not (_is_id(event.get("list_id")) and type(event.get("position")) is int):
        return False
    return _is_id(event.get("item_id"))


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 128


@dataclass(slots=True)
class Expected:
    """What the log says of one user."""

    events: int = 0
    sources: dict[int, int] = field(default_factory=dict)
    """Offset of the last valid event, by source key."""
    active: dict[str, int] = field(default_factory=dict)
    """Offset of the last event that is no impression, by topic."""
    active_ms: int = 0
    """When the broker had the newest event that is no impression."""
    times: list[int] = field(default_factory=list)
    """The ring's times, s, rising; `entries` and `origins` go with it."""
    entries: list[tuple[int, int]] = field(default_factory=list)
    """Type and item."""
    origins: list[int] = field(default_factory=list)
    """Source key of each place of the ring."""
    evicted: tuple[int, int] | None = None
    """Time and source key of the newest interaction that the ring has no place for."""
    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Type and time of what is in the cart or bought, by item."""
    holder: int | None = None
    """Source key of the events that fill and empty `held`."""
    held_determined: bool = True
    """False where they come from several sources: their order among each other is not in the log."""
    counted: dict[int, list[float]] = field(default_factory=dict)
    """By type: for each half-life, the sum of what every event would weigh at the user's first event."""
    first_ms: int = 0
    last_ms: int = 0

    @property
    def ring_determined(self) -> bool:
        """Whether no two interactions of one second come from different sources: their order is not in the log."""
        places = list(zip(self.times, self.origins, strict=True))
        if self.evicted is not None:
            places.insert(0, self.evicted)
        return all(one[0] != next_[0] or one[1] == next_[1] for one, next_ in pairwise(places))

    @property
    def ring(self) -> list[tuple[int, int, int]]:
        """Time (s), type and item of the last interactions by event time."""
        return [(at, *entry) for at, entry in zip(self.times, self.entries, strict=True)]

    def counts(self, code: int) -> list[float]:
        """The decayed counts of a type at the newest event, one a half-life."""
        sums = self.counted.get(code, [0.0] * len(HALF_LIVES_MS))
        since = self.last_ms - self.first_ms
        return [total * 2.0 ** (-since / life) for total, life in zip(sums, HALF_LIVES_MS, strict=True)]


class Log:
    """The behaviour topics: what has to become of each record. Records of a partition come in their order."""

    def __init__(self, receipts: Receipts) -> None:
        self.users: dict[User, Expected] = {}
        self.bad: dict[Place, tuple[str, int]] = {}
        """What is wrong with each bad record, and the fingerprint of its value."""
        self.events = 0
        """Valid ones."""
        self.acknowledged = 0
        """Records that the producer has a receipt for."""
        self._receipts = receipts
        self._keys: dict[tuple[str, int], int] = {}
        self._entries: dict[tuple[int, str], tuple[int, int]] = {}

    def take(self, topic: str, partition: int, offset: int, timestamp_ms: int, value: bytes | None) -> None:
        """Take the next record of a partition."""
        self.acknowledged += self._receipts.holds(topic, partition, offset, value)
        event = read_event(value, timestamp_ms)
        if isinstance(event, str):
            self.bad[topic, partition, offset] = event, fingerprint(value)
            return
        self.events += 1
        known = self.users.get(user := (partition, event["user_id"]))
        if known is None:
            known = self.users[user] = Expected(first_ms=event["ts"], last_ms=event["ts"])
        source = self._keys.get((topic, partition))
        if source is None:
            source = self._keys[topic, partition] = source_key(topic, partition)
        self._note(known, CODES[event["type"]], event, topic, source, offset, timestamp_ms)

    def _note(
        self,
        known: Expected,
        code: int,
        event: dict[str, Any],
        topic: str,
        source: int,
        offset: int,
        timestamp_ms: int,
    ) -> None:
        ts: int = event["ts"]
        known.events += 1
        known.sources[source] = offset
        known.last_ms = max(known.last_ms, ts)
        sums = known.counted.setdefault(code, [0.0] * len(HALF_LIVES_MS))
        for window, life in enumerate(HALF_LIVES_MS):
            sums[window] += 2.0 ** ((ts - known.first_ms) / life)
        if code == _IMPRESSION:
            return
        known.active[topic] = offset
        known.active_ms = max(known.active_ms, timestamp_ms)
        if code == _FOLLOW:
            return
        entry = self._entries.get((code, event["item_id"]))
        if entry is None:
            entry = self._entries[code, event["item_id"]] = code, item_key(event["item_id"])
        _remember(known, ts // 1000, entry, source)
        _hold(known, ts // 1000, entry, source)


def _remember(known: Expected, second: int, entry: tuple[int, int], source: int) -> None:
    """The ring: the last `RING` interactions by event time, ties in order of arrival."""
    place = bisect_right(known.times, second)
    known.times.insert(place, second)
    known.entries.insert(place, entry)
    known.origins.insert(place, source)
    if len(known.times) > RING:
        out = known.times.pop(0), known.origins.pop(0)
        del known.entries[0]
        known.evicted = out if known.evicted is None else max(known.evicted, out, key=lambda one: one[0])


def _hold(known: Expected, second: int, entry: tuple[int, int], source: int) -> None:
    """Cart and purchases, in order of arrival; the oldest purchase makes room first, then the oldest line."""
    code, item = entry
    if code not in (_ADD, _REMOVE, _PURCHASE, _CANCEL, _RETURN):
        return
    known.held_determined &= known.holder in (None, source)
    known.holder = source
    held = known.held
    if code in (_ADD, _PURCHASE):
        if item not in held and len(held) == HELD:
            bought = {one: what for one, what in held.items() if what[0] == _PURCHASE} or held
            oldest = min(what[1] for what in bought.values())
            leaving = [one for one, what in bought.items() if what[1] == oldest]
            known.held_determined &= len(leaving) == 1  # of two that are as old, the record's slots decide
            del held[leaving[0]]
        held[item] = code, second
    elif item in held and held[item][0] == (_ADD if code == _REMOVE else _PURCHASE):
        del held[item]


@dataclass(slots=True)
class Row:
    """What a changelog row says of one user."""

    events: int = 0
    last_ms: int = 0
    sources: dict[int, int] = field(default_factory=dict)
    ring: list[tuple[int, int, int]] = field(default_factory=list)
    held: dict[int, tuple[int, int]] = field(default_factory=dict)
    counts: tuple[float, ...] = (0.0,) * (len(HALF_LIVES_MS) * TYPE_SLOTS)
    """By half-life, and by type within."""


def is_row(value: bytes) -> bool:
    """Whether these are the bytes of a profile."""
    return len(value) == _ROW_BYTES if value[:1] == b"\x01" else len(value) > _ROW_BYTES and value[0] > 1


def progress(value: bytes) -> tuple[int, dict[int, int]]:
    """How many events a row has folded, and up to which offset of each source (by source key)."""
    offsets_and_keys = _FOLDED.unpack_from(value, _FOLDED_AT)
    offsets, keys = offsets_and_keys[:SOURCES], offsets_and_keys[SOURCES:]
    return (
        _EVENTS.unpack_from(value, _EVENTS_AT)[0],
        {key: offset for key, offset in zip(keys, offsets, strict=True) if key},
    )


def read_row(value: bytes) -> Row:
    """A row's fields."""
    events, sources = progress(value)
    size = value[_SIZE_AT]
    times, items = _TIMES.unpack_from(value, _TIMES_AT), _ITEMS.unpack_from(value, _ITEMS_AT)
    types = value[_TYPES_AT : _TYPES_AT + RING]
    held_types = value[_HELD_TYPES_AT : _HELD_TYPES_AT + HELD]
    held_items = _HELD_ITEMS.unpack_from(value, _HELD_ITEMS_AT)
    held_times = _HELD_TIMES.unpack_from(value, _HELD_TIMES_AT)
    return Row(
        events=events,
        last_ms=_LAST_MS.unpack_from(value, _LAST_MS_AT)[0],
        sources=sources,
        ring=list(zip(times[:size], types[:size], items[:size], strict=True)),
        held={item: (code, at) for item, code, at in zip(held_items, held_types, held_times, strict=True) if item},
        counts=_COUNTS.unpack_from(value, _COUNTS_AT),
    )


class Changelog:
    """The committed rows of the changelog. Those of a partition come in their order."""

    def __init__(self) -> None:
        self.latest: dict[User, bytes] = {}
        self.rows = 0
        self.backward: set[tuple[int, int]] = set()
        """Partition and offset of rows that have folded less than an earlier row of the user."""
        self.unreadable = 0
        self._furthest: dict[User, tuple[int, dict[int, int]]] = {}

    def take(self, partition: int, offset: int, key: bytes | None, value: bytes | None) -> None:
        """Take the next row of a partition. A tombstone ends what is known of a user."""
        self.rows += 1
        user = partition, (key or b"").decode(errors="replace")
        if value is None:
            self.latest.pop(user, None)
            self._furthest.pop(user, None)
            return
        if not is_row(value):
            self.unreadable += 1
            return
        events, sources = progress(value)
        if user in self._furthest:
            most, furthest = self._furthest[user]
            if events < most or any(sources.get(key, -1) < offset for key, offset in furthest.items()):
                self.backward.add((partition, offset))
            events = max(events, most)
            sources = {key: max(sources.get(key, -1), furthest.get(key, -1)) for key in sources | furthest}
        self._furthest[user] = events, sources
        self.latest[user] = value


class Letters:
    """The dead letters by origin; a repeat, which has the same key, takes the place of the first."""

    def __init__(self) -> None:
        self.of: dict[Place, tuple[str, int | None]] = {}
        """By origin: the fault, and the fingerprint of the value where the letter has all of it."""
        self.records = 0
        self.unreadable = 0
        """Letters that cannot be decoded, or whose key is not their origin."""

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """Take a letter."""
        self.records += 1
        try:
            letter = json.loads(value or b"")
            origin = letter["origin"]
            place = str(origin["topic"]), int(origin["partition"]), int(origin["offset"])
            kept = letter.get("value")
            whole = None if letter.get("truncated") else fingerprint(base64.b64decode(kept) if kept else None)
            fault = str(letter["fault"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            self.unreadable += 1
            return
        self.unreadable += key != "/".join(map(str, place)).encode()
        self.of[place] = fault, whole


class Lists:
    """The newest recommendation list of every user. Those of a partition come in their order."""

    def __init__(self) -> None:
        self.newest: dict[str, tuple[Place, int]] = {}
        """The cause, and when the list went out, ms."""
        self.lists = 0
        self.unreadable = 0

    def take(self, timestamp_ms: int, key: bytes | None, value: bytes | None) -> None:
        """Take a list."""
        self.lists += 1
        try:
            made = json.loads(value or b"")
            cause = made["cause"]
            place = str(cause["topic"]), int(cause["partition"]), int(cause["offset"])
            user = str(made["user_id"])
        except (ValueError, KeyError, TypeError):
            self.unreadable += 1
            return
        self.unreadable += key != user.encode()
        self.newest[user] = place, timestamp_ms


@dataclass
class Verdict:
    """What was found. All that has to be 0 is in `faults`."""

    acknowledged: int = 0
    events: int = 0
    """Valid events in the log."""
    users: int = 0
    bad: int = 0
    """Bad records in the log."""
    rows: int = 0
    """Changelog rows read, the committed ones."""
    lists: int = 0
    repeated_letters: int = 0
    """Letters that took the place of one of the same origin."""
    undetermined: int = 0
    """Users whose ring or `held` depends on an order that the log does not tell, so that it was not judged."""
    faults: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.faults.values())

    def blame(self, fault: str, count: int, *where: object) -> None:
        """Add to a fault's count; `where` it was and how, in any words."""
        self.faults[fault] = self.faults.get(fault, 0) + count
        if count and where and len(examples := self.examples.setdefault(fault, [])) < EXAMPLES:
            examples.append(" ".join(map(str, where)))


FAULTS = (
    "acknowledged, not in the log",
    "events lost",
    "events doubled",
    "users with a wrong ring",
    "users with wrong source offsets",
    "users with wrong held items",
    "users with wrong counts",
    "profiles of nobody",
    "rows going backwards",
    "rows unreadable",
    "bad records without a letter",
    "letters for good records",
    "letters with a wrong fault, key or value",
    "active users without a list",
    "last lists not of the last event",
    "lists unreadable",
)
"""All that is counted, in the order of a report."""


def judge(log: Log, changelog: Changelog, letters: Letters, lists: Lists | None, receipts: Receipts) -> Verdict:
    """Hold everything against the log.

    Args:
        log: all behaviour topics, whole.
        changelog: all of it that is left, read committed.
        letters: all dead letters.
        lists: all lists; None where none were asked for.
        receipts: what the producer knows to be in the log.
    """
    verdict = Verdict(
        acknowledged=receipts.total,
        events=log.events,
        users=len(log.users),
        bad=len(log.bad),
        rows=changelog.rows,
        lists=lists.lists if lists else 0,
        repeated_letters=letters.records - letters.unreadable - len(letters.of),
        faults=dict.fromkeys(FAULTS, 0),
    )
    verdict.blame("acknowledged, not in the log", receipts.total - log.acknowledged)
    for user, expected in log.users.items():
        value = changelog.latest.get(user)
        _judge_profile(verdict, user, expected, read_row(value) if value else Row())
    strangers = changelog.latest.keys() - log.users.keys()
    verdict.blame("profiles of nobody", len(strangers), next(iter(strangers), ""))
    backward = sorted(changelog.backward)
    verdict.blame("rows going backwards", len(backward), "partition, offset:", backward[:EXAMPLES])
    verdict.blame("rows unreadable", changelog.unreadable)
    _judge_letters(verdict, log, letters)
    if lists is not None:
        _judge_lists(verdict, log, lists)
    return verdict


def _judge_profile(verdict: Verdict, user: User, expected: Expected, row: Row) -> None:
    missing = expected.events - row.events
    verdict.blame("events lost", max(missing, 0), user, row.events, "folded of", expected.events)
    verdict.blame("events doubled", max(-missing, 0), user, row.events, "folded of", expected.events)
    wrong = row.sources != expected.sources
    verdict.blame("users with wrong source offsets", wrong, user, row.sources, "for", expected.sources)
    if expected.ring_determined:
        verdict.blame("users with a wrong ring", row.ring != expected.ring, user)
    if expected.held_determined:
        verdict.blame("users with wrong held items", row.held != expected.held, user, row.held, "for", expected.held)
    verdict.undetermined += not (expected.ring_determined and expected.held_determined)
    verdict.blame("users with wrong counts", not _counts_agree(expected, row), user)


def _counts_agree(expected: Expected, row: Row) -> bool:
    if row.last_ms != expected.last_ms:
        return False
    for code in range(TYPE_SLOTS):
        for window, wanted in enumerate(expected.counts(code)):
            found = row.counts[window * TYPE_SLOTS + code]
            if abs(found - wanted) > COUNT_TOLERANCE * max(wanted, 1.0):
                return False
    return True


def _judge_letters(verdict: Verdict, log: Log, letters: Letters) -> None:
    for place, (fault, value) in log.bad.items():
        letter = letters.of.get(place)
        verdict.blame("bad records without a letter", letter is None, place, fault)
        if letter is not None:
            wrong = letter[0] != fault or letter[1] not in (None, value)
            verdict.blame("letters with a wrong fault, key or value", wrong, place, letter[0], "for", fault)
    for place in letters.of.keys() - log.bad.keys():
        verdict.blame("letters for good records", 1, place, letters.of[place][0])
    verdict.blame("letters with a wrong fault, key or value", letters.unreadable)


def _judge_lists(verdict: Verdict, log: Log, lists: Lists) -> None:
    """A user's last list names the last event of its topic as cause, and is younger than his last events of all topics.

    In which order a worker has taken the events of two topics is not in the log, so any of a user's last events, one a
    topic, may be the cause. A list that went out before another of them was in the log cannot have known of it.
    """
    for (partition, user), expected in log.users.items():
        if not expected.active:
            continue
        newest = lists.newest.get(user)
        verdict.blame("active users without a list", newest is None, user)
        if newest is not None:
            (topic, cause_partition, offset), sent_ms = newest
            right = cause_partition == partition and expected.active.get(topic) == offset
            stale = not right or sent_ms < expected.active_ms
            verdict.blame("last lists not of the last event", stale, user, newest, "for", expected.active)
    verdict.blame("lists unreadable", lists.unreadable)
