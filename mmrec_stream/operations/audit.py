"""Whether the profiles agree with the log, read from Kafka alone: behaviour topics, changelog, dead letters, offsets.

What is read in which order carries the argument: the group's committed offsets first, the changelog next, the dead
letters then, the log last. An event below its committed offset must by then be in a profile or in a dead letter,
since a worker commits only what it has delivered; an event above it may be under way, which is no fault.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from mmrec_stream.contracts.acceptance import Refusal, accept
from mmrec_stream.contracts.behaviour import Forget
from mmrec_stream.contracts.dead_letters import Fault
from mmrec_stream.contracts.identity import source_key
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.plan import uneven
from mmrec_stream.kafka.reader import read_batches, spans
from mmrec_stream.operations.letters import letter_of
from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.profiles.rows import ProfileRows, Restored
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic

Place = tuple[str, int, int]
"""Topic, partition, offset."""

Progress = Callable[[str, int], None]
"""Told what has been read: a topic, and how many records more."""

EXAMPLES = 1_000
"""Places of lost events that are kept by name; the counts are exact beyond."""


@dataclass
class SourceTally:
    """One source partition: every record of it is in exactly one of the five counts."""

    topic: str
    partition: int
    first: int
    """Its first offset; above 0, retention has deleted what was before."""
    committed: int
    """The next offset that the workers' group will read."""
    folded: int = 0
    """Valid events that the user's profile has passed."""
    dead: int = 0
    """Records in the dead letters."""
    lost: int = 0
    """Committed, and neither in a profile nor in the dead letters."""
    erased: int = 0
    """Committed, and in no profile, of users who asked to be forgotten; and the requests themselves."""
    pending: int = 0
    """Not committed yet, and not in a profile or the dead letters."""


@dataclass(frozen=True)
class UserFault:
    """A user whose profile does not agree with the log."""

    user: str
    in_log: int
    """Valid events that the profile should have folded."""
    folded: int
    """Events that it says it has folded."""

    @property
    def missing(self) -> int:
        """Lost events; negative for doubled ones."""
        return self.in_log - self.folded


@dataclass
class Audit:
    """What the comparison found."""

    sources: list[SourceTally] = field(default_factory=list)
    users: int = 0
    """Users with a profile or an event that should be in one."""
    agreeing: int = 0
    faults: list[UserFault] = field(default_factory=list)
    unjudged: int = 0
    """Users whose profile has more events than the log, where retention has deleted the log's beginning; and users who
    asked to be forgotten, of whom nobody can say what their profile should have."""
    forgotten: int = 0
    """Those of `unjudged` who asked to be forgotten."""
    lost_places: list[Place] = field(default_factory=list)
    """Where the first `EXAMPLES` lost records lie."""
    dead_letters: Counter[Fault] = field(default_factory=Counter)
    dead_letters_trimmed: bool = False
    """Whether retention has deleted dead letters, so that what they held may look lost."""
    changelog: Restored = field(default_factory=Restored)
    """What became of the changelog's records. An unreadable one is passed over, as workers do; what it held is lost."""

    @property
    def ok(self) -> bool:
        """Whether nothing is lost or doubled."""
        return not self.faults and not any(source.lost for source in self.sources)


def audit(settings: Settings, progress: Progress = lambda topic, records: None) -> Audit:
    """Compare, for each user, the events in the log with the events folded.

    Args:
        settings: which cluster, topics and group.
        progress: told of every batch read.

    Raises:
        UserError: no broker answers, a topic is missing, or behaviour topics differ in partitions.
    """
    topics, cluster = Topics.of(settings), Cluster(settings)
    _check_topics(cluster, topics, changelog_topic(settings))
    committed = cluster.committed(settings.app_id, topics.behaviour)
    result = Audit()
    profiles = _profiles(settings, result, progress)
    dead = _dead_letters(settings, topics.dead_letters, result, progress)
    lost: list[tuple[Place, str | None]] = []
    for topic in topics.behaviour:
        lost += _count(settings, topic, profiles, committed, dead, result, progress)
    trimmed = {source.partition for source in result.sources if source.first > 0}
    for source in result.sources:
        _excuse(source, profiles[source.partition])
    for partition, known in profiles.items():
        _judge(known, partition in trimmed, result)
    forgotten = set().union(*(known.forgotten for known in profiles.values()))
    result.lost_places = [place for place, user in lost if user not in forgotten][:EXAMPLES]
    return result


class _Known:
    """What the profiles of one partition say, and what the log says of them as it is read."""

    def __init__(self, rows: ProfileRows) -> None:
        records, live = rows.records, rows.live()
        self.users: list[str] = list(rows)
        self.folded: list[int] = records["events"][live].tolist()
        self.in_log = [0] * len(self.users)
        self.places = {user: place for place, user in enumerate(self.users)}
        self.strangers: Counter[str] = Counter()
        """Lost events of users without a profile."""
        self.lost: Counter[tuple[str, str]] = Counter()
        """Lost events by topic and user, of users with and without one."""
        self.forgotten: set[str] = set()
        """Users who asked to be."""
        self._keys: NDArray[np.uint32] = records["source_keys"][live]
        self._offsets: NDArray[np.int64] = records["source_offsets"][live]

    def last_offsets(self, topic: str, partition: int) -> list[int]:
        """The last folded offset of each user in a source partition, −1 for none."""
        slots = self._keys == source_key(topic, partition)
        offsets: list[int] = np.where(slots, self._offsets, -1).max(axis=1, initial=-1).tolist()
        return offsets


