"""Kafka records as confluent-kafka gives them, made by hand: its own class can't be."""

from dataclasses import dataclass

from faust.types import TP


@dataclass(frozen=True)
class Place:
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True)
class Fetched:
    """A record with the accessors of `confluent_kafka.Message`."""

    place: Place
    time_ms: int
    a_key: bytes | None
    a_value: bytes | None

    def topic(self) -> str:
        return self.place.topic

    def partition(self) -> int:
        return self.place.partition

    def offset(self) -> int:
        return self.place.offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self.time_ms

    def key(self) -> bytes | None:
        return self.a_key

    def value(self) -> bytes | None:
        return self.a_value


def fetched(
    topic: str,
    partition: int,
    offset: int,
    value: bytes | None = b"{}",
    key: bytes | None = b"ann",
    time_ms: int = 1_700_000_000_000,
) -> Fetched:
    return Fetched(Place(topic, partition, offset), time_ms, key, value)


def records(tp: TP, *offsets: int) -> list[Fetched]:
    return [fetched(tp.topic, tp.partition, offset) for offset in offsets]
