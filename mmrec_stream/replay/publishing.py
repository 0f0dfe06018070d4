"""Events and items into their topics, keyed as the contracts say, and counted."""

from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import sleep, time
from typing import Protocol, Self

from mmrec_stream.contracts.behaviour import BehaviourRecord, encode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

LONGEST_NAP_S = 0.1
"""While waiting for an event's time, deliveries are looked after and Ctrl-C is heard this often."""

SLEEP_FLOOR_S = 0.001
"""Shorter waits are passed over: a sleep costs about this much more than asked for."""


class Publisher(Protocol):
    """Where events and items can go: topics, or files."""

    sent: Counter[str]
    """Records handed over, by topic or file."""

    def event(self, event: BehaviourRecord) -> None:
        """Publish one event."""

    def item(self, item: CatalogueItem) -> None:
        """Publish one catalogue item."""

    def wait_until(self, ts_ms: int) -> None:
        """Return when it is `ts_ms`, where publishing takes place in real time."""

    def finish(self) -> None:
        """Return when everything handed over is safe, or raise."""


class TopicPublisher:
    """Publishes to the topics and counts what went where. Records bear the present as their timestamp.

    The event's own time stays inside it: a record dated years back would be past the topic's retention at once.
    """

    def __init__(self, producer: BatchProducer, topics: Topics) -> None:
        """Publish with `producer` to `topics`."""
        self._producer = producer
        self._topics = topics
        self.sent: Counter[str] = Counter()
        """Records handed to the producer, by topic."""

    def event(self, event: BehaviourRecord) -> None:
        """Queue one event, keyed by its user."""
        topic = self._topics.of_event(event)
        self._producer.send(topic, encode_event(event), key=event.user_id.encode())
        self.sent[topic] += 1

    def item(self, item: CatalogueItem) -> None:
        """Queue one catalogue item, keyed by its id."""
        topic = self._topics.catalogue
        self._producer.send(topic, encode_item(item), key=item.item_id.encode())
        self.sent[topic] += 1

    def withdraw(self, item_id: str) -> None:
        """Queue the tombstone of one catalogue item."""
        topic = self._topics.catalogue
        self._producer.send(topic, None, key=item_id.encode())
        self.sent[topic] += 1

    def wait_until(self, ts_ms: int) -> None:
        """Wait for the clock, looking after deliveries meanwhile."""
        while (left := ts_ms / 1000 - time()) > SLEEP_FLOOR_S:
            sleep(min(left, LONGEST_NAP_S))
            self._producer.poll(0)

    def finish(self) -> None:
        """Wait for every delivery.

        Raises:
            DeliveryError: some records were not delivered.
        """
        self._producer.flush()


class FilePublisher:
    """Writes `catalogue.jsonl` and `events.jsonl` into a folder. Nothing waits: time is what the events say."""

    def __init__(self, folder: Path) -> None:
        """Create the folder and both files, replacing those that are there."""
        folder.mkdir(parents=True, exist_ok=True)
        self._names = (str(folder / "catalogue.jsonl"), str(folder / "events.jsonl"))
        with ExitStack() as files:
            self._catalogue, self._events = [files.enter_context(Path(name).open("wb")) for name in self._names]
            self._files = files.pop_all()
        self.sent: Counter[str] = Counter()

    def event(self, event: BehaviourRecord) -> None:
        """Write one event."""
        self._events.write(encode_event(event) + b"\n")
        self.sent[self._names[1]] += 1

    def item(self, item: CatalogueItem) -> None:
        """Write one catalogue item."""
        self._catalogue.write(encode_item(item) + b"\n")
        self.sent[self._names[0]] += 1

    def wait_until(self, ts_ms: int) -> None:
        """Return at once."""

    def finish(self) -> None:
        """Write out what is buffered."""
        self._catalogue.flush()
        self._events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()


def require_topics(settings: Settings, topics: Topics) -> None:
    """Make sure that what is published to is there.

    Raises:
        UserError: no broker answers, or topics are missing; names them and the command that creates them.
    """
    there = Cluster(settings).partitions()
    wanted = (topics.clicks, topics.purchases, topics.feedback, topics.catalogue)
    if missing := [name for name in wanted if name not in there]:
        raise UserError(f"{settings.bootstrap} has no topic {', '.join(missing)}: create them with `mmrec topics`")
