"""What happens after a rebalance: partitions that stay go on at once, the others' profiles are restored in batches.

Faust's own recovery reads changelogs record by record, does not know what another producer has written, and holds
every partition back until the last one is restored.
"""

import asyncio
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from faust.types import TP
from mode import Service

from mmrec_stream.kafka.reader import read_batches, spans
from mmrec_stream.ranking.popularity import recent_weights
from mmrec_stream.settings import Settings
from streams.store import ProfileStore, restore
from streams.transport import MODE_LOG

if TYPE_CHECKING:
    from streams.app import StreamApp

T = TypeVar("T")

PROGRESS_S = 2.0
"""How often a long restore says how far it is."""

RESERVED_ROWS = 1 << 20
"""Most rows that a restore makes room for at once: 1.1 GiB of address space a partition, which becomes memory only
where rows are written. A changelog may have many times more records than users."""

log = logging.getLogger(__name__)


class ProfileRecovery(Recovery):
    """Restores the profiles of partitions that come in, while those that stay are already served."""

    logger = MODE_LOG
    _reading: "asyncio.Future[Any] | None" = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._learned: set[int] = set()
        """Partitions whose profiles have told what is popular. One that comes back has nothing to add."""

    @property
    def _stream(self) -> "StreamApp":
        return cast("StreamApp", self.app)

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            if await self.wait_for_stopped(cast("Any", self.signal_recovery_start)):
                return
            self.signal_recovery_start.clear()
            abandoned = threading.Event()
            try:
                await self._recover(self._generation_id, abandoned)
            except RebalanceAgain:
                log.info("another rebalance has begun: the restore goes on with what it has")
            except ServiceStopped:
                return
            finally:
                abandoned.set()
                # A reading thread ends after its batch; the next restore must not write beside it.
                if self._reading is not None and not self._reading.done():
                    await asyncio.wait({self._reading})

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Changelog records are read by `_restore` and never pass Faust's queue."""

    async def _recover(self, generation: int, abandoned: threading.Event) -> None:
        consumer = self.app.consumer
        store = self._stream.store
        changelog = self._stream.changelog
        held = {tp.partition for tp in consumer.assignment() if tp.topic == changelog}
        started = time.monotonic()
        ends: dict[int, int] = {}
        if held:
            found = await self._read(spans, self._stream.settings, changelog, held)
            ends = {partition: span.high for partition, span in found.items() if not span.empty}
        behind = {partition: end for partition, end in ends.items() if store.known(partition) < end - 1}
        current = {tp for tp in consumer.assignment() if tp.topic != changelog and tp.partition not in behind}
        await self._go_on(current, generation)
        if behind:
            log.info("restoring the profiles of partitions %s", ", ".join(map(str, sorted(behind))))
            rows = await self._read(_restore, self._stream.settings, store, changelog, behind, abandoned.is_set)
            seconds = time.monotonic() - started
            log.info("restored %d profile rows in %.2f s (%.0f rows/s)", rows, seconds, rows / max(seconds, 1e-9))
            await self._learn(set(behind))
            consumer.resume_partitions(
                {tp for tp in consumer.assignment() if tp.topic != changelog and tp.partition in behind}
            )
        self._stream.on_ready(held)

    async def _learn(self, partitions: set[int]) -> None:
        """Count what the restored profiles did lately as popular, once a partition."""
        serving = self._stream.serving
        for partition in partitions - self._learned:
            rows = self._stream.store.rows(partition)
            recent = await self._read(recent_weights, rows.given, serving.catalogue)
            serving.popularity.add(*recent)
        self._learned |= partitions
        await asyncio.to_thread(_give_back_memory)

    async def _go_on(self, partitions: set[TP], generation: int) -> None:
        """Fetch again from what is committed, for `partitions`."""
        app, consumer = self._stream, self.app.consumer
        await app.on_rebalance_complete.send()
        if app.consumer_generation_id != generation:
            raise RebalanceAgain
        if consumer.assignment():
            await self._wait(consumer.perform_seek())
        consumer.resume_partitions(partitions)
        self.completed.set()
        app.flow_control.resume()
        consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        app.on_rebalance_end()

    async def _read(self, function: Callable[..., T], *arguments: object) -> T:
        """Run blocking reading in a thread; a rebalance ends the wait, not the thread."""
        self._reading = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        await self._wait(asyncio.shield(self._reading))
        return cast("T", await self._reading)


class ProfileTableManager(TableManager):
    """Faust's table manager with the recovery above, and without its two seconds of waiting for late tables."""

    logger = MODE_LOG

    @property
    def recovery(self) -> Recovery:
        """The recovery service."""
        if self._recovery is None:
            self._recovery = ProfileRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery

    async def on_start(self) -> None:
        """Open the tables; all are declared when the app is made."""
        await self._update_channels()
        await self.recovery.start()


def _restore(
    settings: Settings, store: ProfileStore, changelog: str, ends: dict[int, int], abandoned: Callable[[], bool]
) -> int:
    """Read the partitions' changelogs up to `ends` into the store; say how many records there were."""
    starts = {partition: store.known(partition) + 1 for partition in ends}
    total = sum(ends[partition] - starts[partition] for partition in ends)
    for partition in ends:
        store.rows(partition).reserve(min(ends[partition] - starts[partition], RESERVED_ROWS))
    rows, said = 0, time.monotonic()
    for messages in read_batches(settings, changelog, ends, starts, ends):
        if abandoned():
            return rows
        restore(store, messages)
        rows += len(messages)
        if time.monotonic() - said > PROGRESS_S:
            said = time.monotonic()
            log.info("restoring profiles: %d of at most %d changelog rows (%.0f %%)", rows, total, 100 * rows / total)
    for partition, end in ends.items():
        store.note_offset(partition, end - 1)
    return rows


def _give_back_memory() -> None:
    """Return what the reading has freed to the system: glibc keeps it otherwise, a fifth of what the profiles take."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
