"""confluent-kafka clients as the settings say, and a producer that does not lose a record silently."""

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, Message, Producer

from mmrec_stream.errors import UserError
from mmrec_stream.settings import Settings

LOGGER = logging.getLogger(__name__)

# A coordinator that is still loading is asked again for a producer id until it has one: nobody need act on it.
LOGGER.addFilter(lambda record: "Failed to acquire" not in record.getMessage())

Config = dict[str, Any]
Headers = Sequence[tuple[str, bytes]]
OnDelivery = Callable[[KafkaError | None, Message], None]

LINGER_MS = 5.0
"""librdkafka's own default: a batch waits this long for company. Costs a lonely record 5 ms; without it, every record
is a request of its own."""

QUEUE_MESSAGES = 200_000
"""Records that wait in the producer: two seconds of the fastest flow measured. More only delays the back-pressure."""

QUEUE_KBYTES = 256 * 1024
"""The same bound in memory, for large records."""

DELIVERY_TIMEOUT_S = 120.0
"""How long a record may be tried: longer than a broker's restart or a partition's move to a new leader."""


class DeliveryError(UserError):
    """Records were not delivered; the text says how many and why."""


def client_config(settings: Settings) -> Config:
    """What every client needs: where the brokers are and how to talk to them."""
    config: Config = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "mmrec",
        "logger": LOGGER,
        # A broker closes idle connections: nothing to tell anyone.
        "log.connection.close": False,
    }
    if settings.security_protocol != "PLAINTEXT":
        config["security.protocol"] = settings.security_protocol
    if settings.security_protocol.startswith("SASL"):
        if settings.sasl_username is None or settings.sasl_password is None:
            raise UserError(f"{settings.security_protocol} needs MMREC_SASL_USERNAME and MMREC_SASL_PASSWORD")
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.sasl_username
        config["sasl.password"] = settings.sasl_password.get_secret_value()
    if settings.security_protocol.endswith("SSL") and settings.ssl_ca is not None:
        config["ssl.ca.location"] = str(settings.ssl_ca)
    return config


def producer_config(settings: Settings, *, linger_ms: float = LINGER_MS, idempotent: bool = True) -> Config:
    """A producer's configuration: murmur2 as Java has it, every replica's confirmation, no repeats or gaps of ours.

    Args:
        settings: where the brokers are.
        linger_ms: how long a batch waits for company, ms.
        idempotent: whether the broker drops what a retry repeats. Its producer id takes up to a second to get, which a
            command that sends one record need not wait for.
    """
    return client_config(settings) | {
        "acks": "all",
        "enable.idempotence": idempotent,
        "partitioner": "murmur2_random",
        "linger.ms": linger_ms,
        "queue.buffering.max.messages": QUEUE_MESSAGES,
        "queue.buffering.max.kbytes": QUEUE_KBYTES,
        "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
        # A topic that does not exist is a mistake to report, not something to wait two minutes for.
        "topic.metadata.propagation.max.ms": 5_000,
        # Whether a record above the default of 1 MB is taken is the topic's say, and not ours.
        "message.max.bytes": 4 * 1024 * 1024,
    }


def consumer_config(settings: Settings, group: str) -> Config:
    """A consumer's configuration: offsets are committed by hand only, and begin at the beginning."""
    return client_config(settings) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        # How long a fetch waits for the first record. Kafka answers as soon as there is one; the embedded broker looks
        # again after half of it, so this bounds what following it costs.
        "fetch.wait.max.ms": 100,
    }


def open_consumer(settings: Settings, group: str, **extra: object) -> Consumer:
    """A consumer of `group`; `extra` are further configuration pairs, with `_` for `.`."""
    return Consumer(consumer_config(settings, group) | {name.replace("_", "."): value for name, value in extra.items()})


class BatchProducer:
    """Sends many records and accounts for each: a full queue makes `send` wait, a lost record makes `flush` raise."""

    def __init__(self, settings: Settings, *, linger_ms: float = LINGER_MS, idempotent: bool = True) -> None:
        """Open a producer; arguments as for `producer_config`."""
        self._producer = Producer(producer_config(settings, linger_ms=linger_ms, idempotent=idempotent))
        self.delivered = 0
        """Records confirmed by the broker."""
        self.failed = 0
        """Records given up since the last `flush`."""
        self._first_failure = ""

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int = 0,
        headers: Headers | None = None,
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Queue one record.

        Args:
            topic: full name.
            value: None is a tombstone.
            key: decides the partition (murmur2) where `partition` is None.
            partition: where the record goes whatever its key.
            timestamp_ms: the record's timestamp; 0 is the present.
            headers: names and values.
            on_delivery: called from `send`, `poll` or `flush` when the broker has confirmed or refused the record.

        Raises:
            DeliveryError: the queue stays full for `DELIVERY_TIMEOUT_S`, or the record is larger than a broker takes.
        """
        options: dict[str, Any] = {"on_delivery": self._account}
        if on_delivery is not None:

            def account_and_tell(error: KafkaError | None, message: Message) -> None:
                self._account(error, message)
                on_delivery(error, message)

            options["on_delivery"] = account_and_tell
        if partition is not None:
            options["partition"] = partition
        if timestamp_ms:
            options["timestamp"] = timestamp_ms
        if headers:
            options["headers"] = list(headers)
        deadline = monotonic() + DELIVERY_TIMEOUT_S
        while True:
            try:
                self._producer.produce(topic, value, key, **options)
                break
            except BufferError:  # the queue is full: wait for deliveries
                if monotonic() > deadline:
                    raise DeliveryError(
                        f"{topic}: {len(self._producer):,} records wait and none is delivered; is the broker well?"
                    ) from None
                self._producer.poll(0.05)
            except Exception as error:
                raise DeliveryError(f"{topic}: {error}") from error
        self._producer.poll(0)

    def poll(self, timeout_s: float = 0) -> None:
        """Handle deliveries that have come in, waiting up to `timeout_s` for the first."""
        self._producer.poll(timeout_s)

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Wait until every record is delivered.

        Raises:
            DeliveryError: some were not.
        """
        waiting = self._producer.flush(timeout_s)
        failed, reason = self.failed, self._first_failure
        self.failed, self._first_failure = 0, ""
        if failed or waiting:
            reason = reason or f"no answer within {timeout_s:.0f} s"
            raise DeliveryError(f"{failed + waiting:,} records were not delivered: {reason}")

    def __len__(self) -> int:
        """Records queued and not yet confirmed."""
        return len(self._producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.purge()

    def _account(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self._first_failure = self._first_failure or f"{message.topic()}: {error.str()}"
