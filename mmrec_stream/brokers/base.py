"""A broker as a child process: started, awaited, stopped, crashed and restarted the same way, whichever it is."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from mmrec_stream.errors import UserError
from mmrec_stream.processes import die_with_parent

LOOPBACK = "127.0.0.1"

START_TIMEOUT_S = 90.0
"""Apache Kafka starts in 3–4 s on an idle core; a machine that runs other work on every core needs many times that."""

STOP_TIMEOUT_S = 30.0
"""A clean stop takes 1–2 s. Kafka flushes its logs meanwhile, so it gets time before it is killed."""

POLL_S = 0.02
"""How often readiness is asked for: the embedded broker is ready after 20 ms."""

PORTS = range(20_000, 32_000)
"""Below the range that Linux and macOS take outgoing connections' ports from, so that no client of this machine
sits on the port while the broker restarts."""

LOG_TAIL_LINES = 20


class Broker(ABC):
    """One broker node on loopback. Use it as a context manager, or call `start` and `close`.

    The broker dies with the thread that started it, on Linux: start it where the process lives, in the main thread.
    """

    keeps_data: bool
    """Whether what was written survives a restart."""

    def __init__(self, *, port: int = 0, data: Path | None = None) -> None:
        """Choose where the broker will be.

        Args:
            port: client port; 0 takes a free one.
            data: folder for data and log; a temporary one, removed by `close`, where None.
        """
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if data is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mmrec-broker-")
            data = Path(self._temporary.name)
        self.data = data.absolute()
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The broker's name and version, for people."""

    @property
    def bootstrap(self) -> str:
        """The bootstrap address, `host:port`."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def log_path(self) -> Path:
        """Where the broker's own log goes."""
        return self.data / "broker.log"

    @property
    def pid(self) -> int | None:
        """The process id, while started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the broker and wait until it answers a metadata request.

        Raises:
            UserError: the port is in use, or the process ended or did not answer in time; then the text has the end
                of its log.
        """
        self.launch()
        self.await_ready()
        return self

    def launch(self) -> None:
        """Start the process where it does not run, without waiting for it: `await_ready` does.

        Raises:
            UserError: the port is in use.
        """
        if self.running:
            return
        if _listens(self.port):  # its answers would be taken for ours
            raise UserError(f"port {self.port} on {LOOPBACK} is in use: choose another, or 0 for a free one")
        self.data.mkdir(parents=True, exist_ok=True)
        self._prepare()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data,
                env={**_inherited_environment(), **self._environment()},
                start_new_session=True,  # Ctrl-C in the terminal is ours to answer, with a clean stop
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )

    def await_ready(self) -> None:
        """Wait until the broker answers a metadata request; one that does not is killed.

        Raises:
            UserError: the process ended or did not answer in time; the text has the end of its log.
        """
        try:
            self._await_answer()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop cleanly (SIGTERM); kill what does not stop in `STOP_TIMEOUT_S`. The data stay."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Crash: SIGKILL, as a power cut would."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> Self:
        """Stop where it runs, then start on the same port and data."""
        self.stop()
        return self.start()

    def wait(self) -> int:
        """Wait until the process ends by itself; its exit status."""
        if self._process is None:
            raise RuntimeError("the broker was not started")
        return self._process.wait()

    def close(self) -> None:
        """Stop, and remove the data folder if it was a temporary one."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def log_tail(self) -> str:
        """The last lines of the broker's log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _command(self) -> list[str]:
        """The command line that runs the broker in the foreground."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write what must lie in `data` before the process starts."""

    def _environment(self) -> Mapping[str, str]:
        """Variables of the process beside the inherited ones."""
        return {}

    def _await_answer(self) -> None:
        process, deadline = self._process, monotonic() + START_TIMEOUT_S
        if process is None:
            raise RuntimeError("the broker was not started")
        while monotonic() < deadline:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(POLL_S)
                raise UserError(
                    f"{self.name} ended with status {status} at its start; its log says:\n{self.log_tail()}"
                )
            if _listens(self.port) and answers(self.bootstrap):
                return
        raise UserError(f"{self.name} did not answer within {START_TIMEOUT_S:.0f} s. Its log:\n{self.log_tail()}")


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise UserError(f"no free port between {PORTS.start} and {PORTS.stop} on {LOOPBACK}")


def answers(bootstrap: str, timeout_s: float = 2.0) -> bool:
    """Whether a broker at `bootstrap` (no security) answers a metadata request within `timeout_s`."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _inherited_environment() -> dict[str, str]:
    """The variables a broker needs of ours: brokers read many by name, and a stray one must not move a listener."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "JAVA_HOME", "LANG") if name in os.environ}
