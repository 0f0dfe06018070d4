"""The producer accounts for every record, and the configuration is what the settings say."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from mmrec_stream.brokers import apache_kafka, embedded, why_no_embedded, why_no_kafka
from mmrec_stream.contracts.identity import partition_of
from mmrec_stream.errors import UserError
from mmrec_stream.kafka import clients
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer, DeliveryError, client_config
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec


@pytest.fixture
def topic(settings: Settings) -> str:
    name = f"{settings.prefix}log"
    Cluster(settings).create([TopicSpec(name, "user id", 7, 1)])
    return name


@pytest.mark.parametrize("idempotent", [True, False])
def test_records_land_where_murmur2_says(settings: Settings, topic: str, idempotent: bool) -> None:
    users = [f"user-{n}".encode() for n in range(200)] + [b"", "naïve 用户".encode()]
    with BatchProducer(settings, idempotent=idempotent) as producer:
        for user in users:
            producer.send(topic, b"x", key=user, timestamp_ms=1_700_000_000_000, headers=[("h", b"v")])
    assert producer.delivered == len(users)
    messages = list(read(settings, topic))
    assert {m.key(): m.partition() for m in messages} == {user: partition_of(user, 7) for user in users}
    assert {m.timestamp()[1] for m in messages} == {1_700_000_000_000}
    assert messages[0].headers() == [("h", b"v")]


def test_a_full_queue_is_back_pressure(settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "QUEUE_MESSAGES", 10)
    confirmed: list[int] = []
    with BatchProducer(settings) as producer:
        for _ in range(500):
            producer.send(topic, b"x", partition=0, on_delivery=lambda _, message: confirmed.append(message.offset()))
    assert sorted(confirmed) == list(range(500))


@pytest.mark.broker
@pytest.mark.skipif(why_no_embedded() is not None, reason=str(why_no_embedded()))
def test_what_was_not_delivered_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "DELIVERY_TIMEOUT_S", 3.0)
    with embedded() as broker:
        settings = Settings(_env_file=None, bootstrap=broker.bootstrap)  # type: ignore[call-arg]
        Cluster(settings).create([TopicSpec("log", "user id", 1, 1)])
        producer = BatchProducer(settings, idempotent=False)
        producer.send("log", b"arrives")
        producer.flush()
        broker.kill()
        for _ in range(3):
            producer.send("log", b"lost")
        with pytest.raises(DeliveryError, match="3 records were not delivered"):
            producer.flush(10)
        assert producer.delivered == 1


@pytest.mark.kafka
@pytest.mark.skipif(why_no_kafka() is not None, reason=str(why_no_kafka()))
def test_a_crash_of_the_broker_loses_and_repeats_nothing() -> None:
    with apache_kafka() as broker:
        settings = Settings(_env_file=None, bootstrap=broker.bootstrap)  # type: ignore[call-arg]
        Cluster(settings).create([TopicSpec("log", "user id", 1, 1)])
        with BatchProducer(settings) as producer:
            for number in range(2_000):
                producer.send("log", b"%d" % number, key=b"k")
                if number == 1_000:
                    producer.poll(0.01)
                    broker.kill()
            broker.start()
        assert [int(message.value()) for message in read(settings, "log")] == list(range(2_000))


def test_a_record_too_large_for_any_broker_is_refused(settings: Settings, topic: str) -> None:
    with BatchProducer(settings) as producer, pytest.raises(DeliveryError, match=r"[Mm]essage size too large"):
        producer.send(topic, b"x" * 5_000_000)


def test_an_unknown_topic_is_reported_by_kafka(kafka_settings: Settings) -> None:
    producer = BatchProducer(kafka_settings)
    producer.send(f"{kafka_settings.prefix}nowhere", b"x")
    with pytest.raises(DeliveryError, match=r"[Uu]nknown topic"):
        producer.flush()


def test_security_settings_reach_the_client() -> None:
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="shop",
        sasl_password=SecretStr("secret"),
        ssl_ca=Path("/etc/ca.pem"),
    )
    config = client_config(settings)
    assert config["security.protocol"] == "SASL_SSL"
    assert config["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (config["sasl.username"], config["sasl.password"]) == ("shop", "secret")
    assert config["ssl.ca.location"] == "/etc/ca.pem"


def test_sasl_without_credentials_says_what_is_missing() -> None:
    settings = Settings(_env_file=None, security_protocol="SASL_PLAINTEXT")  # type: ignore[call-arg]
    with pytest.raises(UserError, match="MMREC_SASL_USERNAME"):
        client_config(settings)
