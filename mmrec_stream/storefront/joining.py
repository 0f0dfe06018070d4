"""At login: a session's events become the user's, each exactly once, whoever asks how often and whatever crashes.

This is the one place that decides how two profiles become one. The session's events stay where they are, and its
profile agrees with them; each is written again for the user, at its own time, so that the user's profile agrees with
the log too. The repeats and the note of what was taken over are one transaction, by a producer whose transactional id
belongs to the session: a second join, on whichever gateway, fences the first one and then reads its note, or none.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
from confluent_kafka import KafkaException, Message, Producer

from mmrec_stream.contracts.acceptance import UNREADABLE, Refusal, accept
from mmrec_stream.contracts.behaviour import BehaviourEvent, Forget, encode_event
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.contracts.sessions import SessionJoin, decode_join, encode_join
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.clients import producer_config
from mmrec_stream.kafka.reader import read, read_batches, spans
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.tokens import SESSION_PREFIX
from mmrec_stream.topics import DAY_MS, JOIN_DAYS, Topics

JOINED = "joined"
"""Header of a repeat: where the session's own record lies, `topic/partition/offset`."""

SEARCHED = 200_000
"""Newest records of a partition that are searched for a session of which nothing is remembered: a second's reading."""

TRANSACTION_S = 20.0
"""How long the broker may take for a step of the transaction; it takes tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An event of a session as the user's."""

    event: BehaviourEvent
    origin: str


class JoinedElsewhereError(UserError):
    """The session is another user's already."""


def repeats(messages: Iterable[Message], session: str, user_id: str, *, since_ms: int, max_bytes: int) -> list[Repeat]:
    """The events of a session among records, as the user's. Pure.

    Args:
        messages: records of the session's partition.
        session: the session's id.
        user_id: whose they become.
        since_ms: older events are left out, as the note of having taken them may be gone.
        max_bytes: larger records are no events.
    """
    session_user = f"{SESSION_PREFIX}{session}"
    key, found = session_user.encode(), []
    for message in messages:
        if message.key() != key:
            continue
        event = accept(message.value(), max_bytes)
        if isinstance(event, Refusal | Forget) or event.user_id != session_user or event.ts < since_ms:
            continue
        own = msgspec.structs.replace(event, user_id=user_id, session_id=session)
        found.append(Repeat(own, f"{message.topic()}/{message.partition()}/{message.offset()}"))
    return found


def join(
    settings: Settings, session: str, user_id: str, hints: Mapping[str, int], *, now_ms: int | None = None
) -> tuple[SessionJoin, int]:
    """Take a session's events over. Blocks for some tenths of a second.

    Args:
        settings: where the brokers are.
        session: the session's id.
        user_id: whose its events become.
        hints: by topic, the first offset of the session's partition that may be the session's, where that is known.
        now_ms: ms since 1970; the present where None.

    Returns:
        What has been taken over in all, and how many events this call has added.

    Raises:
        JoinedElsewhereError: the session is another user's already.
        UserError: a topic or the broker is not there.
        KafkaException: the broker did not take the transaction, or another join of the session came in between;
            nothing was written, and it may be tried again.
    """
    topics = Topics.of(settings)
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    producer = Producer(
        producer_config(settings, linger_ms=0)
        | {
            "transactional.id": f"{settings.app_id}-join-{session}",
            "transaction.timeout.ms": int(TRANSACTION_S * 1000),
            "delivery.timeout.ms": int(TRANSACTION_S * 1000),
        }
    )
    producer.init_transactions(TRANSACTION_S)
    before = _noted(settings, topics.sessions, session)
    if before is not None and before.user_id != user_id:
        raise JoinedElsewhereError(f"session {session} is of another user already")
    upto: dict[str, int] = {}
    taken: list[Repeat] = []
    for topic in topics.behaviour:
        partitions = spans(settings, topic)
        partition = partition_of(f"{SESSION_PREFIX}{session}".encode(), len(partitions))
        span = partitions[partition]
        start = hints.get(topic, max(span.low, span.high - SEARCHED))
        if before is not None:
            start = max(start, before.upto.get(topic, 0))
        upto[topic] = span.high
        for batch in read_batches(settings, topic, [partition], {partition: start}, {partition: span.high}):
            taken += repeats(
                batch, session, user_id, since_ms=now_ms - JOIN_DAYS * DAY_MS, max_bytes=settings.max_event_bytes
            )
    if not taken:
        known = before or SessionJoin(session_id=session, user_id=user_id, upto=upto, events=0, joined=now_ms)
        return known, 0
    note = SessionJoin(
        session_id=session,
        user_id=user_id,
        upto=upto,
        events=len(taken) + (before.events if before is not None else 0),
        joined=now_ms,
    )
    producer.begin_transaction()
    try:
        for one in taken:
            headers = [(JOINED, one.origin.encode())]
            value = encode_event(one.event)
            producer.produce(topics.of_event(one.event), value, one.event.user_id.encode(), headers=headers)
        producer.produce(topics.sessions, encode_join(note), session.encode())
        producer.commit_transaction(TRANSACTION_S)
    except KafkaException as error:
        if error.args[0].txn_requires_abort():
            producer.abort_transaction(TRANSACTION_S)
        raise
    return note, len(taken)


def _noted(settings: Settings, topic: str, session: str) -> SessionJoin | None:
    """The newest note of a session. Notes are kept for days, and a login reads those of its partition."""
    key, found = session.encode(), None
    partition = partition_of(key, len(spans(settings, topic)))
    for message in read(settings, topic, [partition]):
        if message.key() == key and message.value() is not None:
            try:
                found = decode_join(message.value())
            except UNREADABLE as error:
                raise UserError(f"{topic}[{partition}]@{message.offset()}: no note of a join: {error}") from None
    return found
