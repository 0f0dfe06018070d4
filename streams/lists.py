"""The line of users whose list is due: once each, the newest state wins, and folding never waits for scoring.

Whoever did something just now comes first. A worker that catches up with hours of events makes no lists of what was
then: those users wait until their partition is up to date, and then get one list each.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np

from mmrec_stream.contracts.identity import list_id
from mmrec_stream.contracts.recommendations import Cause, RecommendationList, Times, encode_list
from mmrec_stream.profiles.record import Records, from_bytes, to_bytes
from mmrec_stream.ranking.recommend import Recommender, Slate
from mmrec_stream.settings import Settings
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.ownership import Ownership, State, Ticket
from streams.recent import RecentLists

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

QUIET_S = 0.5
"""A partition that has brought no old event for this long has caught up: its fetches come every few milliseconds while
it has not."""

RECENT_S = 600.0
"""How old a list may be and still be made again when a product in it sells out. Who has done nothing for ten minutes is
seldom looking; should he be, the storefront leaves the product out of what it shows."""

RECENT_LISTS = 50_000
"""Lists that are remembered for that, of each partition: 170 MB where all of them hold 20 products."""

REMADE = 32
"""Lists that are made again in one batch: one run of the ranker on a CPU (`ranking.scorer.GROUP`), 3 ms, which is how
long somebody who does something just then waits for them."""

MANY_REMADE = 1_000
"""With more than this to be made again, batches are as large as others: 64 µs a list in place of 80, and events of
that moment wait for 5 ms more. At 5,000 a second the last of them is a fifth of a second away."""

RETRY_S = 1.0
"""How long lists wait after one was not delivered: the broker is away, and comes back in seconds or minutes."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Due:
    """A user whose list is due, and the newest event that it has to take into account."""

    owner: Ownership
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
    """What waits for the list."""
    revision: int = 0
    """How many times a list was made for this event already, and held what was sold out soon after."""


@dataclass(slots=True, frozen=True)
class _Out:
    """What is remembered of a list that went out. Without its owner, whose end is to be the end of it."""

    row: int
    topic: str
    offset: int
    event_ms: int
    appended_ms: int
    revision: int


@dataclass(slots=True)
class _Scored:
    """A batch with its slates, in the batch's order; none where scoring failed."""

    batch: dict[str, Due]
    slates: list[Slate]
    at: float
    """s since 1970."""
    changes: int
    """The catalogue's changes that scoring knew of."""


class _Late:
    """The users of one ownership whose events were old, and the chunks that wait until all of them have a list."""

    def __init__(self) -> None:
        self.users: dict[str, Due] = {}
        self.chunks: list[Ticket] = []
        self.at = time.monotonic()


