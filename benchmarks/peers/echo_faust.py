"""A stock Faust echo: one agent that sends each event back, naming its origin."""

import sys
import tempfile
from typing import Any

import faust
import typer

from benchmarks.peers import echo_of, milestone


def run(bootstrap: str, source: str, sink: str, port: int) -> None:
    """Echo SOURCE into SINK until ended."""
    app = faust.App(
        "echo-faust",
        broker=f"kafka://{bootstrap}",
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="latest",
        datadir=tempfile.mkdtemp(prefix="mmrec-bench-faust-"),
        web_port=port,
        web_host="127.0.0.1",
        broker_session_timeout=6.0,
        broker_rebalance_timeout=6.0,
        stream_recovery_delay=0.0,
    )
    out = app.topic(sink, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")

    @app.agent(app.topic(source, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw"))
    async def echo(stream: faust.StreamT[Any]) -> None:
        async for event in stream.events():
            message = event.message
            await out.send(
                key=message.key, value=echo_of(message.key, message.topic, message.partition, message.offset)
            )

    app.on_partitions_assigned.connect(lambda *_, **__: milestone("ready"))

    sys.argv = ["faust", "worker", "-l", "info"]
    app.main()


if __name__ == "__main__":
    typer.run(run)
