"""The way of a chunk: sort, fold, write the touched profiles, score the touched users, publish, acknowledge.

Folding is never held up by scoring: users whose list is due wait in line, once each, and the newest state of a user
wins. A chunk is acknowledged when its profiles are in the changelog and every user it touched has a list at least
as new as the chunk.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
from faust.types import EventT
from numpy.typing import NDArray

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import EventType
from mmrec_stream.contracts.dead_letters import Fault, encode_dead_letter
from mmrec_stream.contracts.identity import NO_KEY, list_id, source_key
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Times, encode_list
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import Records, from_bytes, to_bytes
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.ranking.recommend import Recommender, Slate
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics, changelog_topic
from streams.chunks import Chunk
from streams.intake import Intake, Limits, letter, misplaced, sort_chunk
from streams.metrics import Metrics
from streams.outbox import Outbox, Ticket
from streams.store import ProfileStore

MAX_DUE = 20_000
"""Users in line for a list at which folding waits. At 8,000 lists a second the last of them waits 2.5 s, which is as
old as a list should become; fewer would hold up profiles when many visitors come at once."""

SETTLE_S = 0.3
"""How long a rebalance waits for lists that are due. What is not done by then is read again, by whoever has the
partition; profiles know what they have folded. Longer would hold up the partitions that stay."""

SETTLE_PROFILES_S = 5.0
"""How long a rebalance waits for profiles to be confirmed: they take milliseconds, and seconds when a broker is
ailing. Half of what the group allows for handing over."""

LOOK_S = 0.002
"""How often a wait for the line to shorten looks again. Many small steps end such a wait; an event for each would cost
more than the looking."""

HERE = 8
"""Users that are scored on the event loop itself, where they take a millisecond. Handing them to the scoring thread and
back costs as much again while the loop is busy, and only larger batches gain from running beside it."""

HERE_S = 0.004
"""Longest that scoring so few may take and still be done on the event loop. Over a million items it takes ten times as
long, and then the loop has better things to do."""

PACE_S = 0.02
"""How long a fetch waits for lists that are due. A busy worker's fetches take some 10 ms of folding; when lists can't
keep up, profiles still get a third of the time."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Due:
    """A user whose list is due, and the newest event that it has to take into account."""

    partition: int
    row: int
    topic: str
    offset: int
    event_ms: int
    """When it happened, by its producer."""
    appended_ms: int
    """When the broker had it in its log."""
    fetched: float
    """When this worker had it, s since 1970."""
    folded: float
    tickets: list[Ticket]
    """The chunks that wait for the list."""


@dataclass(slots=True)
class _Scored:
    """A batch with its slates, in the batch's order; none where scoring failed."""

    batch: dict[str, _Due]
    slates: list[Slate]
    at: float
    """s since 1970."""


