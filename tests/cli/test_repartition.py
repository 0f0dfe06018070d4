"""`mmrec repartition` copies a foreign topic whole, keyed and placed by user, and goes on where it ended."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from confluent_kafka import Message, Producer

from mmrec_stream.contracts.dead_letters import decode_dead_letter
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.repartition import group_of
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, TopicSpec
from tests.cli.folding import click
from tests.conftest import Outcome, environment

Mmrec = Callable[..., Outcome]
USERS = [f"user-{number}" for number in range(60)]


@pytest.fixture
def shop(settings: Settings, topics: Topics) -> str:
    """A foreign topic of another number of partitions, by a producer that partitions by CRC32."""
    name = f"{settings.prefix}shop"
    Cluster(settings).create([TopicSpec(name, "user id", 3, 1)])
    fill(settings, name, [click(user, item=f"item-{number}") for number, user in enumerate(USERS)])
    return name


def fill(settings: Settings, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": settings.bootstrap})
    for value in values:
        producer.produce(topic, value, b"some-session", headers=[("trace", b"1")])
    assert producer.flush(30) == 0


def test_every_event_is_copied_unchanged_to_its_users_partition(
    settings: Settings, topics: Topics, shop: str, mmrec: Mmrec
) -> None:
    buy = click("ann").replace(b"click", b"purchase")
    fill(settings, shop, [buy, b"not json"])
    outcome = mmrec(settings, "repartition", "--from", shop, "--once")
    assert outcome.exit_code == 0, outcome.output
    copies: list[Message] = list(read(settings, topics.clicks))
    assert sorted(m.value() for m in copies) == sorted(m.value() for m in read(settings, shop) if b"click" in m.value())
    for message in copies:
        assert message.partition() == partition_of(message.key(), settings.partitions)
        assert message.key() in message.value()
        assert message.headers() == [("trace", b"1")]
    assert [m.value() for m in read(settings, topics.purchases)] == [buy]
    (letter,) = [decode_dead_letter(m.value()) for m in read(settings, topics.dead_letters)]
    assert (letter.origin.topic, letter.value, letter.fault) == (shop, b"not json", "not_json")
    assert outcome.stdout.split() == ["60", topics.clicks, "1", topics.dead_letters, "1", topics.purchases]


def test_a_second_run_copies_only_what_is_new(settings: Settings, topics: Topics, shop: str, mmrec: Mmrec) -> None:
    assert mmrec(settings, "repartition", "--from", shop, "--once").exit_code == 0
    assert "nothing to copy" in mmrec(settings, "repartition", "--from", shop, "--once").stdout
    fill(settings, shop, [click("late")])
    assert mmrec(settings, "repartition", "--from", shop, "--once").exit_code == 0
    assert len(list(read(settings, topics.clicks))) == len(USERS) + 1
    assert sum(Cluster(settings).committed(group_of(settings), [shop]).values()) == len(USERS) + 1


def test_it_follows_until_it_is_stopped(settings: Settings, topics: Topics, shop: str) -> None:
    command = [sys.executable, "-c", "from mmrec_stream.cli import main; main()", "repartition", "--from", shop]
    copier = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(settings))
    wanted = len(USERS)
    for extra in range(2):
        while len(list(read(settings, topics.clicks))) < wanted:
            assert copier.poll() is None
        if not extra:
            fill(settings, shop, [click("late")])
            wanted += 1
    copier.send_signal(2)
    assert copier.communicate(timeout=60)[0].split() == [str(wanted), topics.clicks]
    assert copier.returncode == 0


def test_a_killed_copier_is_taken_over_without_a_loss(
    kafka_settings: Settings, kafka_topics: Topics, mmrec: Mmrec
) -> None:
    name, cluster = f"{kafka_settings.prefix}shop", Cluster(kafka_settings)
    cluster.create([TopicSpec(name, "user id", 3, 1)])
    values = {click(user, item=f"item-{number}") for number in range(1_000) for user in USERS}
    fill(kafka_settings, name, sorted(values))
    command = [sys.executable, "-c", "from mmrec_stream.cli import main; main()", "repartition", "--from", name]
    copier = subprocess.Popen(command, env=environment(kafka_settings), stderr=subprocess.DEVNULL)
    while not cluster.committed(group_of(kafka_settings), [name]):
        assert copier.poll() is None
    copier.kill()
    copier.wait()
    assert mmrec(kafka_settings, "repartition", "--from", name, "--once").exit_code == 0
    assert {message.value() for message in read(kafka_settings, kafka_topics.clicks)} == values


def test_topics_that_would_be_counted_twice_are_refused(
    settings: Settings, topics: Topics, shop: str, mmrec: Mmrec
) -> None:
    ours = mmrec(settings, "repartition", "--from", topics.clicks, "--once")
    assert (ours.exit_code, "one of our own topics" in ours.stderr) == (1, True)
    listed = settings.model_copy(update={"behaviour_topics": [shop]})
    read_already = mmrec(listed, "repartition", "--from", shop, "--once")
    assert (read_already.exit_code, "MMREC_BEHAVIOUR_TOPICS" in read_already.stderr) == (1, True)
    missing = mmrec(settings, "repartition", "--from", "nowhere", "--once")
    assert (missing.exit_code, "topic nowhere does not exist" in missing.stderr) == (1, True)
