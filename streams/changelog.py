"""The one writer of a changelog partition: a transactional producer, refused by the broker once there is a newer one.

What a worker believes of its assignment may be old: it was frozen, cut off, or slow. So the broker decides. Each
partition has a transactional id; whoever opens it last owns it, and the earlier owner's next request is refused,
including what was already on its way. Readers of committed rows see nothing of it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmrec_stream.kafka.clients import producer_config
from mmrec_stream.settings import Settings

T = TypeVar("T")

TRANSACTION_TIMEOUT_MS = 60_000
"""After how long the broker gives up an open transaction, the client's default. Transactions take milliseconds; one
that a dead worker has left open holds up readers of committed rows for this long, unless a new owner ends it sooner.
It also bounds how long a broker may be away before partitions are restored anew instead of going on."""

CALL_S = 5.0
"""How long one call to the coordinator may wait before it is looked whether the partition is still wanted."""

PAUSE_S = 0.05
"""Between two attempts, where a call is refused at once."""

log = logging.getLogger(__name__)


class ChangelogLostError(Exception):
    """The writer may write no more: a newer owner has opened the partition, or the broker has given it up."""


class WriterClosedError(Exception):
    """The partition was given up while a call was under way."""


class ChangelogWriter:
    """Writes rows of one partition, each call a transaction. Its calls block, and come from one thread at a time."""

    def __init__(self, settings: Settings, topic: str, partition: int) -> None:
        self._topic = topic
        self._partition = partition
        self._closed = False
        self._end = 0
        """The offset after the last row of the last transaction; 0 where the broker has not told."""
        self._producer = Producer(
            producer_config(settings, linger_ms=0)
            | {
                "transactional.id": f"{settings.app_id}-profiles-{partition}",
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "delivery.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "compression.type": "lz4",
            }
        )

    def open(self) -> None:
        """Become the owner. What an earlier one has not committed is given up.

        Raises:
            WriterClosedError: `close` was called meanwhile.
            ChangelogLostError: the broker refuses for good.
        """
        self._persistently(lambda: self._producer.init_transactions(CALL_S))

    def write(self, keys: Sequence[str], values: Sequence[bytes | None]) -> int:
        """Write rows; a value of None forgets the user. Returns when they are committed.

        Returns:
            The offset after the last of them; 0 where the broker has not told it.

        Raises:
            WriterClosedError: `close` was called meanwhile; whether the rows are committed is unknown.
            ChangelogLostError: this is no longer the owner; the rows are not committed.
        """
        while True:
            try:
                self._call(self._producer.begin_transaction)
                self._call(lambda: self._produce(keys, values))
                self._persistently(lambda: self._producer.commit_transaction(CALL_S))
                return self._end
            except _AbortableError as failure:
                # Nothing to act on: of a broker that is away the worker tells, once for all its partitions.
                log.debug("%s[%d]: %d rows are written again: %s", self._topic, self._partition, len(keys), failure)
                self._persistently(lambda: self._producer.abort_transaction(CALL_S))
                time.sleep(PAUSE_S)

    def close(self) -> None:
        """Write no more: a call under way ends with `WriterClosedError` within `CALL_S`."""
        self._closed = True

    def _produce(self, keys: Sequence[str], values: Sequence[bytes | None]) -> None:
        """Hand rows to the client. If it takes no more, the transaction has failed, and its end says why."""
        produce, topic, partition = self._producer.produce, self._topic, self._partition
        self._end, last = 0, len(keys) - 1
        for place, (key, value) in enumerate(zip(keys, values, strict=True)):
            while True:
                try:
                    if place == last:
                        produce(topic, value, key, partition, on_delivery=self._delivered)
                    else:
                        produce(topic, value, key, partition)
                    break
                except BufferError:
                    if self._closed:
                        raise WriterClosedError from None
                    self._producer.poll(PAUSE_S)
                except KafkaException as exception:
                    if exception.args[0].code() != KafkaError._STATE:
                        raise
                    return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        # A row that was sent twice and taken once has no offset.
        self._end = message.offset() + 1 if error is None and message.offset() >= 0 else 0

    def _persistently(self, call: Callable[[], T]) -> T:
        """Repeat a call for as long as a repetition may help: a broker that is away for minutes is nothing final."""
        while True:
            if self._closed:
                raise WriterClosedError
            try:
                return self._call(call)
            except _RetriableError:
                time.sleep(PAUSE_S)

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() in _LOST or error.fatal():
                raise ChangelogLostError(error.str()) from exception
            if error.txn_requires_abort():
                raise _AbortableError(error.str()) from exception
            if error.retriable() or error.code() in _PASSING:
                raise _RetriableError(error.str()) from exception
            raise ChangelogLostError(error.str()) from exception


class _AbortableError(Exception):
    """The transaction has failed, and another one may succeed."""


class _RetriableError(Exception):
    """The same call may succeed later."""


_LOST = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)

_PASSING = frozenset(
    {
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.CONCURRENT_TRANSACTIONS,
    }
)
