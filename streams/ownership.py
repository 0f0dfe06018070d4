"""Ownership: one partition, held in one assignment. Whatever comes back later belongs to the object it was begun for.

A restore's rows, a confirmation, a scored list, a fetched chunk: each holds the ownership that it was begun for, and
means nothing once that is closed. Nothing finds its partition by number, so nothing can reach a later owner of it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from enum import StrEnum
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from mmrec_stream.contracts.identity import source_key
from mmrec_stream.profiles.partitions import PartitionRows
from mmrec_stream.profiles.record import erase
from streams.changelog import ChangelogLostError, ChangelogWriter, WriterClosedError
from streams.commits import CommitTracker

log = logging.getLogger(__name__)


class State(StrEnum):
    """Where an ownership stands."""

    OPENING = "opening"
    """Its writer is being opened and its rows are restored; nothing is fetched."""
    SERVING = "serving"
    SUSPENDED = "suspended"
    """The group is handing out partitions anew and may give this one to another; nothing is fetched or published."""
    CLOSED = "closed"


class Ticket:
    """Counts what one piece of work still waits for; calls `done` when there is nothing left.

    It is open until `seal`: nothing is done while more may still be added.
    """

    __slots__ = ("_done", "pending")

    def __init__(self, done: Callable[[], None]) -> None:
        self.pending = 1
        self._done = done

    def add(self, count: int = 1) -> None:
        """Wait for `count` more."""
        self.pending += count

    def settle(self) -> None:
        """One of them has come."""
        self.pending -= 1
        if not self.pending:
            self._done()

    seal = settle
    """No more is added."""


class Ownership:
    """One partition's profiles, inputs and changelog, from its assignment to its revocation.

    All methods are called from the event loop. While it is being opened, the restoring thread alone touches `table`.
    """

    def __init__(
        self,
        partition: int,
        positions: Mapping[str, int | None],
        writer: ChangelogWriter,
        table: PartitionRows | None = None,
    ) -> None:
        """Begin to own a partition.

        Args:
            partition: its number, the same in all topics.
            positions: the next offset to read of each behaviour topic, as the group has it; None where it has none.
            writer: the partition's own, not yet opened.
            table: rows to go on with, which nobody else has any more; None begins with none.
        """
        self.partition = partition
        self.state = State.OPENING
        self.table = PartitionRows() if table is None else table
        self.warm = self.table.position > 0
        """Whether it goes on with rows that were there."""
        self._began = monotonic()
        self.fetched = {topic: offset or 0 for topic, offset in positions.items()}
        """The next offset to fetch of each topic. Only the fetching thread moves it."""
        self._writer = writer
        self._commits: CommitTracker[str] = CommitTracker()
        self._open: deque[tuple[float, Ticket]] = deque()
        """When each chunk that is being worked on was begun, oldest first; finished ones leave when they are first."""
        self._touched: list[NDArray[np.int64]] = []
        self._waiting: list[Ticket] = []
        self._erasing: dict[str, int] = {}
        """Users who are forgotten, and their rows, which still know what was folded; see `erase`."""
        self._erased: dict[str, None] = {}
        """Users whose rows are gone, and whose tombstones are to be written."""
        self._finished: dict[str, int] = {}
        """The next offset to read of each topic, after all that is finished; what is not committed yet."""
        self._committed = dict(positions)
        self._writing: asyncio.Task[None] | None = None
        self._in_doubt = False
        """Whether rows were sent of which it is not known that they are committed."""
        self._unwritten_since = 0.0
        """When (monotonic) the oldest change was made that no write has committed yet."""

    def __repr__(self) -> str:
        return f"<partition {self.partition}, {self.state}>"

    @property
    def closed(self) -> bool:
        """Whether it is over: what is done for it now has no effect."""
        return self.state is State.CLOSED

    @property
    def age_s(self) -> float:
        """For how long it exists."""
        return monotonic() - self._began

    @property
    def opening(self) -> bool:
        """Whether its rows are not complete yet."""
        return self.state is State.OPENING

    @property
    def open_chunks(self) -> int:
        """Chunks that are begun and not finished."""
        self._drop_finished()
        return len(self._open)

    @property
    def oldest_open_s(self) -> float:
        """How long ago the oldest chunk that is not finished was begun; 0 without one."""
        self._drop_finished()
        return monotonic() - self._open[0][0] if self._open else 0.0

    @property
    def unwritten_s(self) -> float:
        """For how long the oldest change has waited to be committed to the changelog; 0 without one."""
        return monotonic() - self._unwritten_since if self.unwritten else 0.0

    @property
    def unwritten(self) -> bool:
        """Whether rows have changed that are not committed."""
        return bool(self._touched or self._erased or self._waiting or self._writing)

    def begin(self, topic: str, first_offset: int, last_offset: int) -> Ticket:
        """Begin a chunk of `topic`. When its ticket is done, its offsets may be committed."""
        if self._committed[topic] is None:
            self._committed[topic] = first_offset
        self._commits.begin(topic, last_offset)
        ticket = Ticket(lambda: self._commits.finish(topic, last_offset))
        self._open.append((monotonic(), ticket))
        return ticket

    def touch(self, rows: NDArray[np.int64], ticket: Ticket) -> None:
        """These rows have changed: `ticket` waits until their present state is committed to the changelog."""
        self._wait(ticket)
        self._touched.append(rows)

    def erase(self, user: str, source: int, offset: int, ticket: Ticket) -> bool:
        """Forget a user; `ticket` waits until the changelog knows nothing of what he did. False if that is done.

        What remains at first is how far each source was folded: events from before could come again, while their
        offsets are not committed, and would make a profile of what was to be forgotten. When they are, the row goes.

        Args:
            user: who.
            source: `source_key` of the topic with the request.
            offset: the request's.
            ticket: of the request's chunk.
        """
        rows = self.table.rows
        row = rows.row(user)
        if row is None or not erase(rows.records[row : row + 1], source, offset):
            return False
        self._erasing[user] = row
        self.touch(np.array([row], dtype=np.int64), ticket)
        return True

    def write(self, executor: Executor, on_written: Callable[[int], None], on_lost: Callable[[str], None]) -> None:
        """Begin to write what has changed, unless a write is under way.

        A row that changes a hundred times between two writes is written once.

        Args:
            executor: where the writer's calls block.
            on_written: told how many rows were committed.
            on_lost: told why, when the broker has let another owner in.
        """
        if self.closed or self._writing is not None or not (self._touched or self._erased or self._waiting):
            return
        table = self.table.rows
        rows = np.unique(np.concatenate(self._touched)) if self._touched else np.empty(0, dtype=np.int64)
        if self._erased:  # of a user who has gone meanwhile, only the tombstone is written
            rows = rows[np.isin(rows, table.live())]
        # Encoded here, on the loop: a row must not change while it is read.
        gone = [user for user in self._erased if user not in table]
        keys = table.users_of(rows) + gone
        values: list[bytes | None] = [*table.encode(rows), *(None for _ in gone)]
        tickets, self._waiting, self._touched, self._erased = self._waiting, [], [], {}

        began = monotonic()

        async def writing() -> None:
            known_to = 0
            try:
                if keys:
                    self._in_doubt = True
                    call = asyncio.get_running_loop().run_in_executor(executor, self._writer.write, keys, values)
                    known_to = await call
                    self._in_doubt = False
            except WriterClosedError:
                return
            except ChangelogLostError as error:
                if not self.closed:
                    on_lost(str(error))
                return
            finally:
                self._writing = None
            if not self.closed:
                if known_to > self.table.position:
                    self.table.advance(known_to)  # there is no other writer: all before it is in the rows
                self._unwritten_since = began
                on_written(len(keys))
                for ticket in tickets:
                    ticket.settle()

        self._writing = asyncio.get_running_loop().create_task(writing())

    async def written(self) -> None:
        """Wait for the write that is under way."""
        if self._writing is not None:
            await asyncio.shield(self._writing)

    def committable(self) -> dict[str, int]:
        """The next offset to read of each topic, after all that is finished, where that is not committed yet."""
        if self.closed:
            return {}
        for topic in self._commits.partitions():
            if (offset := self._commits.committable(topic)) is not None:
                self._finished[topic] = offset
        return dict(self._finished)

    def restart(self, topic: str, offset: int | None) -> None:
        """The topic is fetched from what the group has, None being its beginning. Before anything is begun."""
        self.fetched[topic] = offset or 0
        self._committed[topic] = offset

    @property
    def known(self) -> dict[str, int]:
        """The next offset to read of each topic, as the group has it or may have it: nothing before it is unread."""
        return {topic: offset for topic, offset in self._committed.items() if offset is not None}

    def committed(self, topic: str, offset: int) -> None:
        """The group knows that `topic` goes on at `offset`."""
        self._committed[topic] = offset
        if self._finished.get(topic) == offset:
            del self._finished[topic]
        if not self._erasing:
            return
        sources = {source_key(name, self.partition): name for name in self._committed}
        rows = self.table.rows
        for user, row in list(self._erasing.items()):
            record = rows.records[row]
            known = zip(record["source_keys"].tolist(), record["source_offsets"].tolist(), strict=True)
            if record["events"]:  # he has come back
                del self._erasing[user]
            elif all(last < (self._committed[sources[key]] or 0) for key, last in known if key in sources):
                del self._erasing[user]
                rows.forget(user)
                self._erased[user] = None

    def open(self) -> None:
        """Let no earlier owner write any more. Blocks; raises as `ChangelogWriter.open`."""
        self._writer.open()

    def restored(self) -> None:
        """The rows are complete."""
        if self.closed:
            return
        self.state = State.SUSPENDED
        rows = self.table.rows
        live = rows.live()
        emptied = live[rows.records["events"][live] == 0]
        self._erasing = dict(zip(rows.users_of(emptied), emptied.tolist(), strict=True))

    def serve(self) -> None:
        """Go on: the rows are complete, and what is fetched may be worked on."""
        if not self.closed:
            self.state = State.SERVING

    def suspend(self) -> None:
        """Publish nothing until `serve`."""
        if self.state is State.SERVING:
            self.state = State.SUSPENDED

    def begin_anew(self) -> None:
        """While it is restored: forget the rows, as the changelog is another than the one they came from."""
        self.table, self.warm = PartitionRows(), False

    def release(self) -> PartitionRows | None:
        """End it, and give its rows away if they are what its changelog says; None if some are not committed.

        No way to the rows is left here: what comes back later can't change them.
        """
        exact = self.state in (State.SERVING, State.SUSPENDED) and not self.unwritten and not self._in_doubt
        table, self.table = self.table, PartitionRows()
        self.close()
        return table if exact else None

    def close(self) -> None:
        """End it. Its rows are dropped with it, and whatever is still under way has no effect."""
        self.state = State.CLOSED
        self._writer.close()
        self._waiting, self._touched, self._erased = [], [], {}
        self._open.clear()

    def _wait(self, ticket: Ticket) -> None:
        if not self.unwritten:
            self._unwritten_since = monotonic()
        ticket.add()
        self._waiting.append(ticket)

    def _drop_finished(self) -> None:
        while self._open and not self._open[0][1].pending:
            self._open.popleft()


class Ownerships:
    """The partitions that a worker holds now. The one place that maps numbers to them, for whoever looks in."""

    def __init__(self) -> None:
        self._held: dict[int, Ownership] = {}

    def __iter__(self) -> Iterator[Ownership]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    def get(self, partition: int) -> Ownership | None:
        """The present ownership of a partition."""
        return self._held.get(partition)

    def add(self, ownership: Ownership) -> None:
        """Hold one more.

        Raises:
            ValueError: the partition is held already.
        """
        if ownership.partition in self._held:
            raise ValueError(f"partition {ownership.partition} is held already")
        self._held[ownership.partition] = ownership

    def close(self, ownerships: Iterable[Ownership]) -> None:
        """Close these, and hold them no longer."""
        for ownership in ownerships:
            ownership.close()
            if self._held.get(ownership.partition) is ownership:
                del self._held[ownership.partition]

    @property
    def serving(self) -> list[int]:
        """Numbers of the partitions that are served."""
        return sorted(one.partition for one in self if one.state is State.SERVING)
