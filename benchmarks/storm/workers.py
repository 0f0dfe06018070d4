"""Workers as a supervisor runs them: started again when they end, and asked or made to end by a storm."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmrec_stream.brokers.base import LOOPBACK, free_port
from mmrec_stream.processes import die_with_parent

COMMAND = (sys.executable, "-m", "mmrec_stream", "worker")

STOP_S = 30.0
"""How long a worker may take to end when it is asked to: what orchestrators allow by default."""

AGAIN_S = 1.0
"""After how long one that has ended by itself is started again."""


@dataclass(frozen=True)
class Ending:
    """How a process of a worker ended."""

    worker: str
    cause: str
    """`killed`, `stopped` (it was asked to), `late` (it was asked to and had to be killed), `itself`."""
    status: int
    log: Path

    @property
    def traceback(self) -> bool:
        """Whether it left one in its log."""
        return b"Traceback (most recent call last)" in self.log.read_bytes()

    @property
    def well(self) -> bool:
        """Whether it ended as one should: status 0 and no traceback when asked to; killed, it can't choose.

        One that was asked before it had said a word had not begun: the interpreter was still starting.
        """
        if self.cause == "killed":
            return True
        begun = self.log.stat().st_size > 0
        unbegun = not begun and self.status == -signal.SIGTERM
        return self.cause == "stopped" and (unbegun or (self.status == 0 and not self.traceback))


class Worker:
    """A place for a worker. Its processes come and go, one at a time."""

    def __init__(self, name: str, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.endings: list[Ending] = []
        self.starts = 0
        self.frozen = False
        self._env = {**os.environ, **env, "MMREC_WEB_PORT": str(self.port)}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = ""
        self._asked_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, while there is one."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """Where the present process, or else the last one, logs to."""
        return self._folder / f"{self.name}-{self.starts}.log"

    @property
    def down(self) -> bool:
        """Whether there is no process."""
        return self._process is None

    @property
    def free(self) -> bool:
        """Whether it runs, and nothing is being done to it."""
        return self._process is not None and not self.frozen and not self._asked

    def start(self) -> None:
        """Start a process where there is none."""
        if self._process is not None:
            return
        self.starts += 1
        self._asked = ""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                COMMAND,
                env=self._env,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the storm to answer, and what it leaves behind would go on working.
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
            )

    def kill(self) -> None:
        """SIGKILL, whatever state it is in."""
        if self._process is not None:
            self._asked = self._asked or "killed"
            self._process.kill()
            self._process.wait()
            self.frozen = False
            self.look()

    def stop(self) -> None:
        """SIGTERM; `look` sees it end, and kills it when it takes too long."""
        if self._process is not None:
            self._asked, self._asked_at = "stopped", time.monotonic()
            self._process.terminate()

    def freeze(self) -> None:
        """SIGSTOP."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            self.frozen = True

    def thaw(self) -> None:
        """SIGCONT, where it stands still."""
        if self._process is not None and self.frozen:
            self._process.send_signal(signal.SIGCONT)
        self.frozen = False

    def look(self) -> Ending | None:
        """See whether the process has ended; how, the first time that it is seen."""
        if self._process is None:
            return None
        status = self._process.poll()
        if status is None:
            if self._asked == "stopped" and time.monotonic() > self._asked_at + STOP_S:
                self._asked = "late"
                self._process.kill()
            return None
        self._process = None
        self.frozen = False
        ending = Ending(self.name, self._asked or "itself", status, self.log)
        self.endings.append(ending)
        return ending

    def page(self, path: str, timeout_s: float = 1.0) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of one of its pages; (0, {}) where none answers."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/{path}", timeout=timeout_s) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except (OSError, ValueError):
            return 0, {}

    @property
    def ready(self) -> bool:
        """Whether its page says that it serves its partitions."""
        return self.free and self.page("ready", 0.3)[0] == 200

    @property
    def idle(self) -> bool:
        """Whether it serves and owes nobody a list, not even one that it has put off while it was behind."""
        status, page = self.page("ready") if self.free else (0, {})
        return status == 200 and not page.get("lists_due") and not page.get("lists_put_off")
