"""Topics as they come: a thread that loads what there is, then follows, through every absence of the broker."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException, Message

from mmrec_stream.errors import UserError, first_line
from mmrec_stream.kafka.reader import follow, read_batches, spans, tails
from mmrec_stream.settings import Settings

RETRY_S = 2.0
"""How long to wait before a broker or topic that was not there is tried again."""

STALL_S = 180.0
"""A thread that has not turned for this long hangs. Following, it turns four times a second; looking for a broker that
is away, it may wait three times for half a minute. To be restarted then would cost the lists that are in memory."""

LOOK_S = 0.5
"""How often a thread that waits for the loop looks whether the loop is about to end."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A topic to load and follow."""

    topic: str
    handle: Callable[[Sequence[Message]], None]
    """Called with records, none of them an error, on the follower's thread."""
    newest: int | None = None
    """How many of a partition's newest records are loaded; all where None."""


class Follower:
    """Loads its sources in turn, then follows them all.

    What a source's `handle` raises is logged with the records' place and does not stop the following.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        sources: Sequence[Source],
        loaded: Callable[[], None],
        turn: Callable[[], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            settings: where the brokers are.
            name: for the log.
            sources: loaded in this order.
            loaded: called once, on the thread, when everything that was there has been handled.
            turn: called on the thread a few times a second at least, also while nothing comes.
        """
        self._settings = settings
        self._name = name
        self._sources = {source.topic: source for source in sources}
        self._loaded = loaded
        self._turn = turn
        self._next: dict[str, dict[int, int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"follow {name}", daemon=True)
        self._turned = time.monotonic()

    @property
    def well(self) -> bool:
        """Whether the thread makes its rounds; a broker that is away does not keep it from that."""
        return self._thread.is_alive() and time.monotonic() - self._turned < STALL_S

    def positions(self, topic: str) -> Mapping[int, int]:
        """The offset up to which each partition has been handled; empty before the topic is loaded."""
        return self._next.get(topic, {})

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end, which it does within a second unless the broker is away."""
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        told = ""
        while not self._stopping.is_set():
            try:
                self._load()
                if told:
                    log.info("%s: followed again", self._name)
                    told = ""
                self._follow()
            except (UserError, KafkaException) as error:
                if (text := first_line(error)) != told:  # a broker that stays away is worth one line
                    log.warning("%s: %s; trying again", self._name, text)
                    told = text
                self._turned = time.monotonic()
                self._stopping.wait(RETRY_S)

    def _load(self) -> None:
        """Read each source up to its present end; sources that were read before are followed from there."""
        waiting = [source for topic, source in self._sources.items() if topic not in self._next]
        for source in waiting:
            there = spans(self._settings, source.topic)
            ends = {partition: span.high for partition, span in there.items()}
            starts = None if source.newest is None else tails(there, source.newest)
            for messages in read_batches(self._settings, source.topic, ends, starts, ends):
                if self._stopping.is_set():
                    return
                self._deliver(source, messages)
            self._next[source.topic] = ends
        if waiting:
            self._loaded()

    def _follow(self) -> None:
        for messages in follow(self._settings, self._next):
            self._turned = time.monotonic()
            if self._stopping.is_set():
                return
            by_topic: dict[str, list[Message]] = {}
            for message in messages:
                by_topic.setdefault(message.topic(), []).append(message)
            for topic, some in by_topic.items():
                self._deliver(self._sources[topic], some)
            if self._turn is not None:
                self._turn()

    def _deliver(self, source: Source, messages: Sequence[Message]) -> None:
        self._turned = time.monotonic()
        try:
            source.handle(messages)
        except Exception:
            first = messages[0]
            log.exception("%s[%d]@%d and after: left out", source.topic, first.partition(), first.offset())
        if (following := self._next.get(source.topic)) is not None:
            for message in messages:
                following[message.partition()] = message.offset() + 1


class Bridge:
    """From a follower's thread to the event loop: hands a change over and waits until it is applied.

    The wait is what bounds memory when records come faster than the loop takes them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._closed = False

    def close(self) -> None:
        """Wait no more: the loop is about to end."""
        self._closed = True

    def apply(self, change: Callable[[], None]) -> None:
        """Run `change` on the loop."""
        if self._closed:
            return
        done = asyncio.run_coroutine_threadsafe(_call(change), self._loop)
        while not self._closed:
            try:
                done.result(LOOK_S)
                return
            except TimeoutError:
                continue


async def _call(change: Callable[[], None]) -> None:
    change()
