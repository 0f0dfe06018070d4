"""Click to list, seen from outside: publishes events at a given rate and notes when their answers arrive."""

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition
from numpy.typing import NDArray

from benchmarks.events import Message
from mmrec_stream.kafka.reader import FOLLOW_WAIT_MS

STEPS = ("appended", "fetched", "folded", "scored", "published")
"""The product's own times of an event, in the order of its way."""

_DRAIN_S = 15.0
"""How long answers are waited for after the last event: beyond the worst backlog that a run should leave."""


class _Cause(msgspec.Struct):
    partition: int
    offset: int


class _Answer(msgspec.Struct):
    user_id: str
    cause: _Cause
    times: dict[str, float] = {}


_decode = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True)
class Observation:
    """What came of the events of one run."""

    latencies: NDArray[np.float64]
    """ms from publishing an event to receiving the first list that takes it into account, one an answered event."""
    unanswered: int
    lists: int
    """Lists received."""
    arrivals: NDArray[np.float64]
    """When each list was received, s, rising."""
    steps: dict[str, NDArray[np.float64]]
    """ms of each step of the product's own times, one a list; empty where answers carry none."""

    def percentile(self, q: float) -> float:
        """A percentile of the latencies, ms."""
        return float(np.percentile(self.latencies, q))


class Probe:
    """A producer and a consumer of their own, at both ends of a system."""

    def __init__(self, bootstrap: str, source: str, sink: str, partitions: int) -> None:
        self._source = source
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 0, "queue.buffering.max.messages": 1_000_000, "log_level": 0}
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"probe-{source}",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "fetch.wait.max.ms": FOLLOW_WAIT_MS,  # as whoever follows lists in the product
                "log_level": 0,
            }
        )
        places = [TopicPartition(sink, partition) for partition in range(partitions)]
        for place in places:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
        self._consumer.assign(places)
        self._stop = threading.Event()
        self._received: list[tuple[float, Any]] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def run(self, messages: Iterator[Message], rate: float, seconds: float, *, settle: float = 0.0) -> Observation:
        """Publish events at `rate` a second for `seconds`, after `settle` seconds that do not count.

        Args:
            messages: Where the events come from; impressions are left out, as they ask for no list.
            rate: Events a second; infinite publishes them as fast as the client can.
            seconds: With an infinite rate, the count of events is `messages`' own.
            settle: Warm-up of the system under test.
        """
        started = len(self._received)
        sent: list[tuple[float, bytes, int]] = []
        placed: dict[int, int] = {}

        def delivered(number: int) -> Any:
            def note(error: object, record: Any) -> None:
                if error is None:
                    placed[number] = record.offset()

            return note

        events = (message for message in messages if b'"type":"impression"' not in message.value)
        began = time.perf_counter()
        wanted = events if np.isinf(rate) else itertools.islice(events, int(rate * (settle + seconds)))
        for number, message in enumerate(wanted):
            due = began + number / rate
            while (ahead := due - time.perf_counter()) > 0:
                self._producer.poll(0)
                time.sleep(min(ahead, 0.001))
            sent.append((time.perf_counter(), message.key, message.partition))
            while True:
                try:
                    self._producer.produce(
                        self._source, message.value, message.key, message.partition, on_delivery=delivered(number)
                    )
                    break
                except BufferError:
                    self._producer.poll(0.01)
            if number % 64 == 0:
                self._producer.poll(0)
        self._producer.flush(30)
        self._await_quiet(sent[-1][0])
        answers = [(at, _decode(value)) for at, value in self._received[started:]]
        return _match(sent, placed, answers, began + settle)

    def close(self) -> None:
        """Stop listening."""
        self._stop.set()
        self._listener.join()
        self._consumer.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            first = self._consumer.poll(0.1)
            if first is None:
                continue
            records = [first, *self._consumer.consume(1_000, 0)]
            now = time.perf_counter()
            self._received.extend((now, record.value()) for record in records if record.error() is None)

    def _await_quiet(self, last_sent: float) -> None:
        """Wait until no answer has come for a second, or `_DRAIN_S` have passed."""
        deadline = time.perf_counter() + _DRAIN_S
        while time.perf_counter() < deadline:
            newest = max(self._received[-1][0] if self._received else 0.0, last_sent)
            if time.perf_counter() - newest > 1.0:
                return
            time.sleep(0.05)


def _match(
    sent: list[tuple[float, bytes, int]], placed: dict[int, int], answers: list[tuple[float, _Answer]], counted: float
) -> Observation:
    """The first answer of each event's user whose cause is that event or a later one of the same partition."""
    waiting: dict[tuple[str, int], list[tuple[int, float]]] = {}
    for number, (at, key, partition) in enumerate(sent):
        if number in placed and at >= counted:
            waiting.setdefault((key.decode(), partition), []).append((placed[number], at))
    latencies = []
    for received, answer in answers:
        line = waiting.get((answer.user_id, answer.cause.partition), [])
        done = 0
        while done < len(line) and line[done][0] <= answer.cause.offset:
            latencies.append((received - line[done][1]) * 1000)
            done += 1
        del line[:done]
    steps: dict[str, NDArray[np.float64]] = {}
    timed = [answer.times for at, answer in answers if answer.times and at >= counted]
    if timed:
        for before, after in itertools.pairwise(STEPS):
            steps[after] = np.array([times[after] - times[before] for times in timed])
    return Observation(
        latencies=np.array(latencies),
        unanswered=sum(len(line) for line in waiting.values()),
        lists=len(answers),
        arrivals=np.array([at for at, _ in answers]),
        steps=steps,
    )