class Lists:
    """One worker's line, its scoring, and its publishing."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        recommender: Recommender,
        outbox: Outbox,
        metrics: Metrics,
        entitled: Callable[[], bool],
    ) -> None:
        """An empty line.

        Args:
            settings: how many users are scored at a time.
            topic: where lists go.
            recommender: makes them.
            outbox: sends them.
            metrics: told of them.
            entitled: whether the partitions are surely still ours. A worker that was frozen finds its line full of
                users whom somebody else serves by now; what it then published would come after their newer lists.
        """
        self._settings = settings
        self._topic = topic
        self._recommender = recommender
        self._outbox = outbox
        self._metrics = metrics
        self._entitled = entitled
        self._due: dict[str, Due] = {}
        self._late: dict[Ownership, _Late] = {}
        self._released: dict[str, Due] = {}
        """Late ones whose partition has caught up: they are taken when nobody else is due."""
        self._stale: dict[str, Due] = {}
        """Whose newest list holds what can't be sold any more: they are taken when nobody else is due."""
        self._recent: WeakKeyDictionary[Ownership, RecentLists[_Out]] = WeakKeyDictionary()
        self._under_way: dict[str, Due] = {}
        """Who is out of the line and has no list confirmed yet, and the newest cause that he was taken out for."""
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._few_s = 0.0
        """How long the last batch of up to `HERE` users took to score."""
        # One thread: a recommender runs on one at a time.
        self._scoring = ThreadPoolExecutor(1, "scoring")

    def __len__(self) -> int:
        """Users in line who did something just now."""
        return len(self._due)

    @property
    def late(self) -> int:
        """Users whose list waits until their partition has caught up."""
        return len(self._released) + sum(len(late.users) for late in self._late.values())

    def line_up(self, due: Mapping[str, Due], ticket: Ticket) -> None:
        """Put users in line whose newest event was in one chunk, whose `ticket` waits for their lists."""
        line, waiting = self._due, 0
        if self._released or self._late:
            self._take_back(due)
        for user, newest in due.items():
            if (older := line.get(user)) is not None and older.owner is newest.owner:
                waiting += 1
                newest.tickets += older.tickets
            newest.tickets.append(ticket)
            line[user] = newest
            self._stale.pop(user, None)
        ticket.add(len(due))
        self._metrics.coalesced.inc(waiting)

    def put_off(self, owner: Ownership, due: Mapping[str, Due], ticket: Ticket) -> None:
        """Let users whose newest event is old wait until the partition has caught up."""
        late = self._late.get(owner)
        if late is None:
            late = self._late[owner] = _Late()
        late.users |= due
        late.at = time.monotonic()
        ticket.add()
        late.chunks.append(ticket)

    def wake(self) -> None:
        """Begin with what is in line."""
        self._wake.set()

    def forget(self, user: str, owner: Ownership) -> list[Ticket]:
        """Take a user out of the line for good; returns what waits for the list."""
        tickets: list[Ticket] = []
        self._stale.pop(user, None)
        if (recent := self._recent.get(owner)) is not None:
            recent.forget(user)
        for line in (self._due, self._released, self._late[owner].users if owner in self._late else {}):
            if (due := line.pop(user, None)) is not None:
                tickets += due.tickets
        return tickets

    def withdraw(self, item_ids: Sequence[str]) -> None:
        """These items can't be sold any more: make the recent lists again that hold one.

        Such a list has the same cause as the one before, the user's newest event, and the next revision. Whoever has a
        newer event in line gets his list for that.
        """
        now = time.time()
        for owner, recent in list(self._recent.items()):
            if owner.closed:
                del self._recent[owner]
                continue
            for user, out in recent.holding(item_ids, time.monotonic()).items():
                if user not in self._due and user not in self._released and user not in self._stale:
                    self._stale[user] = _again_of(owner, out, now)
        if self._stale:
            self._wake.set()

    def take_back(self, user: str, owner: Ownership, ticket: Ticket) -> None:
        """Take back the user's newest list; `ticket` waits until that is known.

        It is tried until the ownership ends: by then the request is its successor's, and the user's next list, too.
        """
        ticket.add()

        def outcome(_: int, delivered: bool) -> None:
            if delivered:
                ticket.settle()
            else:
                asyncio.get_running_loop().call_later(RETRY_S, send)

        def send() -> None:
            if not owner.closed:
                self._outbox.lists(self._topic, [(user, None)], outcome)

        send()

    async def pace(self) -> None:
        """Before the next fetch: let lists that are due go first, for `PACE_S` at most.

        What comes meanwhile makes the next chunks larger, and those are cheaper an event.
        """
        deadline = time.monotonic() + PACE_S
        while len(self._due) > HERE and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)

    async def run(self) -> None:
        """Publish the lists that are due, a batch at a time, until cancelled.

        Few users are scored here and now; larger batches on a thread, so that one is published while the next is
        scored.
        """
        under_way: deque[asyncio.Future[_Scored]] = deque()
        loop = asyncio.get_running_loop()
        while True:
            self._release()
            while not (self._due or self._released or self._stale) and not under_way:  # a chunk may ask for no list
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), QUIET_S if self._late else None)
                self._release()
            if (wait := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            while not self._entitled():
                await asyncio.sleep(LOOK_S)
            if not under_way and self._waiting <= HERE and self._few_s <= HERE_S:
                if batch := self._next_batch():
                    self._publish(self._recommend(*batch))
                await asyncio.sleep(0 if batch else LOOK_S)
                continue
            # A second one keeps the thread busy while the loop is; only a full one, as it would else split a batch.
            while len(under_way) < 2 and self._waiting >= (self._settings.score_batch if under_way else 1):
                if not (batch := self._next_batch()):
                    break
                under_way.append(loop.run_in_executor(self._scoring, self._recommend, *batch))
            if under_way:
                self._publish(await under_way.popleft())
            else:
                await asyncio.sleep(LOOK_S)

    def close(self) -> None:
        """Stop scoring."""
        self._scoring.shutdown(wait=False, cancel_futures=True)

    @property
    def _waiting(self) -> int:
        """Users who could be scored now."""
        return len(self._due) + len(self._released) + len(self._stale)

    def _release(self) -> None:
        """Let those of partitions that have caught up into the line, behind everybody else."""
        now = time.monotonic()
        for owner, late in list(self._late.items()):
            if owner.closed:
                del self._late[owner]
            elif now - late.at > QUIET_S:
                del self._late[owner]
                chunks = late.chunks

                def all_listed(chunks: list[Ticket] = chunks) -> None:
                    _settle(chunks)

                barrier = Ticket(all_listed)
                for user, due in late.users.items():
                    # Whoever is in line all the same was so before he was put off: what came then is the newer cause.
                    line = self._due if user in self._due else self._released
                    if (older := line.get(user)) is not None and older.owner is owner:
                        due.tickets += older.tickets
                    due.tickets.append(barrier)
                    line[user] = due
                    self._stale.pop(user, None)
                    barrier.add()
                barrier.seal()

    def _take_back(self, due: Mapping[str, Due]) -> None:
        """Users of old events do something now: the list of now is the one, and no older one may follow it."""
        for user, newest in due.items():
            if (released := self._released.get(user)) is not None and released.owner is newest.owner:
                newest.tickets += self._released.pop(user).tickets
            if (late := self._late.get(newest.owner)) is not None:
                late.users.pop(user, None)

    def _next_batch(self) -> tuple[dict[str, Due], Records] | None:
        """Take the users who have waited longest out of the line, with copies of their profiles as they are now.

        Nobody where all of them belong to partitions that may be somebody else's.
        """
        batch: dict[str, Due] = {}
        full = self._settings.score_batch
        again = min(REMADE, full) if len(self._stale) <= MANY_REMADE else full
        for line, most in (
            (self._due, full),
            (self._released, full),
            (self._stale, again),
        ):
            for user in list(islice(line, most)):
                if len(batch) >= most:
                    break
                due = line[user]
                if due.owner.state is State.SUSPENDED:
                    continue
                if line is self._stale and user in self._under_way:
                    continue  # what is on its way may be of a newer event, and nothing older may follow it
                del line[user]
                if due.owner.closed:
                    continue
                batch[user] = self._under_way[user] = due
        if not batch:
            return None
        return batch, from_bytes([to_bytes(due.owner.table.rows.records[due.row]) for due in batch.values()])

    def _recommend(self, batch: dict[str, Due], records: Records) -> _Scored:
        """Score a batch; on the scoring thread or, while nothing is under way there, here."""
        began, changes = time.monotonic(), self._recommender.changes
        try:
            slates = self._recommender.recommend(list(batch), records, int(time.time() * 1000))
        except Exception:
            # The users' next events bring the next attempt; holding the chunks back would stop everything.
            log.exception("scoring %d users failed: their lists are left out", len(batch))
            self._metrics.scoring_failures.inc()
            slates = []
        if len(batch) <= HERE:
            self._few_s = time.monotonic() - began
        return _Scored(batch, slates, time.time(), changes)

    def _publish(self, scored: _Scored) -> None:
        published = time.time()
        if not scored.slates:
            for user, due in scored.batch.items():
                self._arrived(user, due)
                _settle(due.tickets)
            return
        if not self._entitled():
            for user, due in scored.batch.items():
                self._again(user, due)
            return
        # Here, where nothing comes between looking and sending: what the catalogue's follower changes from now on finds
        # these lists among the recent ones, as it tells of its changes on this loop.
        stale = self._leave_out(scored)
        sent: list[tuple[str, Due]] = []
        records: list[tuple[str, bytes | None]] = []
        for (user, due), slate in zip(scored.batch.items(), scored.slates, strict=True):
            if due.owner.closed:
                self._arrived(user, due)
                continue
            if due.owner.state is State.SUSPENDED:
                self._again(user, due)
                continue
            if not due.owner.table.rows.records["events"][due.row]:  # forgotten while the list was made
                self._arrived(user, due)
                _settle(due.tickets)
                continue
            records.append((user, encode_list(_message(user, due, slate, scored.at, published))))
            sent.append((user, due))
            self._metrics.published(slate, due.appended_ms, published, again=due.revision > 0)
            self._note(user, due, slate)
            self._stale.pop(user, None)
            if user in stale and user not in self._due and user not in self._released:
                self._stale[user] = _again_of(due.owner, _out_of(due), published)

        def outcome(place: int, delivered: bool) -> None:
            user, due = sent[place]
            if due.owner.closed:
                self._arrived(user, due)
            elif delivered or user not in self._under_way:  # a newer one was delivered
                self._arrived(user, due)
                self._metrics.progress()
                _settle(due.tickets)
            else:
                self._not_before = time.monotonic() + RETRY_S
                self._again(user, due)

        self._outbox.lists(self._topic, records, outcome)

    def _leave_out(self, scored: _Scored) -> set[str]:
        """Take what can't be sold any more out of lists that were scored before that was known; says whose these are.

        They go out all the same, shorter by a place or two, and full ones are made after them.
        """
        if scored.changes == self._recommender.changes:
            return set()
        ids = [item.item_id for slate in scored.slates for item in slate.items]
        sold_out = {ids[place] for place in np.flatnonzero(~self._recommender.sellable(ids)).tolist()}
        shortened = set()
        for place, (user, slate) in enumerate(zip(scored.batch, scored.slates, strict=True)):
            kept = [item for item in slate.items if item.item_id not in sold_out] if sold_out else slate.items
            if len(kept) < len(slate.items):
                scored.slates[place] = replace(slate, items=kept)
                shortened.add(user)
        return shortened

    def _note(self, user: str, due: Due, slate: Slate) -> None:
        recent = self._recent.get(due.owner)
        if recent is None:
            recent = self._recent[due.owner] = RecentLists(RECENT_LISTS, RECENT_S)
        recent.note(user, [item.item_id for item in slate.items], _out_of(due), time.monotonic())

    def _again(self, user: str, due: Due) -> None:
        """Put a user back whose list did not go out, unless a newer one is on its way: this one must not follow it."""
        if due.owner.closed:
            self._arrived(user, due)
            return
        newer = self._under_way.get(user)
        if newer is due:
            del self._under_way[user]
            in_line = (self._due.get(user), self._released.get(user))
            newer = next((one for one in in_line if one is not None and one.owner is due.owner), None)
        if newer is not None and newer.owner is due.owner:
            newer.tickets += due.tickets
        else:
            self._due[user] = due
            self._stale.pop(user, None)
        self._wake.set()

    def _arrived(self, user: str, due: Due) -> None:
        """Nothing more comes of this list."""
        if self._under_way.get(user) is due:
            del self._under_way[user]


def _out_of(due: Due) -> _Out:
    return _Out(due.row, due.topic, due.offset, due.event_ms, due.appended_ms, due.revision)


def _again_of(owner: Ownership, out: _Out, now: float) -> Due:
    """The next list for the same event; `now`, s since 1970, is when it was known that one is needed."""
    return Due(
        owner=owner,
        row=out.row,
        topic=out.topic,
        offset=out.offset,
        event_ms=out.event_ms,
        appended_ms=out.appended_ms,
        fetched=now,
        folded=now,
        tickets=[],
        revision=out.revision + 1,
    )


def _settle(tickets: Iterable[Ticket]) -> None:
    for ticket in tickets:
        ticket.settle()


def _message(user: str, due: Due, slate: Slate, scored: float, published: float) -> RecommendationList:
    return RecommendationList(
        list_id=list_id(user, due.topic, due.owner.partition, due.offset, slate.release, due.revision),
        user_id=user,
        items=slate.items,
        release=slate.release,
        strategy=slate.strategy,
        alpha=slate.alpha,
        revision=due.revision,
        policy=slate.policy,
        cause=Cause(topic=due.topic, partition=due.owner.partition, offset=due.offset),
        times=Times(
            event=due.event_ms,
            appended=due.appended_ms,
            fetched=due.fetched * 1000,
            folded=due.folded * 1000,
            scored=scored * 1000,
            published=published * 1000,
        ),
    )
