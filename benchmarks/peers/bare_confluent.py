"""A bare confluent-kafka loop: consume, decode, keep in a dict. No changelog, no commits."""

from collections import deque

import msgspec
import typer
from confluent_kafka import Consumer

from benchmarks.peers import KEPT, milestone


def run(bootstrap: str, topic: str, count: int) -> None:
    """Keep the last items of each user over the first COUNT events of TOPIC."""
    decode = msgspec.json.Decoder().decode
    last: dict[str, deque[str]] = {}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bare-{topic}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,  # the default of a second leaves the loop idle for most of the time
        }
    )
    consumer.subscribe([topic])
    done = 0
    try:
        while done < count:
            records = consumer.consume(10_000, 0.2)
            if records and not done:
                milestone("first")
            for record in records:
                event = decode(record.value())
                items = last.get(event["user_id"])
                if items is None:
                    items = last[event["user_id"]] = deque(maxlen=KEPT)
                items.append(event.get("item_id"))
            done += len(records)
        milestone("last")
    finally:
        consumer.close()


if __name__ == "__main__":
    typer.run(run)
