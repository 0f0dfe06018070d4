"""What the worker tells others: lists and dead letters, each counted until the broker has confirmed it."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmrec_stream.kafka.clients import producer_config
from mmrec_stream.settings import Settings
from streams.ownership import Ticket

POLL_S = 0.005
"""How often confirmations are fetched while some are awaited. They move only commits and back-pressure, so 5 ms is
soon enough; each look costs 10 µs."""

LIST_TIMEOUT_S = 4.0
"""How long a list may be tried. Less than the shortest session, so that what a frozen worker had under way is given up
when it wakes, and does not follow the lists of whoever has taken its partitions over."""

HIGH_WATER = 60_000
"""Records under way at which folding waits. It must stay below the producer's own bound less one chunk, so that a send
never finds the queue full."""

UNDELIVERABLE = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.POLICY_VIOLATION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._FATAL,
    }
)
"""What no repetition mends."""

log = logging.getLogger(__name__)


class Outbox:
    """Sends without waiting; confirmations are handled on the event loop by `run`.

    A record that the broker refuses for good ends the worker through `on_failure`: its cause is not committed, so it
    is read again, and nothing is lost.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[str], None]) -> None:
        self._producer = Producer(
            producer_config(settings, linger_ms=0) | {"delivery.timeout.ms": int(LIST_TIMEOUT_S * 1000)}
        )
        self._on_failure = on_failure
        self._sent = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Records that are not yet confirmed."""
        return len(self._producer)

    def letter(self, topic: str, key: bytes, value: bytes, ticket: Ticket) -> None:
        """Send a dead letter; it is sent again until the broker has it."""

        def send() -> None:
            self._send(topic, key, value, delivered)

        def delivered(error: KafkaError | None, message: Message) -> None:
            if self._closed:
                return
            if error is None:
                ticket.settle()
            elif error.code() in UNDELIVERABLE:
                self._fail(error, message)
            else:
                asyncio.get_running_loop().call_later(1.0, send)

        ticket.add()
        send()

    def lists(
        self, topic: str, records: Sequence[tuple[str, bytes | None]], outcome: Callable[[int, bool], None]
    ) -> None:
        """Send lists, at once.

        Those of one call share requests: the client begins to send at the first, and takes along what has come by then.

        Args:
            topic: where to.
            records: user and list of each; None takes back the user's last one.
            outcome: told of each place in `records` whether the broker has it.
        """

        def of(place: int) -> Callable[[KafkaError | None, Message], None]:
            def delivered(error: KafkaError | None, message: Message) -> None:
                if self._closed:
                    return
                if error is not None and error.code() in UNDELIVERABLE:
                    self._fail(error, message)
                else:
                    outcome(place, error is None)

            return delivered

        for place, (user, value) in enumerate(records):
            self._send(topic, user, value, of(place))

    async def room(self) -> None:
        """Wait while more than `HIGH_WATER` records are under way."""
        while len(self) > HIGH_WATER:
            await asyncio.sleep(POLL_S)

    async def run(self) -> None:
        """Handle confirmations until cancelled."""
        while True:
            if not len(self):
                self._sent.clear()
                await self._sent.wait()
            self._producer.poll(0)
            await asyncio.sleep(POLL_S)

    def close(self, timeout_s: float) -> None:
        """Wait for what is under way, at most `timeout_s`. Blocks, and tells nobody any more what became of it."""
        self._closed = True
        self._producer.flush(timeout_s)

    def _send(
        self,
        topic: str,
        key: bytes | str,
        value: bytes | None,
        delivered: Callable[[KafkaError | None, Message], None],
    ) -> None:
        while True:
            try:
                # By position: names would cost a third of the call. -1 leaves the partition to the partitioner.
                self._producer.produce(topic, value, key, -1, delivered)
                break
            except BufferError:
                self._producer.poll(POLL_S)
            except KafkaException as exception:  # there is no such topic, say: the client knows before the broker
                self._on_failure(f"{topic}: a record cannot be sent: {exception.args[0].str()}")
                return
        self._sent.set()

    def _fail(self, error: KafkaError, message: Message) -> None:
        self._on_failure(f"{message.topic()}[{message.partition()}]: a record was not delivered: {error.str()}")
