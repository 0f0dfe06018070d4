"""The changelog's one writer, on real brokers: who opened the partition last, and nobody else."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import KafkaException

from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import changelog_topic
from streams.changelog import ChangelogLostError, ChangelogWriter, WriterClosedError


class Rows(Sequence[str]):
    """Users whose rows are written; after the first half something else happens."""

    def __init__(self, users: Sequence[str], meanwhile: Callable[[], None]) -> None:
        self._users = users
        self._meanwhile = meanwhile

    def __len__(self) -> int:
        return len(self._users)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return self._users[place]

    def __iter__(self) -> Iterator[str]:
        half = len(self._users) // 2
        yield from self._users[:half]
        self._meanwhile()
        yield from self._users[half:]


def writer(settings: Settings, partition: int = 1) -> ChangelogWriter:
    return ChangelogWriter(settings, changelog_topic(settings), partition)


def committed(settings: Settings, partition: int = 1) -> list[tuple[bytes | None, bytes | None]]:
    """What a restore would find, in the log's order."""
    return [(message.key(), message.value()) for message in read(settings, changelog_topic(settings), [partition])]


@pytest.mark.usefixtures("topics")
def test_rows_and_deletions_are_there_when_a_write_returns(settings: Settings) -> None:
    one = writer(settings)
    one.open()
    one.write(["ann", "bob"], [b"1", b"2"])
    assert committed(settings) == [(b"ann", b"1"), (b"bob", b"2")]
    one.write(["ann", "bob"], [b"3", None])
    assert committed(settings)[2:] == [(b"ann", b"3"), (b"bob", None)]
    assert committed(settings, 0) == []


@pytest.mark.usefixtures("topics")
def test_an_earlier_owner_is_refused(settings: Settings) -> None:
    earlier, later = writer(settings), writer(settings)
    earlier.open()
    earlier.write(["ann"], [b"1"])
    later.open()
    with pytest.raises(ChangelogLostError):
        earlier.write(["ann"], [b"stale"])
    later.write(["ann"], [b"2"])
    assert committed(settings)[-1] == (b"ann", b"2")


@pytest.mark.usefixtures("kafka_topics")
@pytest.mark.parametrize("told", [True, False], ids=["told-of-it", "not-told-yet"])
def test_rows_on_their_way_when_another_opens_the_partition_are_nobodys(kafka_settings: Settings, told: bool) -> None:
    earlier, later = writer(kafka_settings), writer(kafka_settings)
    earlier.open()
    earlier.write(["ann"], [b"1"])

    def meanwhile() -> None:
        earlier._producer.flush()  # the first half is in the log
        later.open()
        later.write(["ann"], [b"2"])
        if told:
            earlier._producer.produce(changelog_topic(kafka_settings), b"stale", "ann", 1)
            with pytest.raises(KafkaException):
                earlier._producer.flush()

    users = ["ann", "bob", "cat", "dan"]
    with pytest.raises(ChangelogLostError):
        earlier.write(Rows(users, meanwhile), [b"stale"] * len(users))
    later.write(["bob"], [b"3"])
    assert committed(kafka_settings) == [(b"ann", b"1"), (b"ann", b"2"), (b"bob", b"3")]


@pytest.mark.usefixtures("kafka_topics")
def test_what_an_owner_left_open_does_not_hold_up_its_successors_readers(kafka_settings: Settings) -> None:
    dead, successor = writer(kafka_settings), writer(kafka_settings)
    dead.open()
    dead._producer.begin_transaction()
    dead._producer.produce(changelog_topic(kafka_settings), b"half", "ann", 1)
    dead._producer.flush()
    began = time.monotonic()
    successor.open()
    successor.write(["ann"], [b"1"])
    assert committed(kafka_settings) == [(b"ann", b"1")]
    assert time.monotonic() - began < 30  # and not the transaction's 60 s


async def test_closing_ends_a_call_that_waits_for_a_broker_that_is_away() -> None:
    away = Settings(_env_file=None, bootstrap="127.0.0.1:1")  # type: ignore[call-arg]
    one, outcome = writer(away), list[BaseException]()

    def opening() -> None:
        try:
            one.open()
        except WriterClosedError as error:
            outcome.append(error)

    thread = threading.Thread(target=opening)
    thread.start()
    await asyncio.sleep(0)
    one.close()
    await asyncio.to_thread(thread.join, 20)
    assert len(outcome) == 1


@pytest.mark.usefixtures("topics")
def test_a_partition_that_does_not_exist_is_no_reason_to_try_for_ever(settings: Settings) -> None:
    one = writer(settings, 99)
    one.open()
    with pytest.raises(ChangelogLostError):
        one.write(["ann"], [b"1"])
