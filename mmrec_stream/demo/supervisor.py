"""The demo's worker, started again whenever it ends; trainings; and the audit that shows that nothing is lost."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from mmrec_stream.demo.children import environment, last_lines, start, stop
from mmrec_stream.errors import UserError
from mmrec_stream.processes import die_with_parent
from mmrec_stream.settings import Settings
from mmrec_stream.storefront.api import ApiError
from mmrec_stream.storefront.demo import Action

TRAIN_MINUTES = 0.5
"""Most minutes of passes over the data, so that a release is there within a minute. More passes gain a few percent of
NDCG, which nobody sees in a demo."""

START_TIMEOUT_S = 120.0
"""A worker starts in 2 s. The first one on a machine compiles the fold, and may share the cores with others."""

LOOK_S = 0.5
"""How often the worker is asked how it does: a reader of the panel sees nothing faster."""

KEPT = 20
"""Happenings that are told."""

WORKER_NAME = "demo"
"""A named worker that is started again gets its partitions at once; one without a name waits for the end of the dead
one's session."""

ACTIONS = (
    Action(id="train", title="Train now", path="/v1/demo/train"),
    Action(id="kill", title="Kill the worker", path="/v1/demo/kill"),
)


class Supervisor:
    """Runs on the gateway's event loop, for the length of `running`."""

    actions = ACTIONS

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Prepare; logs of what is run go into `folder`."""
        self.settings = settings
        self.figures: dict[str, str] = {}
        """The worker's counters as of the last look, and the release that serves; empty while there is none."""
        self.ready = asyncio.Event()
        """Set while the worker serves its partitions."""
        self._folder = folder
        self._worker: Process | None = None
        self._children: set[Process] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._training_since: float | None = None
        self._happenings: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._told = 0

    @property
    def worker_log(self) -> Path:
        """Where the workers' log lies."""
        return self._folder / "worker.log"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Keep a worker, for the length of a block. The task it gives ends only by failing: with a `UserError`."""
        keeping = asyncio.create_task(self._keep_worker())
        looking = asyncio.create_task(self._look())
        try:
            yield keeping
        finally:
            everything = [keeping, looking, *self._tasks]
            for task in everything:
                task.cancel()
            await asyncio.gather(*everything, return_exceptions=True)
            await asyncio.gather(*(stop(child) for child in self._children))

    async def run(self, name: str, *arguments: str) -> None:
        """Start another command of the demo; it is ended with the rest."""
        self._children.add(await start(self.settings, self._folder / f"{name}.log", *arguments))

    def status(self) -> dict[str, Any]:
        """What the panel shows of all that runs."""
        since = self._training_since
        return {
            "workers": int(self.ready.is_set()),
            "release": self.figures.get("release", "none"),
            "lag": {"events": int(float(self.figures.get("lag_records", 0)))} if self.figures else None,
            "training_s": None if since is None else round(time.monotonic() - since),
            "happenings": list(self._happenings),
        }

    async def act(self, action: str) -> str:
        """Do what a visitor of the shop asks for; a sentence to show.

        Raises:
            ApiError: 404 for an unknown action, 409 where it is under way already.
        """
        if action == "train":
            if self._training_since is not None:
                raise ApiError(409, "busy", "a model is being trained already")
            self._begin(self.train())
            return "A model is being trained, which takes about a minute; the shop stays open."
        if action == "kill":
            if self._worker is None or not self.ready.is_set():
                raise ApiError(409, "busy", "no worker is ready to be killed: another is being started")
            self.ready.clear()
            self._worker.kill()
            return "The worker is dead. What you click meanwhile waits in the log."
        raise ApiError(404, "no_action", "there is no such action")

    async def train(self) -> bool:
        """Train a release of all that lies in the topics, and wait until the worker serves it; whether it does."""
        before, began = self.figures.get("release"), time.monotonic()
        self._training_since = began
        log = self._folder / "train.log"
        child = await start(self.settings, log, "train", "--from", "kafka", "--minutes", f"{TRAIN_MINUTES:g}")
        self._children.add(child)
        try:
            status = await child.wait()
        finally:
            self._training_since = None
        self._children.discard(child)
        if status:
            self.tell(f"No new release: {last_lines(log, 1).removeprefix('mmrec: ')}")
            return False
        took = time.monotonic() - began
        deadline = time.monotonic() + START_TIMEOUT_S
        while (release := self.figures.get("release", before)) == before and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
        self.tell(f"Release {release} serves, after {took:.0f} s of training: the worker took it over as it worked.")
        return release != before

    async def audit(self) -> None:
        """Compare the profiles with the log, and tell."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mmrec_stream", "audit", "--json"),
            env=environment(self.settings),
            stdout=PIPE,
            stderr=DEVNULL,
            preexec_fn=die_with_parent,
        )
        text, _ = await child.communicate()
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            self.tell("The audit did not come to an end.")
            return
        counts = {name: sum(source[name] for source in found["sources"]) for name in ("folded", "dead", "lost")}
        settled, doubled = sum(counts.values()), found["doubled_users"]
        self.tell(
            f"Audit: {settled:,} events read from the log, {counts['folded']:,} folded into profiles, "
            + (f"{counts['dead']:,} set aside, " if counts["dead"] else "")
            + f"{counts['lost']:,} lost, {'none' if not doubled else f'those of {doubled:,} users'} counted twice."
        )

    def tell(self, text: str) -> None:
        """Note something that happened, for the panel."""
        self._told += 1
        self._happenings.append({"number": self._told, "ts": int(time.time() * 1000), "text": text})

    def _begin(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_worker(self) -> None:
        died = 0.0
        while True:
            worker = self._worker = await start(self.settings, self.worker_log, "worker", worker_name=WORKER_NAME)
            self._children.add(worker)
            await self._await_ready(worker)
            if died:
                self.tell(f"Worker {worker.pid} has taken over, {time.monotonic() - died:.1f} s later.")
                self._begin(self.audit())
            status = await worker.wait()
            died = time.monotonic()
            self.ready.clear()
            self.figures = {}
            self._children.discard(worker)
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            self.tell(f"Worker {worker.pid} ended ({how}); another is started.")

    async def _await_ready(self, worker: Process) -> None:
        """Wait until a worker serves.

        Raises:
            UserError: it ends before, or does not get there in time.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while worker.returncode is None and time.monotonic() < deadline:
            if await asyncio.to_thread(_page, self.settings, "/ready") is not None:
                self.ready.set()
                return
            await asyncio.sleep(0.1)
        raise UserError(f"the worker did not start: {last_lines(self.worker_log)}")

    async def _look(self) -> None:
        while True:
            if self.ready.is_set() and (text := await asyncio.to_thread(_page, self.settings, "/metrics")):
                self.figures = figures_in(text)
            await asyncio.sleep(LOOK_S)


def figures_in(text: str) -> dict[str, str]:
    """A worker's counters and lag, summed over their labels, and what serves: of its page for Prometheus. Pure."""
    found: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        totals = [sample.value for sample in family.samples if sample.name.endswith(("_total", "_lag_records"))]
        if totals:
            found[family.name.removeprefix("mmrec_")] = str(sum(totals))
        for sample in family.samples:
            if sample.name == "mmrec_release_info":
                found |= {"release": sample.labels["version"], "provider": sample.labels["provider"].upper()}
    return found


def _page(settings: Settings, path: str) -> str | None:
    """A page of the worker's; None while it does not answer, or not well."""
    try:
        with urlopen(f"http://127.0.0.1:{settings.web_port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return None
