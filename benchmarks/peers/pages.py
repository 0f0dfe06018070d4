"""Thousands of open pages: `python -m benchmarks.peers.pages PORT STREAMS FILE`, one event stream a user.

Prints the milestone `open` when every stream has had its first list. Told to end, it writes what came from then on to
FILE: user, list id and time of arrival (ms since 1970) of each list.
"""

import asyncio
import signal
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.events import user_ids

OPENING = 100
"""Streams that are being opened at a time."""

Arrival = tuple[str, str, float]
"""User, list id, ms since 1970."""


async def watch(port: int, user: str, came: list[Arrival], opened: asyncio.Event) -> None:
    """One page."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 18)
    writer.write(f"GET /v1/stream?user={user} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    while line := await reader.readline():
        if line.startswith(b"id: "):
            if opened.is_set():
                came.append((user, line[4:-1].decode(), time.time() * 1000))
            opened.set()


async def main(port: int, streams: int, file: Path) -> None:
    """Open them, and wait for the end."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    came: list[Arrival] = []
    gate = asyncio.Semaphore(OPENING)
    tasks = []

    async def open_one(user: str) -> None:
        async with gate:
            opened = asyncio.Event()
            tasks.append(asyncio.create_task(watch(port, user, came, opened)))
            await opened.wait()

    await asyncio.gather(*(open_one(user) for user in user_ids(streams)))
    print(msgspec.json.encode({"open": float(len(tasks))}).decode(), flush=True)
    await ended.wait()
    file.write_bytes(msgspec.json.encode(came))  # noqa: ASYNC240 - the end


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
