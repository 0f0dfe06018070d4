"""Topics that every worker reads whole, outside the consumer group: the catalogue and the release announcements."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

from confluent_kafka import Message, TopicPartition

from mmrec_stream.catalogue.changes import read_changes
from mmrec_stream.contracts.catalogue import CatalogueItem
from mmrec_stream.kafka.clients import open_consumer
from mmrec_stream.kafka.reader import PASSING, keyed, read_batches, spans
from mmrec_stream.settings import Settings

POLL_S = 0.1
"""How long a poll waits, which is how long stopping takes. A record that arrives ends the wait."""

MAX_BATCH = 512
"""Records taken at once: a full catalogue's items are then encoded 512 at a time, a single update alone."""

log = logging.getLogger(__name__)


class Follower:
    """Reads a compacted topic to its end, then follows it in a thread of its own.

    `handle` is called with records in order, none of them an error, from the caller's thread in `catch_up` and from
    the follower's afterwards. What it raises is logged with the records' place; it does not stop the following.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        handle: Callable[[Sequence[Message]], None],
        turn: Callable[[], float] | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: where the brokers are.
            topic: what is followed.
            handle: takes records.
            turn: called on the follower's thread between records; says in how many seconds it wants to be called again.
        """
        self._settings = settings
        self._topic = topic
        self._handle = handle
        self._turn = turn
        self._next: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def catch_up(self) -> int:
        """Read what is there now; returns how many records that was.

        Raises:
            UserError: the topic or the broker is not there.
        """
        ends = {partition: span.high for partition, span in spans(self._settings, self._topic).items()}
        count = 0
        for messages in read_batches(self._settings, self._topic, end_offsets=ends):
            self._deliver(messages)
            count += len(messages)
        self._next = ends
        return count

    def start(self) -> None:
        """Go on from where `catch_up` ended."""
        self._thread = threading.Thread(target=self._follow, name=f"follow {self._topic}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Have the thread end soon; `stop` waits for it."""
        self._stop.set()

    def stop(self) -> None:
        """End the thread."""
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _follow(self) -> None:
        with closing(open_consumer(self._settings, f"{self._settings.app_id}-follower")) as consumer:
            consumer.assign([TopicPartition(self._topic, partition, start) for partition, start in self._next.items()])
            while not self._stop.is_set():
                first = consumer.poll(POLL_S if self._turn is None else max(0.0, min(POLL_S, self._turn())))
                if first is None:
                    continue
                messages = [first, *consumer.consume(MAX_BATCH - 1, 0)]
                failed = [message for message in messages if message.error() is not None]
                for message in failed:
                    if message.error().code() in PASSING:
                        continue  # it goes on by itself, and the worker says that brokers are away
                    log.warning("%s: %s", self._topic, message.error().str())
                if good := [message for message in messages if message.error() is None]:
                    self._deliver(good)

    def _deliver(self, messages: Sequence[Message]) -> None:
        try:
            self._handle(messages)
        except Exception:
            first = messages[0]
            log.exception("%s[%d]@%d and after: left out", self._topic, first.partition(), first.offset())


def catalogue_changes(messages: Sequence[Message]) -> tuple[list[CatalogueItem], list[str]]:
    """The newest state of the items in `messages`, and the ids of those that were removed. Bad ones are logged."""
    changes = read_changes(keyed(messages))
    for fault in changes.bad:
        log.warning("%s", fault)
    return changes.items, changes.removed
