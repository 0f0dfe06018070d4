"""Events into Kafka: each with a future that tells when every replica has it."""

import asyncio
import logging
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmrec_stream.kafka.clients import Headers, producer_config
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.window import Delivery

LINGER_MS = 0.5
"""How long a batch waits for company: a page waits for its answer, and events of one request come together anyway."""

MAX_WAITING = 20_000
"""Records that may wait for the broker: some seconds of a busy shop, 10 MB. Beyond, pages are told to come back."""

CONFIRM_S = 10.0
"""How long Kafka's confirmation is waited for; it takes milliseconds, and a leader's election some seconds. The events
stay under way, and the page asks again with the same ids."""

GIVE_UP_S = 30.0
"""How long a record is tried. A page that has no answer sends its event again: it should soon know that it may."""

POLL_S = 0.1
"""How long the thread waits for a delivery before it looks whether it is to end."""

log = logging.getLogger(__name__)


class Publisher:
    """A producer and the thread that hears of its deliveries. `send` is for the event loop."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        config = producer_config(settings, linger_ms=LINGER_MS) | {"delivery.timeout.ms": int(GIVE_UP_S * 1000)}
        self._producer = Producer(config)
        self._loop = loop
        self._heard: list[tuple[Delivery, str | None]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="deliveries", daemon=True)

    @property
    def well(self) -> bool:
        """Whether deliveries are heard of."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Listen for deliveries."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Deliver what waits, for so long at most, and end the thread. Blocks."""
        self._producer.flush(timeout_s)
        self._stopping.set()
        self._thread.join(timeout_s)

    def __len__(self) -> int:
        """Records that wait for their confirmation."""
        return len(self._producer)

    def send(self, topic: str, key: bytes, value: bytes, headers: Headers) -> Delivery:
        """Send one record; the future's result is None when every replica has it, or why it was given up."""
        delivery: Delivery = self._loop.create_future()

        def heard(error: KafkaError | None, _: Message) -> None:
            self._heard.append((delivery, None if error is None else error.str()))

        try:
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=heard)
        except (BufferError, KafkaException) as error:
            delivery.set_result(str(error) or type(error).__name__)
        return delivery

    def _listen(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.is_set()  # what was heard of until then is passed on
            self._producer.poll(0 if stopping else POLL_S)
            if self._heard:
                heard, self._heard = self._heard, []
                try:
                    self._loop.call_soon_threadsafe(_settle, heard)
                except RuntimeError:  # the loop has ended, and nobody waits any more
                    return


def _settle(heard: Sequence[tuple[Delivery, str | None]]) -> None:
    for delivery, error in heard:
        if not delivery.done():
            delivery.set_result(error)
