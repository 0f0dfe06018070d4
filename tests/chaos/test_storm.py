"""Two minutes of bad weather on Kafka: workers and the broker fail under load, also while workers start and restore."""

from pathlib import Path

import pytest

from benchmarks.storm.faults import Kind
from benchmarks.storm.run import Weather, have
from mmrec_stream.brokers import why_no_kafka

WEATHER = Weather(
    seed=2,
    users=10_000,
    rate=1_500,
    prelude=100_000,  # so that a restore takes its time
    seconds=60,
    kinds=(Kind.KILL, Kind.STOP, Kind.FREEZE_LONG, Kind.VISIT, Kind.AMBUSH),
    last=Kind.BROKER,  # until it is back, little can be lost: so not in between
    gap_s=(3.0, 7.0),  # about what a worker needs to start
    drain_s=60,
)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(why_no_kafka() is not None, reason=str(why_no_kafka()))
def test_a_storm_loses_and_doubles_nothing(tmp_path: Path) -> None:
    outcome = have(WEATHER, tmp_path)
    for ending in outcome.bad_stops:
        print(f"{ending.worker} {ending.cause}, status {ending.status}:\n{ending.log.read_text()[-3_000:]}")
    assert outcome.early > 0  # else no fault has hit a worker that was starting or restoring
    assert set(outcome.faults) == {*WEATHER.kinds, Kind.BROKER}
    assert outcome.verdict.acknowledged > 10_000
    assert {name: count for name, count in outcome.failures.items() if count} == {}, outcome.verdict.examples
