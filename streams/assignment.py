"""What the group assigns to this worker, kept: opened, restored, served, written, committed, handed over.

The order in which a partition comes in carries the promise that nothing is lost or counted twice:

1. Its committed input offsets are read, while nothing of it is fetched.
2. Its changelog writer is opened: from here on the broker refuses the earlier owner's rows.
3. Its changelog is read to its end. The rows there are at least as new as the offsets of step 1, since an offset is
   committed after its rows; and a profile knows what it has folded, so that what is read again counts once.
4. Its inputs are fetched from the offsets of step 1.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from confluent_kafka import OFFSET_BEGINNING, KafkaException
from faust.types import TP

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.processes import give_back_memory
from mmrec_stream.ranking.popularity import Popularity, recent_weights
from mmrec_stream.settings import Settings
from streams.changelog import ChangelogLostError, ChangelogWriter, WriterClosedError
from streams.group import GroupClient
from streams.metrics import Metrics
from streams.ownership import Ownership, Ownerships, State
from streams.restoring import Restorer
from streams.standbys import Standbys

WRITE_S = 0.2
"""How often changed rows are written. Only commits wait for it, and a row that changes often is written once: shorter,
and the broker has more transactions to end; longer, and a worker that dies leaves more to be folded again."""

COMMIT_S = 1.0
"""How often offsets are committed: what a restart reads again at most, without any harm but the reading."""

SETTLE_S = 0.15
"""How long partitions that go are given to finish what is in flight. Those that stay are not fetched meanwhile; what is
not done by then is read again, by whoever has the partition."""

LOOK_S = 0.005
"""How often such a wait looks again."""

WRITERS = 8
"""Threads in which writers wait for the broker: more partitions than this take turns."""

REOPEN_S = 1.0
"""How long after a refused write the partition is opened again, if the group still says that it is ours: time for the
group to say otherwise."""

ENTITLED_S = 3.0
"""For how long after a proof of membership the partitions are surely ours: half of the shortest session, since nobody
else gets them before a session is over."""

UNTOLD_S = 5.0
"""A member that has been given nothing for so long after it joined gets nothing: there are more workers than
partitions."""

log = logging.getLogger(__name__)


class Assignment:
    """Keeps the ownerships of one worker, on the event loop; blocking calls have threads of their own."""

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        changelog: str,
        catalogue: Catalogue,
        popularity: Popularity,
        metrics: Metrics,
        standbys: Standbys,
        on_failure: Callable[[str], None],
    ) -> None:
        self.owners = Ownerships()
        self._settings = settings
        self._topics = frozenset(topics)
        self._changelog = changelog
        self._catalogue = catalogue
        self._popularity = popularity
        self._metrics = metrics
        self._standbys = standbys
        self._on_failure = on_failure
        self._client: GroupClient
        self._restorer = Restorer(settings, changelog, metrics)
        self._writing = ThreadPoolExecutor(WRITERS, "changelog")
        self._opening = ThreadPoolExecutor(WRITERS, "open")
        self._placed: set[TP] = set()
        """Partitions of topics that the client may fetch as soon as they are resumed."""
        self._in_question: set[Ownership] = set()
        """Ownerships that the group has taken back and may give again."""
        self._learned: set[int] = set()
        """Partitions whose profiles have told what is popular. One that comes back has nothing to add."""
        self._told: list[int] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._proved = -ENTITLED_S
        """When (monotonic) the group last took us for a member: it gave us partitions, or took a commit."""
        self._assigned = False
        """Whether the group has ever said which partitions are ours."""

    def attach(self, client: GroupClient) -> None:
        """Say whose assignment this is."""
        self._client = client
        self._attached = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether all that is assigned is served. The group says nothing to a worker for whom it has no partition."""
        told = self._assigned or (bool(self._client.member) and time.monotonic() - self._attached > UNTOLD_S)
        serving = set(self.owners.serving)
        return (
            told
            and not self._client.leaving
            and not self._in_question
            and len(serving) == len(self.owners)
            and all(tp.partition in serving for tp in self._placed)
        )

    def entitled(self) -> bool:
        """Whether nobody else can have been given our partitions yet."""
        return time.monotonic() - self._proved < ENTITLED_S

    async def on_assigned(self, committed: Mapping[TP, int | None]) -> Mapping[TP, tuple[Ownership, int]]:
        """As the group's listener: make an ownership of each partition, or go on with one that comes back."""
        self._assigned = True
        self._proved = time.monotonic()
        by_partition: dict[int, dict[str, int | None]] = {}
        for (topic, partition), offset in committed.items():
            by_partition.setdefault(partition, {})[topic] = offset
        if beyond := [tp for tp in committed if tp.partition >= self._settings.partitions]:
            self._on_failure(
                f"topic {beyond[0].topic} has more than {self._settings.partitions} partitions now: its producers send "
                "users to others than their profiles are on. No event is lost: choose a new MMREC_PREFIX and "
                "MMREC_APP_ID with the new number of partitions, and bring the topics over with `mmrec repartition`"
            )
            return {}
        placed: dict[TP, tuple[Ownership, int]] = {}
        for partition, offsets in by_partition.items():
            if offsets.keys() != self._topics:
                missing = ", ".join(sorted(self._topics - offsets.keys()))
                self._on_failure(
                    f"the group has given out partition {partition} without that of {missing}: a user's events would "
                    "lie on two workers. All workers of a group must consume the same topics: stop them all, then start"
                )
                return {}
            owner = self.owners.get(partition)
            if owner is not None:
                self._in_question.discard(owner)
                placed |= {TP(topic, partition): (owner, owner.fetched[topic]) for topic in offsets}
                continue
            writer = ChangelogWriter(self._settings, self._changelog, partition)
            owner = Ownership(partition, offsets, writer, self._standbys.take(partition))
            self.owners.add(owner)
            self._metrics.ownership_changes.labels(change="gained").inc()
            placed |= {
                TP(topic, partition): (owner, OFFSET_BEGINNING if offset is None else offset)
                for topic, offset in offsets.items()
            }
            self._start(self._open(owner))
        gone, self._in_question = self._in_question, set()
        self._close(gone)
        return placed

    def on_placed(self, owners: Mapping[TP, Ownership]) -> None:
        """As the group's listener: go on fetching what comes back."""
        self._placed |= owners.keys()
        back = {owner for owner in owners.values() if owner.state is State.SUSPENDED}
        for owner in back:
            owner.serve()
        for owner in set(owners.values()):
            if owner.state is State.SERVING:
                self._resume(owner)
        self._tell()

    async def on_revoked(self, partitions: set[TP], *, may_return: bool) -> None:
        """As the group's listener: finish what can be finished soon, commit it, and give the partitions up."""
        owners = self._of(partitions)
        deadline = time.monotonic() + SETTLE_S
        while any(self._unfinished(owner) for owner in owners) and time.monotonic() < deadline:
            self._write(owners)
            await asyncio.sleep(LOOK_S)
        await self._commit(owners)
        self._placed -= partitions
        if may_return:
            for owner in owners:
                owner.suspend()
            self._in_question |= owners
        else:
            self._close(owners)
            self._tell()

    def on_lost(self, partitions: set[TP]) -> None:
        """As the group's listener: somebody else has them."""
        log.warning("partitions %s were given to others", _numbers(partitions))
        self._placed -= partitions
        owners = self._of(partitions)
        self._in_question -= owners
        self._close(owners)

    def on_gap(self, topic: str, records: int) -> None:
        """As the group's listener: count what retention has taken."""
        self._metrics.input_gaps.labels(topic=topic).inc(records)

    async def run(self) -> None:
        """Write what changes and commit what is finished, until cancelled."""
        committed = time.monotonic()
        while True:
            await asyncio.sleep(WRITE_S)
            self._write(self.owners)
            if len(self.owners) and self._client.leaving:  # what can be committed is, as partitions are handed over
                continue
            if time.monotonic() - committed > COMMIT_S or not self.entitled():
                await self._commit(self.owners)
                committed = time.monotonic()

    async def close(self) -> None:
        """After the group is left: end what is under way."""
        self._close(self.owners)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._restorer.close)
        self._writing.shutdown(wait=False, cancel_futures=True)
        self._opening.shutdown(wait=False, cancel_futures=True)

    async def _open(self, owner: Ownership) -> None:
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._opening, owner.open)
            restored = await self._restorer.restore(owner)
        except WriterClosedError:
            return
        except ChangelogLostError as error:
            self._lost(owner, str(error))
            return
        except KafkaException as error:
            self._on_failure(f"{self._changelog}[{owner.partition}] cannot be read: {error.args[0].str()}")
            return
        except ValueError as error:
            self._on_failure(f"{self._changelog}[{owner.partition}] cannot be restored: {error}")
            return
        if not owner.warm:
            await self._learn(owner)
        if owner.closed:
            return
        log.debug("partition %d: %d rows read in %.2f s", owner.partition, restored.rows, time.monotonic() - began)
        owner.restored()
        if owner not in self._in_question:
            owner.serve()
            self._resume(owner)
        self._tell()
        if owner.warm:  # events wait for it
            await self._learn(owner)

    async def _learn(self, owner: Ownership) -> None:
        """Count what the restored profiles did lately as popular, once a partition."""
        if owner.closed or owner.partition in self._learned or not len(owner.table.rows):
            return
        self._learned.add(owner.partition)
        recent = await asyncio.to_thread(recent_weights, owner.table.rows.given, self._catalogue)
        self._popularity.add(*recent)
        await asyncio.to_thread(give_back_memory)

    def _tell(self) -> None:
        """Say which partitions are served, when all are and others were said before."""
        serving = self.owners.serving
        if self.ready and serving != self._told:
            self._told = serving
            profiles = sum(len(owner.table.rows) for owner in self.owners)
            log.info("ready: partitions %s, %d profiles", ", ".join(map(str, serving)) or "none", profiles)

    def _resume(self, owner: Ownership) -> None:
        self._client.resume({tp for tp in self._placed if tp.partition == owner.partition})

    def _write(self, owners: Iterable[Ownership]) -> None:
        for owner in owners:
            owner.write(self._writing, self._metrics.wrote, partial(self._lost, owner))

    def _lost(self, owner: Ownership, reason: str) -> None:
        """The broker takes no more rows of it: somebody else has opened the partition, or it has waited too long."""
        if owner.closed:
            return
        self._metrics.fenced.inc()
        log.warning("partition %d: its changelog has another writer or was given up (%s)", owner.partition, reason)
        self._in_question.discard(owner)
        self._close({owner})
        self._start(self._reopen(owner))

    async def _reopen(self, gone: Ownership) -> None:
        """Begin anew with a partition that the group says is ours, and the broker has closed."""
        await asyncio.sleep(REOPEN_S)
        places = {tp for tp in self._placed if tp.partition == gone.partition}
        if not places or self.owners.get(gone.partition) is not None:
            return
        writer = ChangelogWriter(self._settings, self._changelog, gone.partition)
        table = self._standbys.take(gone.partition)
        owner = Ownership(gone.partition, dict.fromkeys(gone.fetched), writer, table)
        self.owners.add(owner)
        self._metrics.ownership_changes.labels(change="reopened").inc()
        await self._client.rebind(owner)
        await self._open(owner)

    async def _commit(self, owners: Iterable[Ownership]) -> None:
        owners = list(owners)
        moved = {
            TP(topic, owner.partition): (owner, offset)
            for owner in owners
            for topic, offset in owner.committable().items()
        }
        offsets = {tp: offset for tp, (_, offset) in moved.items()}
        if not offsets:
            # Nothing new; but whoever publishes has to know that the partitions are still his.
            known = ((TP(topic, one.partition), at) for one in owners for topic, at in one.known.items())
            offsets = dict(islice(known, 1))
        began = time.monotonic()
        if not offsets or not await self._client.commit(offsets):
            return
        self._proved = began
        for (topic, _), (owner, offset) in moved.items():
            owner.committed(topic, offset)
        if moved:
            self._metrics.progress()

    def _unfinished(self, owner: Ownership) -> bool:
        return owner.state is not State.OPENING and (owner.open_chunks > 0 or owner.unwritten)

    def _of(self, partitions: Iterable[TP]) -> set[Ownership]:
        found = {self.owners.get(partition) for _, partition in partitions}
        return {owner for owner in found if owner is not None}

    def _close(self, owners: Iterable[Ownership]) -> None:
        owners = list(owners)
        self._metrics.ownership_changes.labels(change="given up").inc(len(owners))
        for owner in owners:
            self._standbys.give(owner.partition, owner.release())
        self.owners.close(owners)

    def _start(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("opening a partition failed", exc_info=error)
                self._on_failure(f"a partition cannot be opened: {error}")

        task.add_done_callback(ended)


def _numbers(partitions: Iterable[TP]) -> str:
    return ", ".join(map(str, sorted({partition for _, partition in partitions})))
