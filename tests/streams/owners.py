"""Ownerships whose changelog the test holds: rows are committed when it says so, or refused."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, cast

from streams.changelog import ChangelogLostError, WriterClosedError
from streams.ownership import Ownership


class KeptChangelog:
    """What one partition's writers have committed; stands in for `ChangelogWriter`."""

    def __init__(self, rows: list[tuple[str, bytes | None]] | None = None) -> None:
        self.rows = [] if rows is None else rows
        self.closed = False
        self.lost = False

    def open(self) -> None: ...

    def write(self, keys: Sequence[str], values: Sequence[bytes | None]) -> int:
        if self.closed:
            raise WriterClosedError
        if self.lost:
            raise ChangelogLostError("a newer owner")
        self.rows += zip(keys, values, strict=True)
        return len(self.rows)

    def close(self) -> None:
        self.closed = True


class Held(Executor):
    """Does what was submitted when the test says so; stands in for the writers' threads."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._done: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._done)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def do(self) -> None:
        """Do it; nobody hears of it yet."""
        waiting, self._waiting = self._waiting, []
        for future, work in waiting:
            try:
                self._done.append(partial(future.set_result, work()))
            except Exception as error:
                self._done.append(partial(future.set_exception, error))

    async def go_on(self) -> None:
        """Do it, and let the loop hear of it."""
        self.do()
        done, self._done = self._done, []
        for tell in done:
            tell()
        for _ in range(5):
            await asyncio.sleep(0)


def own(changelog: KeptChangelog, positions: Mapping[str, int | None], partition: int = 0) -> Ownership:
    """An ownership that serves what the changelog tells."""
    owner = Ownership(partition, positions, cast("Any", KeptChangelog(changelog.rows)))
    rows = changelog.rows
    owner.table.take(range(len(rows)), [user.encode() for user, _ in rows], [value for _, value in rows])
    owner.restored()
    owner.serve()
    return owner


async def write(owner: Ownership, executor: Executor | None = None) -> None:
    """Write what has changed; with an executor, begin to."""
    held = Held()
    owner.write(held if executor is None else executor, lambda _: None, lambda _: owner.close())
    await asyncio.sleep(0)
    if executor is None:
        await held.go_on()
