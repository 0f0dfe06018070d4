"""The systems under test as processes: started, watched for milestones, and stopped again."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec
import psutil

from mmrec_stream.processes import die_with_parent

Milestone = dict[str, float]


class System:
    """A running process that prints milestones (one JSON object a line) among whatever else it prints."""

    def __init__(self, command: Sequence[str], *, env: dict[str, str] | None = None) -> None:
        self.name = Path(command[0]).name + " " + " ".join(command[1:4])
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._milestones: queue.Queue[Milestone] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, **(env or {})},
            # A benchmark that is killed must not leave a worker behind that slows the next one.
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def milestone(self, name: str, *, timeout: float) -> float:
        """Wait for the milestone `name` and return its value.

        Raises:
            RuntimeError: the process ended before, or `timeout` seconds passed; has the end of its log.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            with contextlib.suppress(queue.Empty):
                milestone = self._milestones.get(timeout=0.2)
                if name in milestone:
                    return milestone[name]
                continue
            if ended:
                break
        raise self.failure(f"no {name!r}")

    def logged(self, text: str, *, timeout: float) -> float:
        """Wait until `text` is in the process's log; returns the time it was seen, ms.

        Raises:
            RuntimeError: the process ended before, or `timeout` seconds passed; has the end of its log.
        """
        deadline = time.monotonic() + timeout
        while self.alive() and time.monotonic() < deadline:
            if text.encode() in self._read_log():
                return time.time() * 1000
            time.sleep(0.01)
        raise self.failure(f"no {text!r} in its log")

    def lines(self, text: str) -> list[str]:
        """The lines of the process's log so far that have `text`."""
        return [line for line in self._read_log().decode(errors="replace").splitlines() if text in line]

    def processor_s(self) -> float:
        """Processor time that the process has taken so far, s."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def failure(self, what: str) -> RuntimeError:
        """An error that carries the end of the process's log."""
        log = self._read_log().decode(errors="replace")
        return RuntimeError(f"{self.name}: {what} (status {self.process.poll()})\n{log[-2_000:]}")

    def stop(self, *, kill: bool = False, patience: float = 20.0) -> None:
        """End the process: politely, or after `patience` seconds not so; at once with `kill`."""
        if self._log.closed:
            return
        if self.alive():
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._log.close()

    def _read_log(self) -> bytes:
        # The file's position is shared with the process that writes it, so it is read without moving it.
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"{"):
                with contextlib.suppress(msgspec.DecodeError):
                    self._milestones.put(msgspec.json.decode(line, type=Milestone))


def await_true(condition: Callable[[], object], what: str, *, patience_s: float, look_s: float = 0.05) -> float:
    """Wait until `condition` holds, looking every `look_s`; returns when it was seen, by the monotonic clock.

    Raises:
        RuntimeError: it does not within `patience_s`; names `what` was waited for.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {patience_s:.0f} s for {what}")
        time.sleep(look_s)
    return time.monotonic()


@contextlib.contextmanager
def running(command: Sequence[str], *, env: dict[str, str] | None = None) -> Iterator[System]:
    """A system for the duration of a block."""
    system = System(command, env=env)
    try:
        yield system
    finally:
        system.stop()


def peer(module: str, *arguments: object) -> list[str]:
    """The command of one of `benchmarks/peers`."""
    return [sys.executable, "-m", f"benchmarks.peers.{module}", *map(str, arguments)]


def mmrec(*arguments: str) -> list[str]:
    """The command line of the product, in this interpreter's environment."""
    return [sys.executable, "-m", "mmrec_stream", *arguments]
