"""A network between a worker and the brokers that can be cut: `python network.py PORT:PORT …`.

Each pair is a port to listen on and the broker's port behind it. It reads commands, a word a line, and answers each
with the same word: `cut` holds back all that belongs to the consumer group, `heal` lets it pass again. What is cut is
silence, not an end: connections stay open and nothing arrives, as when a network swallows packets.

Which connection belongs to the group is seen from the requests on it: clients keep one for the coordinator alone. So
the same broker goes on serving fetches and taking records while nobody hears the worker's heartbeats.
"""

import asyncio
import signal
import sys
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"

GROUP_REQUESTS = frozenset({8, 9, 11, 12, 13, 14, 28, 68})
"""API keys of Kafka's protocol: OffsetCommit, OffsetFetch, JoinGroup, Heartbeat, LeaveGroup, SyncGroup,
TxnOffsetCommit, ConsumerGroupHeartbeat."""

PIECE = 1 << 16


class Network:
    """Connections between clients and brokers."""

    def __init__(self) -> None:
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        """Hold back what belongs to the group."""
        self._whole.clear()

    def heal(self) -> None:
        """Let everything pass."""
        self._whole.set()

    async def listen(self, port: int, target: int) -> asyncio.Server:
        """Take connections at `port` and make one to `target` for each."""

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there = await asyncio.open_connection(LOOPBACK, target)
            except OSError:  # the broker is away: so is this connection
                writer.close()
                return
            await _Connection(self._whole).run((reader, writer), there)

        return await asyncio.start_server(connect, LOOPBACK, port)


class _Connection:
    """One connection, and whether it is the group's."""

    def __init__(self, whole: asyncio.Event) -> None:
        self._whole = whole
        self._of_group = False

    async def run(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        broker: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        """Pass bytes both ways until one side ends."""
        ways = [
            asyncio.ensure_future(self._requests(client[0], broker[1])),
            asyncio.ensure_future(self._answers(broker[0], client[1])),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for writer in (client[1], broker[1]):
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readexactly(6)  # length of the request (int32), API key (int16)
            left = int.from_bytes(head[:4]) - 2
            self._of_group |= int.from_bytes(head[4:]) in GROUP_REQUESTS
            await self._pass(writer, head)
            while left:
                piece = await reader.readexactly(min(left, PIECE))
                left -= len(piece)
                await self._pass(writer, piece)

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(PIECE):
            await self._pass(writer, piece)

    async def _pass(self, writer: asyncio.StreamWriter, piece: bytes) -> None:
        if self._of_group:
            await self._whole.wait()
        writer.write(piece)
        await writer.drain()


async def _serve(ports: Iterable[tuple[int, int]]) -> None:
    network = Network()
    servers = [await network.listen(mine, theirs) for mine, theirs in ports]
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("ready", flush=True)
    while word := (await commands.readline()).decode().strip():
        {"cut": network.cut, "heal": network.heal}[word]()
        print(word, flush=True)
    for server in servers:
        server.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    asyncio.run(_serve([(int(mine), int(theirs)) for mine, theirs in (pair.split(":") for pair in sys.argv[1:])]))
