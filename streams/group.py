"""The worker's one Kafka client: librdkafka keeps the group, fetches, and commits.

Its calls that may hand partitions out or take them away run on one thread. What they bring is bound to the ownership
of that moment there, before anything else can happen to it.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition
from faust.types import TP

from mmrec_stream.kafka.clients import client_config
from mmrec_stream.kafka.reader import FOLLOW_WAIT_MS, PASSING, QUEUE_BACKOFF_MS
from mmrec_stream.settings import Settings
from streams.chunks import Chunk
from streams.ownership import Ownership

CHUNK_BYTES = 4 * 1024 * 1024
"""Most bytes of a partition in one answer: a chunk of some 30,000 events. Only a worker that catches up meets it. The
larger its chunks, the fewer profiles it touches twice, and beyond this a chunk would hold the event loop for more than
a tenth of a second."""

GATHER_S = 0.004
"""Fetches that bring something lie at least so far apart. Most of what a few events cost is the way round and one run
of the ranker, whether they are one or four: at 1,000 a second half of the processor time, for 2.5 ms later lists at the
median and an earlier 99th percentile. Who acts alone, waits for nothing; under load, a fetch's work takes longer than
this anyway."""

MAX_RECORDS = 120_000
"""Most records of one fetch: such a chunk of each of four partitions, 50 ms of making columns."""

TAKEN_AT_ONCE = 500
"""Records taken from the client in one call and made columns: so many lie in the processor's nearer cache."""

AHEAD_RECORDS = 16
"""With this many waiting to be taken, no more are asked for until `QUEUE_BACKOFF_MS` later: under load that is one
request a turn, where a request for every few records would cost the broker as much as the worker. At low load it is
never reached, and must not be: a partition that is left out of one request waits until that is answered."""

AHEAD_KBYTES = 16 * 1024
"""The same bound in memory, for large records."""

CLASSIC_SESSION_S = 6.0
"""Under the classic protocol: after how long without a heartbeat the group takes a worker for dead. Its partitions
stand still for as long, so short; below 6 s (Kafka's own lower bound on brokers) a long pause of a busy machine would
count as death."""

STATIC_SESSION_S = 30.0
"""The same for a worker with a name, which is expected to come back: a restart takes 5 s, a slow one 20 s."""

ANSWER_S = 5.0
"""How long one question to the coordinator may take; while a rebalance waits for it, the others' fetching does too."""

GROUP_FATAL = frozenset(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_MAX_SIZE_REACHED,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_GROUP_ID,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.UNSUPPORTED_ASSIGNOR,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._AUTHENTICATION,
        KafkaError._FATAL,
    }
)
"""What the group answers to a member that it will never take, or the client that has given up: waiting does not help.
Of a record's place, `_FATAL` is all that the client says of an error that is fatal for it."""

AWAY = frozenset({*PASSING, KafkaError._WAIT_COORD, KafkaError.COORDINATOR_NOT_AVAILABLE})
"""What the client says of a commit while no broker answers."""

log = logging.getLogger(__name__)


class GroupError(Exception):
    """The group will not have this worker, or its client has given up; the text says why."""


class Listener(Protocol):
    """Who is told what the group decides. Both are called from the event loop, and the group waits for them."""

    async def on_assigned(self, committed: Mapping[TP, int | None]) -> Mapping[TP, tuple[Ownership, int]]:
        """Partitions have come in.

        Args:
            committed: the next offset to read of each, None where the group has committed nothing.

        Returns:
            Whom each belongs to, and where its fetching goes on once it is resumed.
        """

    async def on_revoked(self, partitions: set[TP], *, may_return: bool) -> None:
        """Partitions are to be handed over, when this returns; `may_return` if they may be assigned again at once."""

    def on_lost(self, partitions: set[TP]) -> None:
        """Partitions are somebody else's already."""

    def on_gap(self, topic: str, records: int) -> None:
        """Records of a topic were deleted before they were read."""

    def on_placed(self, owners: Mapping[TP, Ownership]) -> None:
        """The client knows where these go on; they are fetched when they are resumed."""


