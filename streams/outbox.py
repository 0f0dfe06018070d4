"""What the worker sends: changelog rows, lists and dead letters, each counted until the broker has confirmed it.

Two producers, as the two want different things: profiles come by the thousand and may wait for company; a list is what
a visitor waits for.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, Producer

from mmrec_stream.kafka.clients import producer_config
from mmrec_stream.settings import Settings

POLL_S = 0.002
"""How often confirmations are fetched while some are awaited. They move only commits and back-pressure, so 2 ms is
soon enough; each look costs 10 µs."""

PROFILE_LINGER_MS = 20
"""How long a changelog row waits for company. Nobody but the commit waits for it, and at 1,000 events a second the
client's default of 5 ms costs the broker a request for nearly every one."""

HIGH_WATER = 60_000
"""Records under way at which folding waits: half a second of profiles, 70 MB. It must stay below the producers' own
bound less one chunk, so that a send never finds the queue full."""

BY_KEY = -1
"""The partition that stands for: where the partitioner puts the key."""

log = logging.getLogger(__name__)


class Ticket:
    """Counts the records of one piece of work that are not yet confirmed; calls `done` when there are none.

    It is open until `seal`: nothing is done while records may still be added.
    """

    __slots__ = ("_done", "pending")

    def __init__(self, done: Callable[[], None]) -> None:
        self.pending = 1
        self._done = done

    def add(self, count: int = 1) -> None:
        """Wait for `count` more."""
        self.pending += count

    def settle(self) -> None:
        """One of them is confirmed."""
        self.pending -= 1
        if not self.pending:
            self._done()

    seal = settle
    """No more is added."""


class Outbox:
    """Sends without waiting; confirmations are handled on the event loop by `run`.

    A record that cannot be delivered ends the worker through `on_failure`: its cause is not committed, so it is read
    again, and nothing is lost.
    """

    def __init__(self, settings: Settings, on_failure: Callable[[str], None]) -> None:
        profiles = producer_config(settings, linger_ms=PROFILE_LINGER_MS) | {"compression.type": "lz4"}
        self._profiles = Producer(profiles)
        self._lists = Producer(producer_config(settings, linger_ms=0))
        self._on_failure = on_failure
        self._sent = asyncio.Event()

    def __len__(self) -> int:
        """Records that are not yet confirmed."""
        return len(self._profiles) + len(self._lists)

    @property
    def profiles_under_way(self) -> int:
        """Changelog rows that are not yet confirmed."""
        return len(self._profiles)

    def profiles(
        self,
        topic: str,
        partition: int,
        keys: Sequence[str],
        values: Sequence[bytes],
        ticket: Ticket,
        on_offset: Callable[[int, int], None],
    ) -> None:
        """Send changelog rows of one partition.

        Args:
            topic: the changelog.
            partition: the partition that the users belong to.
            keys: user ids.
            values: their profiles' bytes, as many.
            ticket: told of each confirmation.
            on_offset: called with the partition and the offset of each confirmed row.
        """

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._fail(error, message)
            else:
                on_offset(partition, message.offset())
                ticket.settle()

        ticket.add(len(keys))
        for key, value in zip(keys, values, strict=True):
            self._send(self._profiles, topic, value, key, partition, delivered)
        self._sent.set()

    def send(self, topic: str, records: Sequence[tuple[bytes | str, bytes, Sequence[Ticket]]]) -> None:
        """Send records to the partitions of their keys, at once.

        Args:
            topic: where to.
            records: key, value, and the tickets that wait for its confirmation, of each. Those of one call share
                requests: the client begins to send at the first, and takes along what has come by then.
        """
        for _, _, tickets in records:
            for ticket in tickets:
                ticket.add()
        for key, value, tickets in records:
            self._send(self._lists, topic, value, key, BY_KEY, self._delivered(tickets))
        self._sent.set()

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
            self._profiles.poll(0)
            self._lists.poll(0)
            await asyncio.sleep(POLL_S)

    def close(self, timeout_s: float) -> None:
        """Wait for what is under way, at most `timeout_s`."""
        self._profiles.flush(timeout_s)
        self._lists.flush(timeout_s)

    def _delivered(self, tickets: Sequence[Ticket]) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._fail(error, message)
            else:
                for ticket in tickets:
                    ticket.settle()

        return delivered

    def _send(
        self,
        producer: Producer,
        topic: str,
        value: bytes,
        key: bytes | str,
        partition: int,
        delivered: Callable[[KafkaError | None, Message], None],
    ) -> None:
        while True:
            try:
                # By position: names would cost a third of the call, which is the dearest of the whole way.
                producer.produce(topic, value, key, partition, delivered)
                return
            except BufferError:
                producer.poll(POLL_S)

    def _fail(self, error: KafkaError, message: Message) -> None:
        self._on_failure(f"{message.topic()}[{message.partition()}]: a record was not delivered: {error.str()}")
