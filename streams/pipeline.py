"""The way of a chunk: sort, fold, note what has changed, line up who is to get a list.

A chunk is finished when its profiles are committed to the changelog, its dead letters are confirmed, and every user it
touched has a list at least as new as the chunk. Later chunks are folded meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.catalogue.attributes import Catalogue
from mmrec_stream.contracts.behaviour import EventType, Forget
from mmrec_stream.contracts.dead_letters import DeadLetter, encode_dead_letter
from mmrec_stream.contracts.identity import NO_KEY, source_key
from mmrec_stream.profiles.columns import EventColumns
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.tastes import Tastes
from mmrec_stream.ranking.popularity import Popularity
from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.chunks import Chunk
from streams.intake import Intake, Limits, set_aside, sort_chunk
from streams.lists import LOOK_S, Due, Lists
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.ownership import Ticket

MAX_DUE = 20_000
"""Users in line for a list at which folding waits. At 8,000 lists a second the last of them waits 2.5 s, which is as
old as a list should become; fewer would hold up profiles when many visitors come at once."""

CAUGHT_UP = 1_000
"""With no more records than this waiting behind it, a chunk is the present, whatever its records' timestamps say: a
replay of last year's orders is to bring lists, too."""

log = logging.getLogger(__name__)


class Pipeline:
    """One worker's way from chunks to changed profiles, letters, and users in line."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        popularity: Popularity,
        lists: Lists,
        outbox: Outbox,
        metrics: Metrics,
        acted: Callable[[EventColumns, NDArray[np.bool_]], None],
        forgotten: Callable[[str], None],
    ) -> None:
        """A way without chunks.

        Args:
            settings: limits and ages.
            catalogue: completes events.
            popularity: counts them.
            lists: lines users up.
            outbox: sends dead letters.
            metrics: told of it all.
            acted: shown every batch that was folded, and which of its events count for the first time.
            forgotten: told of users who are to be forgotten.
        """
        self._acted = acted
        self._forgotten = forgotten
        self._settings = settings
        self._tastes = Tastes.of(settings.preset)
        self._topics = Topics.of(settings)
        self._limits = Limits(settings.max_event_bytes, int(settings.max_future_s * 1000), settings.partitions)
        self._catalogue = catalogue
        self._popularity = popularity
        self._lists = lists
        self._outbox = outbox
        self._metrics = metrics

    async def accept(self, chunk: Chunk, begin: Callable[[], bool]) -> None:
        """Take a chunk; returns when the next one may come.

        Args:
            chunk: of an ownership; nothing is done if that is closed by now.
            begin: called when work on the chunk begins, after any waiting; says whether more chunks are at hand.
        """
        owner = chunk.owner
        await self._outbox.room()
        while len(self._lists) > MAX_DUE and not owner.closed:
            self._lists.wake()
            await asyncio.sleep(LOOK_S)
        more = begin()
        if not owner.closed:
            ticket = owner.begin(chunk.topic, chunk.offsets[0], chunk.offsets[-1])
            intake = self._sort(chunk)
            for dead in intake.letters:
                self._bury(dead, ticket)
            self._metrics.chunk(chunk.topic, chunk.partition, len(chunk), chunk.offsets[-1] + 1, chunk.behind)
            for part in intake.parts() if intake.events else ():
                if isinstance(part, Intake):
                    self._fold(part, ticket)
                else:
                    self._forget(*part, chunk, ticket)
            ticket.seal()
        if not more:  # what came together is scored together
            self._lists.wake()
        # Let confirmations, lists and health checks have their turn.
        await asyncio.sleep(0)

    def _sort(self, chunk: Chunk) -> Intake:
        try:
            return sort_chunk(chunk, self._limits, int(time.time() * 1000), chunk.owner.table.rows.unknown)
        except Exception as error:  # whatever it is, the chunk's records must not be lost
            log.exception("%s[%d]@%d: set aside as dead letters", chunk.topic, chunk.partition, chunk.offsets[0])
            return set_aside(chunk, f"{type(error).__name__}: {error}")

    def _fold(self, intake: Intake, ticket: Ticket) -> None:
        columns, owner = intake.columns, intake.chunk.owner
        self._catalogue.complete(columns)
        rows = owner.table.rows
        row_of_event = rows.rows_of(columns.users)
        source = source_key(intake.chunk.topic, owner.partition)
        fresh = fold(rows.records, row_of_event, columns, source, self._tastes)
        folded = time.time()
        # Profiles that only repeats touched are written too: the row may not have been committed by whoever folded
        # them, and this chunk must not be acknowledged before it is.
        touched = np.unique(row_of_event)
        owner.touch(touched, ticket)
        counted = np.where(fresh, columns.items, np.uint64(NO_KEY))
        self._popularity.count([event.item_id for event in intake.events], counted, columns.types, columns.times_ms)
        self._acted(columns, fresh)
        self._metrics.folded(len(fresh), int(fresh.sum()))
        if self._settings.lists:
            self._line_up(intake, row_of_event, folded, ticket)

    def _forget(self, request: Forget, offset: int, chunk: Chunk, ticket: Ticket) -> None:
        """Forget a user: profile, place in line, newest list. At a repeat the list is taken back again, harmlessly."""
        user, owner = request.user_id, chunk.owner
        owner.erase(user, source_key(chunk.topic, owner.partition), offset, ticket)
        self._forgotten(user)
        for waiting in self._lists.forget(user, owner):
            waiting.settle()
        self._lists.take_back(user, owner, ticket)

    def _line_up(self, intake: Intake, row_of_event: NDArray[np.int64], folded: float, ticket: Ticket) -> None:
        """Put every user who did something (an impression is nothing done) in line for a list.

        Events that were folded before count too: they are read again when their list may not have gone out.
        """
        chunk, users = intake.chunk, intake.columns.users
        active = np.flatnonzero(intake.columns.types != EventType.IMPRESSION).tolist()
        # Far behind the end of the log: what was long ago needs no list of its own.
        young_ms = (folded - self._settings.lists_max_age_s) * 1000 if chunk.behind > CAUGHT_UP else 0
        due: dict[str, Due] = {}
        late: dict[str, Due] = {}
        for user, place in {users[place]: place for place in active}.items():
            one = Due(
                owner=chunk.owner,
                row=int(row_of_event[place]),
                topic=chunk.topic,
                offset=chunk.offsets[place],
                event_ms=intake.events[place].ts,
                appended_ms=chunk.times_ms[place],
                fetched=chunk.fetched,
                folded=folded,
                tickets=[],
            )
            (due if one.appended_ms >= young_ms else late)[user] = one
        if due:
            self._lists.line_up(due, ticket)
        if late:
            self._lists.put_off(chunk.owner, late, ticket)

    def _bury(self, dead: DeadLetter, ticket: Ticket) -> None:
        self._outbox.letter(self._topics.dead_letters, dead.record_key, encode_dead_letter(dead), ticket)
        self._metrics.dead_letters.labels(fault=dead.fault.value).inc()
