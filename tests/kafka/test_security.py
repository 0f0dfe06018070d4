"""The security settings are enough to talk to a real Kafka that demands a password and TLS."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from mmrec_stream.brokers import apache_kafka, free_port, why_no_kafka
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.admin import Cluster
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.settings import Settings
from mmrec_stream.topics import TopicSpec

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(why_no_kafka() is not None, reason=str(why_no_kafka())),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
]

JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="shop" password="correct" user_shop="correct";'
)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A broker with a SASL_SSL listener; the certificate authority in `ssl_ca`."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*request.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    plain, controller, port = free_port(), free_port(), free_port()
    properties = {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SECURE://127.0.0.1:{port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SECURE://127.0.0.1:{port}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.secure.plain.sasl.jaas.config": JAAS,
        "listener.name.secure.ssl.keystore.type": "PEM",
        "listener.name.secure.ssl.keystore.key": inline(key),
        "listener.name.secure.ssl.keystore.certificate.chain": inline(certificate),
    }
    with apache_kafka(port=plain, properties=properties):
        yield secure(port, certificate, "correct")


def test_a_password_and_tls_work(secured: Settings) -> None:
    Cluster(secured).create([TopicSpec("secret", "user id", 1, 1)])
    with BatchProducer(secured) as producer:
        producer.send("secret", b"value")
    assert [message.value() for message in read(secured, "secret")] == [b"value"]


def test_a_wrong_password_is_no_broker(secured: Settings) -> None:
    wrong = secured.model_copy(update={"sasl_password": SecretStr("wrong")})
    with pytest.raises(UserError, match="no broker answers"):
        Cluster(wrong).partitions(timeout_s=3)


def test_an_unknown_authority_is_no_broker(secured: Settings) -> None:
    with pytest.raises(UserError, match="no broker answers"):
        Cluster(secured.model_copy(update={"ssl_ca": None})).partitions(timeout_s=3)


def secure(port: int, authority: Path, password: str) -> Settings:
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        bootstrap=f"127.0.0.1:{port}",
        security_protocol="SASL_SSL",
        sasl_username="shop",
        sasl_password=SecretStr(password),
        ssl_ca=authority,
    )


def inline(pem: Path) -> str:
    """A PEM file as one value of a properties file."""
    return pem.read_text().replace("\n", "\\n")
