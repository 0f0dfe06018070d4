"""The network between a worker and the brokers as a process of its own, told to part and to heal."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Self

from mmrec_stream.processes import die_with_parent

SCRIPT = Path(__file__).with_name("network.py")
"""Run as a file: it needs nothing but the standard library, and starts in a tenth of the time."""


class Proxy:
    """A network as a process of its own."""

    def __init__(self, ports: Iterable[tuple[int, int]]) -> None:
        """Start one that listens on the first port of each pair, for the broker on the second."""
        command = [sys.executable, str(SCRIPT), *(f"{mine}:{theirs}" for mine, theirs in ports)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        self._await("ready")

    def cut(self) -> None:
        """Hold back what belongs to the group, from now on."""
        self._say("cut")

    def heal(self) -> None:
        """Let everything pass."""
        self._say("heal")

    def close(self) -> None:
        """End."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _say(self, word: str) -> None:
        _stream(self._process.stdin).write(word + "\n")
        self._await(word)

    def _await(self, word: str) -> None:
        answer = _stream(self._process.stdout).readline().strip()
        if answer != word:
            raise RuntimeError(f"the proxy said {answer!r} instead of {word!r} (status {self._process.poll()})")


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
