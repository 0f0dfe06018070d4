"""Stock Faust: one agent, one table in memory, one write an event."""

import sys
import tempfile
from typing import Any

import faust
import typer

from benchmarks.peers import KEPT, milestone


def run(bootstrap: str, topic: str, app_id: str, port: int) -> None:
    """Keep the last items of each user of TOPIC; the harness ends it when all offsets are committed."""
    app = faust.App(
        app_id,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        topic_disable_leader=True,
        topic_replication_factor=1,
        topic_partitions=4,
        consumer_auto_offset_reset="earliest",
        datadir=tempfile.mkdtemp(prefix="mmrec-bench-faust-"),
        web_port=port,
        web_host="127.0.0.1",
        # Without these a start takes 30 s; the steady rate does not depend on them.
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        stream_recovery_delay=0.0,
    )
    table = app.Table("last", default=list, partitions=4)
    seen = False

    @app.agent(app.topic(topic, key_type=bytes, value_type=bytes, value_serializer="json", key_serializer="raw"))
    async def keep(events: faust.StreamT[Any]) -> None:
        nonlocal seen
        async for event in events:
            if not seen:
                seen = True
                milestone("first")
            user = event["user_id"]
            items = table[user]
            items.append(event.get("item_id"))
            table[user] = items[-KEPT:]

    sys.argv = ["faust", "worker", "-l", "info"]
    app.main()


if __name__ == "__main__":
    typer.run(run)
