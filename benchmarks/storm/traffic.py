"""The traffic of a storm: shoppers whose events are told apart by their times, and a few records that are broken."""

import json
import random
import threading
import time
from bisect import bisect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from benchmarks.storm.judge import Receipts

MIXTURE = {
    ("clicks", "view"): 0.50,
    ("clicks", "click"): 0.19,
    ("purchases", "add_to_cart"): 0.09,
    ("purchases", "remove_from_cart"): 0.03,
    ("purchases", "purchase"): 0.06,
    ("purchases", "cancel"): 0.01,
    ("purchases", "return"): 0.01,
    ("feedback", "impression"): 0.08,
    ("feedback", "rating"): 0.02,
    ("feedback", "follow"): 0.01,
}
"""Topic and type of an event, and its share. More carts than a shop has, so that they fill and empty."""

ITEMS = 500
"""Few, so that what goes into a cart also leaves it, and what is bought comes back."""

CART_ITEMS = 12
"""Items that one user puts into the cart and buys: more than a profile holds, and few enough to meet them again."""

BAD_SHARE = 0.003
"""Of all records. At 3,000 a second nine broken ones a second: a producer that has gone wrong, and no flood."""

LATE_SHARE = 0.15
"""Of the events of a user who was away for some seconds: the time of one that comes later lies before them."""

MOST_PER_USER = 0.8
"""Events a second of one user: each has a second of its own, and their clock must not run away."""

OVERSIZED = 70_000


@dataclass(frozen=True, slots=True)
class Record:
    """What is published: `topic` without its prefix."""

    topic: str
    key: bytes
    value: bytes | None


class Shoppers:
    """Draws records. The same seed and the same times give the same ones.

    No two events of a user share a second, whatever their topics: so the order of the ring, which is kept in event
    time, does not hang on which topic a worker reads first. Some events are late: their time lies before that of others
    that were published earlier.
    """

    def __init__(self, seed: int, users: int, *, bad_share: float = BAD_SHARE) -> None:
        self._bad_share = bad_share
        self._random = random.Random(seed)
        self._users = [f"shopper-{number:06d}" for number in range(users)]
        self._last = [0] * users
        self._gaps: dict[int, int] = {}
        """A second before the last, by user: the next late event has it."""
        self._kinds = list(MIXTURE)
        self._shares = list(accumulate(MIXTURE.values()))

    def next(self, now_s: float) -> Record:
        """The record that is published at `now_s`, s since 1970."""
        number = self._random.randrange(len(self._users))
        topic, kind = self._kinds[min(bisect(self._shares, self._random.random()), len(self._kinds) - 1)]
        user = self._users[number]
        if self._random.random() < self._bad_share:
            return Record(topic, user.encode(), self._bad(user, int(now_s * 1000)))
        ts = self._second(number, int(now_s)) * 1000 + self._random.randrange(1000)
        event: dict[str, Any] = {"type": kind, "user_id": user, "ts": ts}
        if kind == "follow":
            event["brand"] = f"brand-{self._random.randrange(50)}"
        elif topic == "purchases":
            event["item_id"] = f"item-{(number * 7 + self._random.randrange(CART_ITEMS)) % ITEMS}"
        else:
            event["item_id"] = f"item-{self._random.randrange(ITEMS)}"
        if kind == "rating":
            event["rating"] = self._random.randrange(6)
        if kind == "impression":
            event |= {"list_id": "front", "position": self._random.randrange(12)}
        return Record(topic, user.encode(), json.dumps(event, separators=(",", ":")).encode())

    def _second(self, user: int, now_s: int) -> int:
        last = self._last[user]
        if user in self._gaps and self._random.random() < 0.5:
            return self._gaps.pop(user)
        second = max(last + 1, now_s)
        if last and second - last > 2 and self._random.random() < LATE_SHARE:
            self._gaps[user] = self._random.randrange(last + 1, second)
        self._last[user] = second
        return second

    def _bad(self, user: str, now_ms: int) -> bytes | None:
        draw: Callable[[], bytes | None] = self._random.choice(
            (
                lambda: b"not json at all",
                lambda: b'{"type":"click","user_id":"%s","ts":' % user.encode(),
                lambda: b'{"type":"click","user_id":"%s","ts":%d}' % (user.encode(), now_ms),
                lambda: b'{"type":"teleport","user_id":"%s","ts":%d,"item_id":"i"}' % (user.encode(), now_ms),
                lambda: b'{"type":"view","user_id":"%s","ts":%d,"item_id":"i"}' % (user.encode(), now_ms // 1000),
                lambda: b'{"type":"rating","user_id":"%s","ts":%d,"item_id":"i","rating":9}' % (user.encode(), now_ms),
                lambda: (
                    b'{"type":"view","user_id":"%s","ts":%d,"item_id":"i"}' % (user.encode(), now_ms + 2 * 86_400_000)
                ),
                lambda: (
                    b'{"type":"view","user_id":"%s","ts":%d,"item_id":"i","session_id":"%s"}'
                    % (user.encode(), now_ms, b"x" * OVERSIZED)
                ),
                lambda: None,
            )
        )
        return draw()


class Traffic:
    """Publishes records at a rate on a thread of its own, and keeps the brokers' receipts."""

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        *,
        seed: int,
        users: int,
        rate: float,
        most: int | None = None,
        prelude: int = 0,
    ) -> None:
        """Set up; `start` begins.

        Args:
            bootstrap: the brokers.
            prefix: what the names of the topics begin with.
            seed: of the shoppers.
            users: how many there are.
            rate: records a second.
            most: records in all; without end where None.
            prelude: records that are published at once, before the others.

        Raises:
            ValueError: more records a second than so many users can have.
        """
        if rate > MOST_PER_USER * users:
            raise ValueError(
                f"{rate:.0f} records a second are too many for {users} users: at most {MOST_PER_USER} each"
            )
        self.receipts = Receipts()
        self.sent = 0
        self.refused = 0
        """Records that the producer gave up: they may be in the log or not."""
        self._prefix, self._rate, self._most, self._prelude = prefix, rate, most, prelude
        self._shoppers = Shoppers(seed, users)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # no broker is away for so long that an event is given up
                "reconnect.backoff.max.ms": 1_000,  # the storm goes on as soon as a broker is back
                "linger.ms": 5,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_000_000,
                "log_level": 0,
            }
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    @property
    def done(self) -> bool:
        """Whether all records are sent that there will be."""
        return self.sent == self._most

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 120.0) -> int:
        """Send nothing more and wait for what is on its way; returns how many records stay without an answer."""
        self._stop.set()
        self._thread.join()
        return int(self._producer.flush(timeout_s))

    def _publish(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set() and not self.done:
            if (ahead := (self.sent - self._prelude) / self._rate - (time.monotonic() - began)) > 0.002:
                self._producer.poll(ahead)
                continue
            record = self._shoppers.next(time.time())
            while not self._stop.is_set():
                with suppress(BufferError):  # the queue is full while a broker is away
                    self._producer.produce(
                        f"{self._prefix}{record.topic}", record.value, record.key, on_delivery=self._delivered
                    )
                    self.sent += 1
                    break
                self._producer.poll(0.05)
            if self.sent % 50 == 0:
                self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.receipts.add(message.topic(), message.partition(), message.offset(), message.value())
        else:
            self.refused += 1