class Pipeline:
    """One worker's way from chunks to acknowledgements."""

    def __init__(
        self,
        settings: Settings,
        store: ProfileStore,
        catalogue: Catalogue,
        popularity: Popularity,
        recommender: Recommender,
        outbox: Outbox,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._topics = Topics.of(settings)
        self._changelog = changelog_topic(settings)
        self._limits = Limits(settings.max_event_bytes, int(settings.max_future_s * 1000))
        self._store = store
        self._catalogue = catalogue
        self._popularity = popularity
        self._recommender = recommender
        self._outbox = outbox
        self._metrics = metrics
        self._due: dict[str, _Due] = {}
        self._wake = asyncio.Event()
        self._open = 0
        self._era = 0
        self._few_s = 0.0
        """How long the last batch of up to `HERE` users took to score."""
        # One thread: a recommender runs on one at a time.
        self._scoring = ThreadPoolExecutor(1, "scoring")

    @property
    def open_chunks(self) -> int:
        """Chunks that are taken and not yet acknowledged."""
        return self._open

    @property
    def lists_due(self) -> int:
        """Users in line for a list."""
        return len(self._due)

    async def accept(self, event: EventT[Any], begin: Callable[[], bool]) -> None:
        """Take a chunk; returns when the next one may come. The event is acknowledged when all is delivered.

        Args:
            event: a Faust event whose value is a `Chunk`.
            begin: called when work on the chunk begins, after any waiting; says whether more chunks are at hand.
        """
        era = self._era
        await self._outbox.room()
        while len(self._due) > MAX_DUE:
            self._wake.set()
            await asyncio.sleep(LOOK_S)
        if era == self._era:  # else the chunk is of before a rebalance, and will be read again
            more = begin()
            self._open += 1
            ticket = Ticket(lambda: self._finish(event, era))
            chunk = cast("Chunk", event.value)
            try:
                self._take(chunk, ticket)
            except Exception as error:  # whatever it is, the chunk's records must not be lost
                log.exception("chunk of %s: set aside as dead letters", event.message.tp)
                for place in range(len(chunk)):
                    self._bury(letter(chunk, place, Fault.INTERNAL, f"{type(error).__name__}: {error}"), ticket)
            ticket.seal()
            if not more:  # what came together is scored together
                self._wake.set()
        # Let confirmations, lists and health checks have their turn.
        await asyncio.sleep(0)

    async def pace(self) -> None:
        """Before the next fetch: let lists that are due go first, for `PACE_S` at most.

        What comes meanwhile makes the next chunks larger, and those are cheaper an event.
        """
        deadline = time.monotonic() + PACE_S
        while len(self._due) > HERE and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)

    async def recommend_forever(self) -> None:
        """Publish the lists that are due, a batch at a time, until cancelled.

        Few users are scored here and now; larger batches on a thread, so that one is published while the next is
        scored.
        """
        under_way: deque[asyncio.Future[_Scored]] = deque()
        loop = asyncio.get_running_loop()
        while True:
            while not self._due and not under_way:  # a chunk may ask for no list
                self._wake.clear()
                await self._wake.wait()
            if not under_way and len(self._due) <= HERE and self._few_s <= HERE_S:
                self._publish(self._recommend(*self._next_batch()))
                await asyncio.sleep(0)
                continue
            # A second one keeps the thread busy while the loop is; only a full one, as it would else split a batch.
            while len(self._due) >= (self._settings.score_batch if under_way else 1) and len(under_way) < 2:
                under_way.append(loop.run_in_executor(self._scoring, self._recommend, *self._next_batch()))
            self._publish(await under_way.popleft())

    def _next_batch(self) -> tuple[dict[str, _Due], Records]:
        """Take the users who have waited longest out of the line, with copies of their profiles as they are now."""
        batch = {user: self._due.pop(user) for user in list(islice(self._due, self._settings.score_batch))}
        return batch, from_bytes([to_bytes(self._store.rows(due.partition).records[due.row]) for due in batch.values()])

    def _recommend(self, batch: dict[str, _Due], records: Records) -> _Scored:
        """Score a batch; on the scoring thread or, while nothing is under way there, here."""
        began = time.monotonic()
        try:
            slates = self._recommender.recommend(records, int(time.time() * 1000))
        except Exception:
            # The users' next events bring the next attempt; holding the chunks back would stop everything.
            log.exception("scoring %d users failed: their lists are left out", len(batch))
            self._metrics.scoring_failures.inc()
            slates = []
        if len(batch) <= HERE:
            self._few_s = time.monotonic() - began
        return _Scored(batch, slates, time.time())

    def _publish(self, scored: _Scored) -> None:
        published = time.time()
        lists = [
            (user, encode_list(_message(user, due, slate, scored.at, published)), due.tickets)
            for (user, due), slate in zip(scored.batch.items(), scored.slates, strict=False)
        ]
        self._outbox.send(self._topics.recommendations, lists)
        for due, slate in zip(scored.batch.values(), scored.slates, strict=False):
            self._metrics.published(slate, due.appended_ms, published)
        for due in scored.batch.values():
            for ticket in due.tickets:
                ticket.settle()

    async def settle(self) -> None:
        """Wait until all chunks are acknowledged; lists that are still due after `SETTLE_S` are given up.

        Profiles on their way get `SETTLE_PROFILES_S`: one that came in after the next owner's would stand in its place
        once the changelog is compacted.
        """
        began = time.monotonic()
        while self._open and time.monotonic() < began + SETTLE_S:
            await asyncio.sleep(LOOK_S)
        while self._outbox.profiles_under_way and time.monotonic() < began + SETTLE_PROFILES_S:
            await asyncio.sleep(LOOK_S)
        if self._open:
            log.info("%d chunks are given up; they will be read again", self._open)
        self._due.clear()
        self._open = 0
        self._era += 1

    def close(self) -> None:
        """Stop scoring."""
        self._scoring.shutdown(wait=False, cancel_futures=True)

    def _take(self, chunk: Chunk, ticket: Ticket) -> None:
        partition = chunk.partition
        intake = sort_chunk(chunk, self._limits, int(time.time() * 1000))
        rows = self._store.rows(partition)
        row_of_event = rows.find(intake.columns.users)
        if row_of_event is None:
            newcomers = rows.unknown(intake.columns.users)
            places = misplaced(intake, newcomers, partition, self._settings.partitions)
            detail = f"the user's events belong to another of the {self._settings.partitions} partitions (murmur2)"
            intake.reject(places, Fault.MISPLACED, [detail] * len(places))
            row_of_event = rows.rows_of(intake.columns.users)
        for dead in intake.letters:
            self._bury(dead, ticket)
        self._metrics.chunk(chunk.topic, partition, len(chunk), chunk.offsets[-1] + 1)
        if intake.events:
            self._fold(intake, row_of_event, ticket)

    def _fold(self, intake: Intake, row_of_event: NDArray[np.int64], ticket: Ticket) -> None:
        columns, partition = intake.columns, intake.chunk.partition
        self._catalogue.complete(columns)
        rows = self._store.rows(partition)
        fresh = fold(rows.records, row_of_event, columns, source_key(intake.chunk.topic, partition))
        folded = time.time()
        # Profiles that only repeats touched are written too: the row may not have been delivered when its chunk was
        # given up, and this chunk must not be acknowledged before it is.
        touched = np.unique(row_of_event)
        keys, values = rows.users_of(touched), rows.encode(touched)
        self._outbox.profiles(self._changelog, partition, keys, values, ticket, self._store.note_offset)
        counted = np.where(fresh, columns.items, np.uint64(NO_KEY))
        self._popularity.count([event.item_id for event in intake.events], counted, columns.types, columns.times_ms)
        self._metrics.folded(len(fresh), int(fresh.sum()), len(touched))
        if self._settings.lists:
            self._line_up(intake, row_of_event, folded, ticket)

    def _line_up(self, intake: Intake, row_of_event: NDArray[np.int64], folded: float, ticket: Ticket) -> None:
        """Put every user who did something (an impression is nothing done) in line for a list.

        Events that were folded before count too: they are read again when their list may not have gone out.
        """
        chunk, users = intake.chunk, intake.columns.users
        active = np.flatnonzero(intake.columns.types != EventType.IMPRESSION).tolist()
        due, waiting = self._due, 0
        for user, place in {users[place]: place for place in active}.items():
            tickets = [ticket]
            if (older := due.get(user)) is not None:
                waiting += 1
                tickets = older.tickets
                tickets.append(ticket)
            due[user] = _Due(
                partition=chunk.partition,
                row=int(row_of_event[place]),
                topic=chunk.topic,
                offset=chunk.offsets[place],
                event_ms=intake.events[place].ts,
                appended_ms=chunk.times_ms[place],
                fetched=chunk.fetched,
                folded=folded,
                tickets=tickets,
            )
            ticket.add()
        self._metrics.coalesced.inc(waiting)

    def _bury(self, dead: Any, ticket: Ticket) -> None:
        self._outbox.send(self._topics.dead_letters, [(dead.record_key, encode_dead_letter(dead), [ticket])])
        self._metrics.dead_letters.labels(fault=dead.fault.value).inc()

    def _finish(self, event: EventT[Any], era: int) -> None:
        if era == self._era:
            self._open -= 1
            event.ack()


def _message(user: str, due: _Due, slate: Slate, scored: float, published: float) -> RecommendationList:
    return RecommendationList(
        list_id=list_id(user, due.topic, due.partition, due.offset, slate.release),
        user_id=user,
        items=slate.items,
        release=slate.release,
        strategy=slate.strategy,
        alpha=slate.alpha,
        cause=Cause(topic=due.topic, partition=due.partition, offset=due.offset),
        times=Times(
            event=due.event_ms,
            appended=due.appended_ms,
            fetched=due.fetched * 1000,
            folded=due.folded * 1000,
            scored=scored * 1000,
            published=published * 1000,
        ),
    )
