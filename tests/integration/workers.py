"""Workers as processes, and what can be awaited of them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmrec_stream.contracts.behaviour import BehaviourEvent, encode_event
from mmrec_stream.contracts.dead_letters import DeadLetter, decode_dead_letter
from mmrec_stream.contracts.recommendations import RecommendationList, decode_list
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read, spans
from mmrec_stream.profiles.record import Records, from_bytes
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic

WORKER = (sys.executable, "-m", "mmrec_stream", "worker")
FAUST = (sys.executable, "-m", "faust", "-A", "streams.app", "worker", "--without-web", "-l", "warn")


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 60) -> Any:
    """The condition's first true value; it is asked again until then."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s for {what}; last: {value!r}"
        time.sleep(0.05)
    return value


class WorkerProcess:
    """A worker of its own process; `ready` when it serves its partitions."""

    def __init__(self, settings: Settings, log: Path, command: Sequence[str] = WORKER, **more: object) -> None:
        self.port = _free_port()
        self.log = log
        given = settings.model_dump(exclude_defaults=True) | {"web_port": self.port} | more
        environment = {f"MMREC_{name.upper()}": _text(value) for name, value in given.items() if value is not None}
        with log.open("ab") as file:
            self.process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)

    def status(self) -> dict[str, Any]:
        """What its health page says; empty while it does not answer."""
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()[-4000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                status: dict[str, Any] = json.load(answer)
                return status
        except urllib.error.HTTPError as error:
            unwell: dict[str, Any] = json.load(error)
            return unwell
        except OSError:
            return {}

    def wait_ready(self, partitions: Iterable[int] | None = None) -> Self:
        """Wait until it serves, exactly `partitions` if given."""
        wanted = sorted(partitions) if partitions is not None else None

        def ready() -> bool:
            status = self.status()
            return bool(status.get("ready")) and wanted in (None, status["partitions"])

        wait_for(f"a worker serving {wanted if wanted is not None else 'its partitions'}", ready)
        return self

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(30)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        if error is not None:
            print(self.log.read_text()[-6000:])


def publish(settings: Settings, events: Iterable[BehaviourEvent]) -> int:
    """Send events to their topics; how many there were."""
    topics, count = Topics.of(settings), 0
    with BatchProducer(settings) as producer:
        for event in events:
            producer.send(topics.of_event(event), encode_event(event), key=event.user_id.encode())
            count += 1
    return count


def profiles(settings: Settings) -> dict[str, Any]:
    """Each user's newest profile, from the changelog alone."""
    newest = {
        (message.key() or b"").decode(): message.value() or b"" for message in read(settings, changelog_topic(settings))
    }
    if not newest:
        return {}
    records: Records = from_bytes(list(newest.values()))
    return dict(zip(newest, records, strict=True))


def folded(settings: Settings) -> int:
    """Events folded, from the changelog alone."""
    return sum(int(record["events"]) for record in profiles(settings).values())


def lists(settings: Settings) -> list[RecommendationList]:
    """All lists so far, each user's in order."""
    return [decode_list(message.value() or b"") for message in read(settings, Topics.of(settings).recommendations)]


def newest_lists(settings: Settings) -> dict[str, RecommendationList]:
    """The newest list of each user."""
    return {one.user_id: one for one in lists(settings)}


def dead_letters(settings: Settings) -> list[DeadLetter]:
    """All dead letters so far."""
    return [decode_dead_letter(message.value() or b"") for message in read(settings, Topics.of(settings).dead_letters)]


def length(settings: Settings, topic: str) -> int:
    """Records in a topic."""
    return sum(span.high - span.low for span in spans(settings, topic).values())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