def _check_topics(cluster: Cluster, topics: Topics, changelog: str) -> None:
    there = cluster.partitions()
    wanted = (*topics.behaviour, changelog)
    if missing := [name for name in (*wanted, topics.dead_letters) if name not in there]:
        raise UserError(f"{', '.join(missing)} does not exist: `mmrec topics` creates ours; start a worker, then audit")
    if uneven_ := uneven({name: there[name] for name in wanted}):
        raise UserError(f"topics by user differ in partitions, see `mmrec doctor`: {uneven_}")


def _profiles(settings: Settings, result: Audit, progress: Progress) -> dict[int, _Known]:
    changelog = changelog_topic(settings)
    tables: defaultdict[int, PartitionRows] = defaultdict(PartitionRows)
    for messages in read_batches(settings, changelog):
        of_partition: dict[int, list[Message]] = {}
        for message in messages:
            of_partition.setdefault(message.partition(), []).append(message)
        for partition, records in of_partition.items():
            result.changelog += tables[partition].take(
                [record.offset() for record in records],
                [record.key() for record in records],
                [record.value() for record in records],
            )
        progress(changelog, len(messages))
    return {partition: _Known(tables[partition].rows) for partition in spans(settings, changelog)}


def _dead_letters(settings: Settings, topic: str, result: Audit, progress: Progress) -> set[Place]:
    places: set[Place] = set()
    result.dead_letters_trimmed = any(span.low > 0 for span in spans(settings, topic).values())
    for messages in read_batches(settings, topic):
        for message in messages:
            letter = letter_of(message)
            if letter is None:
                continue
            place = (letter.origin.topic, letter.origin.partition, letter.origin.offset)
            if place not in places:
                places.add(place)
                result.dead_letters[letter.fault] += 1
        progress(topic, len(messages))
    return places


def _count(
    settings: Settings,
    topic: str,
    profiles: Mapping[int, _Known],
    committed: Mapping[tuple[str, int], int],
    dead: set[Place],
    result: Audit,
    progress: Progress,
) -> list[tuple[Place, str | None]]:
    """Put every record of a behaviour topic into one of its partition's counts, and valid events to their users.

    Returns:
        Where the first `EXAMPLES` lost records lie, and whose they are.
    """
    tallies = {
        partition: SourceTally(topic, partition, span.low, committed.get((topic, partition), 0))
        for partition, span in spans(settings, topic).items()
    }
    lost: list[tuple[Place, str | None]] = []
    last_offsets = {partition: known.last_offsets(topic, partition) for partition, known in profiles.items()}
    for messages in read_batches(settings, topic):
        for message in messages:
            partition, offset = message.partition(), message.offset()
            tally, known = tallies[partition], profiles[partition]
            if (topic, partition, offset) in dead:
                tally.dead += 1
                continue
            event = accept(message.value(), settings.max_event_bytes)
            if isinstance(event, Forget):
                known.forgotten.add(event.user_id)
                tally.erased += offset < tally.committed
                tally.pending += offset >= tally.committed
                continue
            user = None if isinstance(event, Refusal) else event.user_id
            place = None if user is None else known.places.get(user)
            if place is not None and offset <= last_offsets[partition][place]:
                known.in_log[place] += 1
                tally.folded += 1
            elif offset >= tally.committed:
                tally.pending += 1
            else:
                tally.lost += 1
                if len(lost) < EXAMPLES:
                    lost.append(((topic, partition, offset), user))
                if user is not None:
                    known.lost[topic, user] += 1
                if place is not None:
                    known.in_log[place] += 1
                elif user is not None:
                    known.strangers[user] += 1
        progress(topic, len(messages))
    result.sources += tallies.values()
    return lost


def _excuse(source: SourceTally, known: _Known) -> None:
    """Take what is missing of users who asked to be forgotten for erased."""
    excused = sum(known.lost[source.topic, user] for user in known.forgotten)
    source.lost -= excused
    source.erased += excused


def _judge(known: _Known, trimmed: bool, result: Audit) -> None:
    """Compare the counts of one partition's users. `trimmed`: retention has deleted the beginning of a log of it."""
    result.users += len(known.users) + len(known.strangers)
    asked = [user for user in known.forgotten if user in known.places or user in known.strangers]
    result.forgotten += len(asked)
    result.unjudged += len(asked)
    for user, in_log, folded in zip(known.users, known.in_log, known.folded, strict=True):
        if user in known.forgotten:
            continue
        if in_log == folded:
            result.agreeing += 1
        elif folded > in_log and trimmed:
            result.unjudged += 1
        else:
            result.faults.append(UserFault(user, in_log, folded))
    result.faults += [
        UserFault(user, in_log, 0) for user, in_log in known.strangers.items() if user not in known.forgotten
    ]
