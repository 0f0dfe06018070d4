"""The brokers that tests run on, and an isolated corner of one for each test.

Ask for one of these fixtures:

- `broker`: the test runs once on every broker that can be had here: the embedded one, Apache Kafka at KAFKA_HOME,
  testcontainers' Kafka where a Docker engine answers, and the one MMREC_BOOTSTRAP names. It is shared by the session:
  never stop it. `broker.bootstrap`, `broker.name`, `broker.is_kafka`.
- `settings`: `broker`'s address with a topic prefix, consumer group and data folder of the test's own.
- `topics`: the same with all our topics created; a `Topics`.
- `kafka`, `kafka_settings`, `kafka_topics`: the same on one real Kafka; skipped where there is none.
- `mmrec`: runs a command line in-process with given settings: `mmrec(settings, "topics")` -> result with
  `exit_code`, `stdout`, `stderr`, `output`.

Tests that crash or restart a broker start their own (`mmrec_stream.brokers.apache_kafka()`).
The report's head says which brokers are used, and on which processor; its end how the tests went on each.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import hypothesis
import pytest
from typer.testing import CliRunner

from mmrec_stream.brokers import apache_kafka, embedded, why_no_embedded, why_no_kafka
from mmrec_stream.cli import app
from mmrec_stream.errors import UserError
from mmrec_stream.kafka.plan import ensure_topics
from mmrec_stream.processor import kernels, these_instruction_sets, this_processor
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics

CONTAINER_IMAGE = "confluentinc/cp-kafka:7.9.0"
"""Apache Kafka 3.9; testcontainers' start script is written for the images of this publisher."""

# The first example of a test may compile (numba) or load a model: no deadline for a single one.
hypothesis.settings.register_profile("mmrec", deadline=None)
hypothesis.settings.load_profile("mmrec")

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What the person running the tests has set is for the broker fixtures alone, never for the settings under test.
EXTERNAL_BOOTSTRAP = os.environ.pop("MMREC_BOOTSTRAP", None)
RUN = token_hex(3)
_serial = count(1)


@dataclass(frozen=True)
class RunningBroker:
    """A broker that tests may use, whoever started it."""

    bootstrap: str
    name: str
    is_kafka: bool


@dataclass(frozen=True)
class Kind:
    """A way to have a broker. `missing` says why there is none."""

    label: str
    is_kafka: bool
    name: str
    """What it is, for the report's head."""
    missing: str | None
    open: Callable[[], tuple[RunningBroker, Callable[[], None]]]


@dataclass
class Pool:
    """The brokers started in this session, by label."""

    running: dict[str, RunningBroker] = field(default_factory=dict)
    closers: list[Callable[[], None]] = field(default_factory=list)

    def get(self, label: str) -> RunningBroker:
        """The broker of a kind, started at the first call."""
        if label not in self.running:
            kind = next(kind for kind in kinds() if kind.label == label)
            self.running[label], close = kind.open()
            self.closers.append(close)
        return self.running[label]


@cache
def kinds() -> list[Kind]:
    """Every way to have a broker, available or not."""
    return [
        Kind("embedded", False, "in memory, from PyPI", why_no_embedded(), _open_embedded),
        Kind("kafka", True, f"KAFKA_HOME={os.environ.get('KAFKA_HOME')}", why_no_kafka(), _open_kafka),
        Kind("container", True, CONTAINER_IMAGE, _why_no_container(), _open_container),
        Kind("external", True, f"MMREC_BOOTSTRAP={EXTERNAL_BOOTSTRAP}", _why_no_external(), _open_external),
    ]


