"""Dead letters from outside the worker: written for records that cannot be copied, read back, and published again.

A letter that was published again is marked by a tombstone of its key in the dead-letter topic. The mark is younger than
the letter, so retention takes the letter first; and it holds wherever it stands, also before a repeat of the letter
that a worker writes when it reads the same record once more.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from confluent_kafka import Message
from msgspec import structs

from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourRecord
from mmrec_stream.contracts.dead_letters import (
    DeadLetter,
    Fault,
    Origin,
    dead_letter,
    decode_dead_letter,
    encode_dead_letter,
)
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import Span, read, read_batches, spans
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

LOGGER = logging.getLogger(__name__)

MARK_EVERY = 500
"""Letters published between two rounds of marks. A crash repeats at most so many, and a round costs two round trips."""

HEADER = "mmrec-dead-letter"
"""Header of an event that was published again: the key of its letter."""


class Outcome(StrEnum):
    """What becomes of a letter."""

    SENT = "published again"
    REFUSED = "still refused"
    """Its event would be refused again."""
    NO_VALUE = "has no value"
    CUT = "cut off, and gone at its origin"


@dataclass(frozen=True)
class Wanted:
    """Which letters to publish again, and how."""

    faults: Collection[Fault] = ()
    """All where empty."""
    origins: Collection[str] = ()
    """Full names of topics; all where empty."""
    to: str | None = None
    """Full name of the topic to publish to; the letter's own origin where None, if that is one of ours."""
    anyway: bool = False
    """Publish also what would be refused again."""
    limit: int | None = None
    """Most letters to publish."""


def write_letter(producer: BatchProducer, topic: str, message: Message, refusal: Refusal) -> None:
    """Queue a dead letter of a record."""
    origin = Origin(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        timestamp=message.timestamp()[1],
    )
    letter = dead_letter(origin, message.key(), message.value(), refusal.fault, refusal.detail)
    producer.send(topic, encode_dead_letter(letter), key=letter.record_key)


def letter_of(message: Message) -> DeadLetter | None:
    """The letter in a record; None for a mark, and for what is no letter."""
    if message.value() is None:
        return None
    try:
        letter: DeadLetter = decode_dead_letter(message.value())
    except UNREADABLE as error:
        LOGGER.warning("%s, offset %d: no dead letter: %s", message.topic(), message.offset(), error)
        return None
    return letter


def open_letters(settings: Settings) -> list[DeadLetter]:
    """The dead letters that were not published again, in the order of the topic; of repeats the last.

    Raises:
        UserError: no broker answers, or the topic does not exist.
    """
    letters: dict[bytes, DeadLetter] = {}
    done: set[bytes] = set()
    for messages in read_batches(settings, Topics.of(settings).dead_letters):
        for message in messages:
            if message.value() is None:
                done.add(message.key())
            else:
                letter = letter_of(message)
                if letter is not None:
                    letters[message.key()] = letter
    return [letter for key, letter in letters.items() if key not in done]


def redrive(
    settings: Settings,
    wanted: Wanted,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Counter[tuple[str, Fault, Outcome]]:
    """Publish dead letters again, keyed by user with murmur2, and mark them.

    A crash between publishing and marking publishes up to `MARK_EVERY` events again the next time.

    Args:
        settings: which cluster and topics.
        wanted: which letters.
        dry_run: count only.
        progress: told how many letters of how many are done.

    Returns:
        Letters by origin topic, fault and outcome.

    Raises:
        UserError: no broker answers, or a topic does not exist.
        DeliveryError: the broker did not take an event; nothing of its round is marked.
    """
    topics = Topics.of(settings)
    chosen = [
        letter
        for letter in open_letters(settings)
        if (not wanted.faults or letter.fault in wanted.faults)
        and (not wanted.origins or letter.origin.topic in wanted.origins)
    ]
    counts: Counter[tuple[str, Fault, Outcome]] = Counter()
    round_: list[bytes] = []
    sent = 0
    with BatchProducer(settings) as producer:
        for number, (letter, value) in enumerate(_whole(settings, chosen), start=1):
            if wanted.limit is not None and sent >= wanted.limit:
                break
            outcome, event = _decide(letter, value, settings, wanted.anyway)
            counts[letter.origin.topic, letter.fault, outcome] += 1
            if outcome is Outcome.SENT:
                sent += 1
                if not dry_run:
                    _publish(producer, topics, wanted, letter, value, event)
                    round_.append(letter.record_key)
            if len(round_) == MARK_EVERY:
                _mark(producer, topics.dead_letters, round_)
            progress(number, len(chosen))
        _mark(producer, topics.dead_letters, round_)
    return counts


def _decide(
    letter: DeadLetter, value: bytes | None, settings: Settings, anyway: bool
) -> tuple[Outcome, BehaviourRecord | None]:
    if value is None:
        return (Outcome.NO_VALUE if letter.value is None else Outcome.CUT), None
    event = accept(value, settings.max_event_bytes)
    if isinstance(event, Refusal):
        return (Outcome.SENT if anyway else Outcome.REFUSED), None
    if event.ts > (time.time() + settings.max_future_s) * 1000 and not anyway:
        return Outcome.REFUSED, None
    return Outcome.SENT, event


def _publish(
    producer: BatchProducer,
    topics: Topics,
    wanted: Wanted,
    letter: DeadLetter,
    value: bytes | None,
    event: BehaviourRecord | None,
) -> None:
    destination = wanted.to or letter.origin.topic
    if wanted.to is None and destination in topics.foreign and event is not None:
        destination = topics.of_event(event)  # what is others' stays as they have written it
    key = event.user_id.encode() if event is not None else letter.key
    producer.send(destination, value, key=key, headers=[(HEADER, letter.record_key)])


def _mark(producer: BatchProducer, topic: str, keys: list[bytes]) -> None:
    """Wait until the round's events are delivered, then mark their letters and empty the round."""
    producer.flush()
    for key in keys:
        producer.send(topic, None, key=key)
    producer.flush()
    keys.clear()


def _whole(settings: Settings, letters: list[DeadLetter]) -> Iterator[tuple[DeadLetter, bytes | None]]:
    """Each letter with its record's whole key, and the whole value beside it.

    Where the letter was cut they are read at its origin; the value is None where that is gone.
    """
    there: dict[str, dict[int, Span]] = {}
    for letter in letters:
        if not letter.truncated:
            yield letter, letter.value
            continue
        origin = letter.origin
        try:
            if origin.topic not in there:
                there[origin.topic] = spans(settings, origin.topic)
        except UserError:
            there[origin.topic] = {}
        span = there[origin.topic].get(origin.partition)
        if span is None or not span.low <= origin.offset < span.high:
            yield letter, None
            continue
        bounds = {origin.partition: origin.offset}, {origin.partition: origin.offset + 1}
        message = next(read(settings, origin.topic, [origin.partition], *bounds), None)
        if message is None:
            yield letter, None
        else:
            yield structs.replace(letter, key=message.key()), message.value()
