import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import CASES, main
from benchmarks.kafka import running_broker

pytest.importorskip("matplotlib", reason="the benchmarks' libraries are not installed: extra `bench`")


def test_an_unknown_case_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sterams"]) == 2
    assert "stream" in capsys.readouterr().out


@pytest.mark.parametrize("case", [*CASES, "lighthouse"])
def test_every_case_explains_itself(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", case, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.skipif("KAFKA_HOME" not in os.environ, reason="KAFKA_HOME is not set")
def test_the_stream_case_measures_ours_beside_a_bare_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import results, stream

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    stream.command(quick=True, rounds=1, events_count=200_000, only="mmrec,bare confluent")
    figures = [
        msgspec.json.decode(line, type=results.Figure) for line in (tmp_path / "stream.jsonl").read_bytes().splitlines()
    ]
    rates = {figure.system: figure.value for figure in figures if figure.case == "stream.throughput"}
    assert rates.keys() == {"mmrec", "mmrec, embedded broker", "bare confluent"}
    assert min(rates.values()) > 1_000
    assert (tmp_path / "stream-throughput.png").exists()
    with running_broker() as broker:
        assert broker.name.startswith("Apache Kafka")
