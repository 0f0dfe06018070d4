"""Forgetting a user: the request, what its fulfilment looks like from outside, and how long bytes remain.

A worker that reads the request writes tombstones: to the changelog for the profile, to the recommendations for the
newest list. What a topic holds of the user before goes with compaction or retention.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mmrec_stream.contracts.behaviour import Forget, encode_event
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster, TopicState
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read_batches, spans
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic

LOOK_S = 0.5
"""How often the topics are looked at for tombstones. A worker takes a second or two, and each look opens clients."""

ENDLESS_MS = 2**62
"""Kafka writes "never" as the largest 64-bit number."""


@dataclass(frozen=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}, partition {self.partition}, offset {self.offset}"


class Trace:
    """What one topic, keyed by user, says of a user: before the request and after it."""

    def __init__(self, topic: str, user: str) -> None:
        self.topic = topic
        self.there = False
        """Whether something was said that no tombstone took back."""
        self.erased_at: Place | None = None
        """The first tombstone after the request."""
        self._key = user.encode()
        self._partition = -1
        self._position = 0

    def look(self, settings: Settings, *, asked: bool) -> None:
        """Read on to the topic's present end.

        Args:
            settings: where the brokers are.
            asked: whether a tombstone from here on answers the request.

        Raises:
            UserError: no broker answers, or the topic does not exist.
        """
        if self._partition < 0:
            self._partition = partition_of(self._key, len(spans(settings, self.topic)))
        for messages in read_batches(settings, self.topic, [self._partition], {self._partition: self._position}):
            for message in messages:
                if message.key() == self._key:
                    self.see(message.offset(), message.value(), asked=asked)
            self._position = messages[-1].offset() + 1

    def see(self, offset: int, value: bytes | None, *, asked: bool) -> None:
        """Take one record of the user. What is said after the answering tombstone is of a user who has come back."""
        if self.erased_at is not None:
            return
        self.there = value is not None
        if value is None and asked:
            self.erased_at = Place(self.topic, self._partition, offset)

    def erased(self, *, taken: bool) -> bool:
        """Whether nothing is left; `taken`: a worker had finished the request before the last look."""
        return self.erased_at is not None or (taken and not self.there)


@dataclass(frozen=True)
class Erasure:
    """A request that was fulfilled."""

    request: Place
    profile: Place | None
    """The profile's tombstone, None if there was no profile."""
    lists: Place | None
    """The newest list's tombstone, None if there was no list."""


def forget(settings: Settings, user: str, timeout_s: float) -> Erasure:
    """Ask the workers to forget a user, and wait until they have.

    Args:
        settings: which cluster, topics and group.
        user: id of 1 to 128 characters.
        timeout_s: how long to wait.

    Raises:
        UserError: no broker answers, a topic does not exist, or nothing has happened within `timeout_s`.
        DeliveryError: the broker did not take the request.
    """
    topics = Topics.of(settings)
    profile, lists = Trace(changelog_topic(settings), user), Trace(topics.recommendations, user)
    for trace in (profile, lists):
        trace.look(settings, asked=False)
    request = _ask(settings, topics, user)
    cluster, deadline = Cluster(settings), time.monotonic() + timeout_s
    while True:
        # First the offsets: what a worker wrote before it committed them is there to be read then.
        done = cluster.committed(settings.app_id, [request.topic])
        taken = done.get((request.topic, request.partition), 0) > request.offset
        for trace in (profile, lists):
            trace.look(settings, asked=True)
        if profile.erased(taken=taken) and lists.erased(taken=taken):
            return Erasure(request, profile.erased_at, lists.erased_at)
        if time.monotonic() > deadline:
            raise UserError(_unanswered(settings, user, request, profile, lists, taken, timeout_s))
        time.sleep(LOOK_S)


def _ask(settings: Settings, topics: Topics, user: str) -> Place:
    event = Forget(user_id=user, ts=int(time.time() * 1000))
    topic = topics.of_event(event)
    places: list[Place] = []
    with BatchProducer(settings, linger_ms=0, idempotent=False) as producer:
        producer.send(
            topic,
            encode_event(event),
            key=user.encode(),
            on_delivery=lambda error, record: (
                None if error else places.append(Place(topic, record.partition(), record.offset()))
            ),
        )
    return places[0]


def _unanswered(
    settings: Settings, user: str, request: Place, profile: Trace, lists: Trace, taken: bool, timeout_s: float
) -> str:
    """What to say when the time is up."""
    if not taken:
        return (
            f"user {user!r} is not forgotten after {timeout_s:g} s: no worker of group {settings.app_id} has read the "
            f"request ({request}). It stays there: start `mmrec worker`, or let the workers catch up; "
            "`mmrec forget` once more does no harm and waits again"
        )
    left = [trace.topic for trace in (profile, lists) if not trace.erased(taken=True)]
    return (
        f"user {user!r} is not forgotten after {timeout_s:g} s: the request ({request}) was read, and no tombstone is "
        f"in {', '.join(left)}. `mmrec forget` once more does no harm and waits again; if it ends like this too, the "
        "workers are of a version that can't forget"
    )


@dataclass(frozen=True)
class Remains:
    """Until when a topic may hold bytes of what was erased."""

    topic: str
    longest_ms: int | None
    """From now on; None: without end."""
    setting: str
    """The topic's settings that it follows from."""


def remains(states: Mapping[str, TopicState]) -> list[Remains]:
    """How long each topic may keep what is erased now, in the order of `states`.

    Kafka deletes and compacts whole segments, and only those that are no longer written: the segment's own time comes
    on top of retention. A compaction lag closes segments by itself.
    """
    return [_remains(state) for state in states.values()]


def outliving(remains: Sequence[Remains], request: str, behaviour: Collection[str]) -> list[str]:
    """The behaviour topics that keep events longer than the topic of the request keeps that."""
    longest = {each.topic: ENDLESS_MS if each.longest_ms is None else each.longest_ms for each in remains}
    return [topic for topic in behaviour if longest.get(topic, 0) > longest.get(request, ENDLESS_MS)]


def _remains(state: TopicState) -> Remains:
    policy = state.config.get("cleanup.policy", "")
    bounds: dict[str, int] = {}
    if "compact" in policy:
        bounds["max.compaction.lag.ms"] = _milliseconds(state, "max.compaction.lag.ms")
    if "delete" in policy:
        retention, segment = _milliseconds(state, "retention.ms"), _milliseconds(state, "segment.ms")
        bounds["retention.ms + segment.ms"] = min(retention + segment, ENDLESS_MS)
    if not bounds:
        return Remains(state.name, None, "cleanup.policy")
    setting = min(bounds, key=lambda name: bounds[name])
    return Remains(state.name, bounds[setting] if bounds[setting] < ENDLESS_MS else None, setting)


def _milliseconds(state: TopicState, setting: str) -> int:
    """A time that a topic has set; `ENDLESS_MS` for none."""
    found = int(state.config.get(setting, ENDLESS_MS))
    return ENDLESS_MS if found < 0 else min(found, ENDLESS_MS)