class GroupClient:
    """Membership in the workers' group, records of the partitions that were resumed, commits.

    All methods are called from the event loop.
    """

    def __init__(self, settings: Settings, protocol: str, listener: Listener) -> None:
        """A client that has not joined yet.

        Args:
            settings: which cluster and group.
            protocol: `consumer` (KIP-848: partitions that stay are not disturbed) or `classic`.
            listener: told of every change of the assignment.
        """
        self._incremental = protocol == "consumer"
        self._listener = listener
        self._thread = ThreadPoolExecutor(1, "group")
        self._commits = ThreadPoolExecutor(1, "commit")
        self._nudges = ThreadPoolExecutor(1, "nudge")
        """Apart from commits: a client that closes commits once more, and lets nobody ask it anything meanwhile."""
        self._owners: dict[tuple[str, int], Ownership] = {}
        """Whom each partition belongs to that is assigned. Only the group's thread changes it."""
        self._resumed: set[TP] = set()
        """What is fetched. Whoever changes it or makes the client follow it holds `_pausing`."""
        self._pausing = Lock()
        self._asking = Lock()
        """Held while a broker is asked from outside the group's thread, and while the client is closed: a question to a
        client that is closed ends the process."""
        self._brought = 0.0
        """When (monotonic) a fetch last brought something."""
        self._astray: set[TP] = set()
        """Partitions that the client has stopped fetching, as there is nothing where they were to go on."""
        self._loop = asyncio.get_running_loop()
        self._consumer = Consumer(_config(settings, protocol) | {"error_cb": self._noticed})
        self.leaving = False
        """Whether `leave` was called: nothing more is asked of the client then."""
        self._left = False
        self.unreachable_since: float | None = None
        """Since when (monotonic) the client has heard of no broker; None while it does."""

    def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group, to share these topics' partitions. The next `fetch` does it."""
        self._consumer.subscribe(list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    @property
    def member(self) -> str:
        """The id that the group knows this worker by; empty before it has joined, and when it leaves."""
        return "" if self.leaving else self._consumer.memberid() or ""

    async def fetch(self, timeout_s: float) -> list[Chunk]:
        """What has arrived, a chunk a partition; waits up to `timeout_s` for the first record.

        Raises:
            GroupError: there is nothing to wait for.
        """
        if self.leaving:
            await asyncio.sleep(timeout_s)
            return []
        return await self._loop.run_in_executor(self._thread, self._fetch, timeout_s)

    def pause(self, partitions: Iterable[TP]) -> None:
        """Stop fetching these. Nothing is fetched any more by a client that leaves, and it may be closed."""
        if self.leaving:
            return
        with self._pausing:
            partitions = set(partitions)
            self._resumed -= partitions
            self._consumer.pause([TopicPartition(*tp) for tp in partitions])

    def resume(self, partitions: Iterable[TP]) -> None:
        """Fetch these; as `pause`."""
        if self.leaving:
            return
        with self._pausing:
            partitions = set(partitions)
            self._resumed |= partitions
            self._consumer.resume([TopicPartition(*tp) for tp in partitions])
        self._loop.run_in_executor(self._nudges, self._nudge_open, partitions)

    async def commit(self, offsets: Mapping[TP, int]) -> bool:
        """Commit the next offsets to read; False if the group has refused: they will be read again by their owner."""
        if self._left:
            return False
        return await self._loop.run_in_executor(self._commits, self._commit, offsets)

    async def reachable(self) -> bool:
        """Whether a broker answers now."""
        return await asyncio.to_thread(self._reachable)

    async def rebind(self, owner: Ownership) -> None:
        """Give an ownership the partitions of one that is over, which are assigned all the same.

        It begins at what is committed, and is not fetched until it is resumed.
        """
        await self._loop.run_in_executor(self._thread, self._rebind, owner)

    async def leave(self) -> None:
        """Leave the group. What is held is given up first, through the listener."""
        self.leaving = True
        await self._loop.run_in_executor(self._thread, self._close)
        self._left = True
        self._thread.shutdown(wait=False)
        for executor in (self._commits, self._nudges):
            executor.shutdown(wait=False)

    def _close(self) -> None:
        with self._asking:
            self._consumer.close()

    def _nudge(self, partitions: Iterable[TP]) -> None:
        """Have the client fetch these at once.

        Its connection to a broker from which it fetches nothing sleeps for up to a second, and that partitions are
        resumed (by us, or by itself at the end of a rebalance, for which it pauses all) does not wake it. A question to
        the brokers that lead them does, asked when the client's main thread has seen that they are resumed.
        """
        places = [TopicPartition(*tp, OFFSET_END) for tp in partitions]
        if self.leaving or not places:
            return
        try:
            self._consumer.assignment()  # answered by the main thread, after all that it was told before
            self._consumer.offsets_for_times(places, timeout=ANSWER_S)
        except KafkaException as error:
            log.debug("partitions go on within a second: %s", error.args[0].str())

    def _nudge_open(self, partitions: Iterable[TP]) -> None:
        """`_nudge`, from outside the group's thread."""
        with self._asking:
            self._nudge(partitions)

    def _reachable(self) -> bool:
        with self._asking:
            if self.leaving:
                return False
            try:
                self._consumer.list_topics(timeout=ANSWER_S)
            except KafkaException:
                return False
        self.unreachable_since = None
        return True

    def _rebind(self, owner: Ownership) -> None:
        if owner.closed:  # the group has taken the partition meanwhile, and may have given it to a later ownership
            return
        places = [(topic, owner.partition) for topic in owner.fetched]
        partitions = [TopicPartition(*place) for place in places if place in self._owners]
        for tp, offset in self._committed(partitions).items():
            owner.restart(tp.topic, offset)
            self._owners[tp] = owner
            self.pause([tp])
            self._consumer.seek(TopicPartition(*tp, OFFSET_BEGINNING if offset is None else offset))

    def _fetch(self, timeout_s: float) -> list[Chunk]:
        if self.leaving:
            return []
        if self._astray:
            self._mend_positions()
        if (early := self._brought + GATHER_S - time.monotonic()) > 0:
            time.sleep(early)
        # `consume` alone would wait until so many are there.
        first = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first]
        chunks: dict[tuple[str, int], Chunk] = {}
        taken = 0
        while messages and taken < MAX_RECORDS:
            self._sort(messages, chunks)
            taken += len(messages)
            messages = self._consumer.consume(TAKEN_AT_ONCE, 0)
        if taken:
            self._brought = time.monotonic()
        now, kept = time.time(), []
        for place, chunk in chunks.items():
            # Taken away between two calls above, or records of before: neither is anybody's.
            if self._owners.get(place) is chunk.owner and chunk.offsets:
                chunk.owner.fetched[chunk.topic] = chunk.offsets[-1] + 1
                chunk.fetched = now
                high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1]
                chunk.behind = max(high - chunk.offsets[-1] - 1, 0)
                kept.append(chunk)
        return kept

    def _sort(self, messages: list[Message], chunks: dict[tuple[str, int], Chunk]) -> None:
        """Add records to the chunks, in runs and by functions that loop in C: this sees every one."""
        if any(map(Message.error, messages)):
            messages = [message for message in messages if not self._faulty(message)]
        start = 0
        for place, run in groupby(zip(map(Message.topic, messages), map(Message.partition, messages), strict=True)):
            records = messages[start : (start := start + sum(1 for _ in run))]
            chunk = chunks.get(place)
            if chunk is None:
                owner = self._owners.get(place)
                if owner is None:
                    continue
                chunk = chunks[place] = Chunk(*place, owner)
            chunk.offsets += map(Message.offset, records)
            chunk.times_ms += [time_ms for _, time_ms in map(Message.timestamp, records)]
            chunk.keys += map(Message.key, records)
            chunk.values += map(Message.value, records)

    def _faulty(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.code() in GROUP_FATAL:
            raise GroupError(error.str())
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._astray.add(TP(message.topic(), message.partition()))
        elif error.code() not in PASSING:
            log.warning("%s[%s]: %s", message.topic(), message.partition(), error.str())
        return True

    def _noticed(self, error: KafkaError) -> None:
        """What the client says of itself, and not of a partition; called from its own calls."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.unreachable_since = self.unreachable_since or time.monotonic()

    def _mend_positions(self) -> None:
        """Where partitions were to go on, there is nothing: say why, and go on where there is something.

        Called between two fetches, when every ownership says where it goes on.

        Raises:
            GroupError: a topic's offsets have gone back.
        """
        astray, self._astray = self._astray & self._owners.keys(), set()
        for tp in list(astray):
            try:
                self._mend_position(tp, self._owners[tp])
            except KafkaException as error:
                log.warning("%s[%d]: what is there cannot be had yet: %s", *tp, error.args[0].str())
                astray.discard(tp)
                self._astray.add(tp)
        if not astray:
            return
        # The client fetches these no more, and can't be told to seek: they are assigned anew.
        with self._pausing:
            anew = astray if self._incremental else {TP(*place) for place in self._owners}
            places = [TopicPartition(*tp, self._owners[tp].fetched[tp.topic]) for tp in anew]
            if self._incremental:
                self._consumer.incremental_unassign(places)
                self._consumer.incremental_assign(places)
            else:
                self._consumer.assign(places)
            if waiting := [TopicPartition(*tp) for tp in anew if tp not in self._resumed]:
                self._consumer.pause(waiting)

    def _mend_position(self, tp: TP, owner: Ownership) -> None:
        """Move where the ownership goes on to where there is something.

        Raises:
            GroupError: the topic's offsets have gone back: it was made anew, and profiles would take its events for
                known ones.
        """
        topic, partition = tp
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
        wanted = owner.fetched[topic]
        if wanted > high:
            raise GroupError(
                f"{topic}[{partition}] ends at {high}, and {wanted} was to be read next: the topic was made anew. Give "
                "the workers a new MMREC_APP_ID: profiles would take its events for known ones"
            )
        if wanted < low:
            self._loop.call_soon_threadsafe(self._listener.on_gap, topic, low - wanted)
            log.error(
                "%s[%d]: offsets %d to %d were deleted before they were read: retention is shorter than the lag",
                topic,
                partition,
                wanted,
                low - 1,
            )
        owner.fetched[topic] = max(wanted, low)

    def _commit(self, offsets: Mapping[TP, int]) -> bool:
        try:
            answers = self._consumer.commit(
                offsets=[TopicPartition(*tp, offset) for tp, offset in offsets.items()], asynchronous=False
            )
        except KafkaException as error:
            # That a broker is away is said once for all that waits for it.
            level = logging.DEBUG if error.args[0].code() in AWAY else logging.INFO
            log.log(level, "offsets are not committed: %s", error.args[0].str())
            return False
        except RuntimeError:  # closed meanwhile
            return False
        return all(answer.error is None for answer in answers or ())

    def _on_loop(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        committed = self._committed(partitions)
        owners = self._on_loop(self._listener.on_assigned(committed))
        self._owners |= {tuple(tp): owner for tp, (owner, _) in owners.items()}
        places = [TopicPartition(*tp, offset) for tp, (_, offset) in owners.items()]
        if self._incremental:
            consumer.incremental_assign(places)
        else:
            consumer.assign(places)
        if places:
            consumer.pause(places)
        self._nudge(set(self._resumed))
        self._loop.call_soon_threadsafe(self._listener.on_placed, {tp: owner for tp, (owner, _) in owners.items()})

    def _committed(self, partitions: list[TopicPartition]) -> dict[TP, int | None]:
        while partitions and not self.leaving:
            try:
                answers = self._consumer.committed(partitions, timeout=ANSWER_S)
            except KafkaException as error:
                log.warning("committed offsets cannot be had yet: %s", error.args[0].str())
                continue
            return {TP(at.topic, at.partition): at.offset if at.offset >= 0 else None for at in answers}
        return {}

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._on_loop(self._listener.on_revoked(_places(partitions), may_return=not self._incremental))
        self._unassign(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = _places(partitions)

        async def lost() -> None:
            self._listener.on_lost(places)

        self._on_loop(lost())
        self._unassign(consumer, partitions)

    def _unassign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for tp in partitions:
            self._owners.pop((tp.topic, tp.partition), None)
        with self._pausing:
            self._resumed -= _places(partitions)
        if self._incremental:
            consumer.incremental_unassign(partitions)
            self._nudge(set(self._resumed))
        else:
            consumer.unassign()


def _places(partitions: Iterable[TopicPartition]) -> set[TP]:
    return {TP(tp.topic, tp.partition) for tp in partitions}


def _config(settings: Settings, protocol: str) -> dict[str, Any]:
    config = client_config(settings) | {
        "group.id": settings.app_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # Where to go on is always told; that there is nothing there must not be settled in silence.
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": FOLLOW_WAIT_MS,
        "queued.max.messages.kbytes": AHEAD_KBYTES,
        "queued.min.messages": AHEAD_RECORDS,
        "fetch.queue.backoff.ms": QUEUE_BACKOFF_MS,
        "max.partition.fetch.bytes": CHUNK_BYTES,
        "group.protocol": protocol,
    }
    if settings.worker_name:
        config["group.instance.id"] = settings.worker_name
    if protocol == "consumer":
        return config | {"group.remote.assignor": "range"}
    session_s = STATIC_SESSION_S if settings.worker_name else CLASSIC_SESSION_S
    return config | {
        "partition.assignment.strategy": "range",
        "session.timeout.ms": int(session_s * 1000),
        # A quarter of the session, so that three may be lost, and soon: it is also how a worker hears of a rebalance,
        # for which the others wait.
        "heartbeat.interval.ms": min(int(session_s * 250), 500),
    }
