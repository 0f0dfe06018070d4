"""`mmrec broker` prints an address that works, and stops cleanly at Ctrl-C and SIGTERM."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmrec_stream.brokers import free_port, why_no_embedded, why_no_kafka
from mmrec_stream.brokers.base import answers

KINDS = [
    pytest.param(
        "embedded", marks=[pytest.mark.broker, pytest.mark.skipif(why_no_embedded() is not None, reason="not here")]
    ),
    pytest.param(
        "kafka", marks=[pytest.mark.kafka, pytest.mark.skipif(why_no_kafka() is not None, reason=str(why_no_kafka()))]
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_until_it_is_stopped(kind: str, stop: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    process = start("--kind", kind, "--port", str(port), "--data", str(tmp_path / "data"))
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address == f"127.0.0.1:{port}"
    assert answers(address)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Ctrl-C stops it" in errors
    assert "Traceback" not in errors
    assert not answers(address, 0.2)
    assert (tmp_path / "data" / "broker.log").exists()


def test_a_kind_that_cannot_be_had_says_why() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_HOME"}
    process = start("--kind", "kafka", env=environment)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.strip() == "mmrec: no Apache Kafka: KAFKA_HOME is not set"


def start(*args: str, env: dict[str, str] | None = None) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from mmrec_stream.cli import main; main()", "broker", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