def available(kafka_only: bool = False) -> list[str]:
    return [kind.label for kind in kinds() if kind.missing is None and (kind.is_kafka or not kafka_only)]


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    for close in reversed(pool.closers):
        close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker" in metafunc.fixturenames:
        metafunc.parametrize("broker", available(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, pool: Pool) -> RunningBroker:
    """Each broker that can be had, in turn."""
    return pool.get(request.param)


@pytest.fixture(scope="session")
def kafka(pool: Pool) -> RunningBroker:
    """One real Kafka."""
    labels = available(kafka_only=True)
    if not labels:
        reasons = "; ".join(kind.missing for kind in kinds() if kind.is_kafka and kind.missing)
        pytest.skip(f"needs Apache Kafka: {reasons}")
    return pool.get(labels[0])


@pytest.fixture
def settings(broker: RunningBroker, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return corner(broker, request.node.name, tmp_path)


@pytest.fixture
def kafka_settings(kafka: RunningBroker, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return corner(kafka, request.node.name, tmp_path)


@pytest.fixture
def topics(settings: Settings) -> Topics:
    return with_topics(settings)


@pytest.fixture
def kafka_topics(kafka_settings: Settings) -> Topics:
    return with_topics(kafka_settings)


def corner(broker: RunningBroker, test: str, folder: Path, **more: Any) -> Settings:
    """Settings for one test: names of its own on a broker that others use too."""
    slug = f"{RUN}-{next(_serial)}-{re.sub(r'[^a-zA-Z0-9]+', '-', test)[:40].strip('-')}"
    own = {"prefix": f"{slug}.", "app_id": slug, "data_dir": folder / "var", "web_port": 0}
    return Settings(_env_file=None, bootstrap=broker.bootstrap, **{**own, **more})  # type: ignore[call-arg]


def with_topics(settings: Settings) -> Topics:
    """Create all our topics."""
    ensure_topics(settings)
    return Topics.of(settings)


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process these settings."""
    values = settings.model_dump(exclude_unset=True)
    return {
        f"MMREC_{name.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None
    }


@dataclass(frozen=True)
class Outcome:
    """How a command line ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@pytest.fixture
def mmrec() -> Callable[..., Outcome]:
    """Run `mmrec ARGS…` in this process; a `UserError` ends as the command line ends it."""

    def run(settings: Settings, *args: str) -> Outcome:
        result = CliRunner().invoke(app, list(args), env=environment(settings) | {"COLUMNS": "160"})
        if isinstance(result.exception, UserError):
            return Outcome(1, result.stdout, f"{result.stderr}mmrec: {result.exception}\n")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


def pytest_report_header() -> list[str]:
    processor = f"processor: {this_processor()}, {', '.join(these_instruction_sets())}; "
    processor += ", ".join(f"{library} for {target}" for library, target in kernels().items())
    brokers = (f"broker {kind.label}: {f'not used: {kind.missing}' if kind.missing else kind.name}" for kind in kinds())
    return [processor, *brokers]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by the broker they ask for, and note which one they get or, by their own mark, start."""
    real = available(kafka_only=True)
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        label = None
        if "broker" in fixtures:
            item.add_marker("broker")
            callspec = getattr(item, "callspec", None)
            label = callspec.params.get("broker") if callspec else None
        elif "kafka" in fixtures:
            item.add_marker("kafka")
            label = real[0] if real else "kafka"
        elif any(item.iter_markers("kafka")):
            label = "kafka"
        elif any(item.iter_markers("broker")):
            label = "embedded"
        item.user_properties.append(("broker", label or "no broker"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How the tests went on each broker."""
    counts: dict[str, dict[str, int]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            label = dict(getattr(report, "user_properties", ())).get("broker", "no broker")
            of_label = counts.setdefault(str(label), {})
            of_label[outcome] = of_label.get(outcome, 0) + 1
    if counts:
        terminalreporter.section("by broker")
        for label, outcomes in sorted(counts.items()):
            terminalreporter.write_line(f"{label}: {', '.join(f'{n} {name}' for name, n in outcomes.items())}")


def _open_embedded() -> tuple[RunningBroker, Callable[[], None]]:
    broker = embedded().start()
    return RunningBroker(broker.bootstrap, broker.name, is_kafka=False), broker.close


def _open_kafka() -> tuple[RunningBroker, Callable[[], None]]:
    broker = apache_kafka().start()
    return RunningBroker(broker.bootstrap, broker.name, is_kafka=True), broker.close


def _open_container() -> tuple[RunningBroker, Callable[[], None]]:
    from testcontainers.community.kafka import KafkaContainer

    container = KafkaContainer(CONTAINER_IMAGE).with_kraft()
    container.start()
    return RunningBroker(container.get_bootstrap_server(), CONTAINER_IMAGE, is_kafka=True), container.stop


def _open_external() -> tuple[RunningBroker, Callable[[], None]]:
    bootstrap = EXTERNAL_BOOTSTRAP or ""
    return RunningBroker(bootstrap, f"the broker at {bootstrap}", is_kafka=True), lambda: None


def _why_no_external() -> str | None:
    return None if EXTERNAL_BOOTSTRAP else "MMREC_BOOTSTRAP is not set"


def _why_no_container() -> str | None:
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return "no Docker engine"
    try:
        import docker  # type: ignore[import-untyped]

        docker.from_env(timeout=5).ping()
    except Exception as error:
        return f"Docker does not answer: {error}"
    return None
