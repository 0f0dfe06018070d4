"""A bare aiokafka loop: fetch, decode, keep in a dict. No changelog, no commits: the floor of what Python can do."""

import asyncio
from collections import deque

import msgspec
import typer
from aiokafka import AIOKafkaConsumer

from benchmarks.peers import KEPT, milestone


def run(bootstrap: str, topic: str, count: int) -> None:
    """Keep the last items of each user over the first COUNT events of TOPIC."""
    asyncio.run(_loop(bootstrap, topic, count))


async def _loop(bootstrap: str, topic: str, count: int) -> None:
    decode = msgspec.json.Decoder().decode
    last: dict[str, deque[str]] = {}
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    done = 0
    try:
        while done < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                if not done:
                    milestone("first")
                for record in records:
                    event = decode(record.value)
                    items = last.get(event["user_id"])
                    if items is None:
                        items = last[event["user_id"]] = deque(maxlen=KEPT)
                    items.append(event.get("item_id"))
                done += len(records)
        milestone("last")
    finally:
        await consumer.stop()


if __name__ == "__main__":
    typer.run(run)
