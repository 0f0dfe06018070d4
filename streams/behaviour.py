"""The agents that consume behaviour: clicks, purchases, feedback, and every topic of the shop's own.

One agent a topic. Concurrency is 1: parallelism is partitions, and two tasks on one stream could finish out of order.
"""

from collections.abc import AsyncIterable
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import AgentT

from streams.chunks import Chunk
from streams.driver import ChunkConsumer, ChunkTopic
from streams.worker import Worker


def register(app: faust.App) -> list[AgentT[Any]]:
    """Create the agents on a worker's app."""
    return [_agent(app, topic) for topic in cast("Worker", app).topic_names.behaviour]


def _agent(app: faust.App, topic: str) -> AgentT[Any]:
    worker = cast("Worker", app)
    channel = ChunkTopic(app, topics=[topic], partitions=worker.settings.partitions, acks=True, internal=False)

    async def behaviour(stream: Stream[Any]) -> AsyncIterable[None]:
        consumer = cast("ChunkConsumer", app.consumer)
        async for event in cast("Stream[Any]", stream.noack()).events():
            await worker.pipeline.accept(cast("Chunk", event.value), consumer.begin)
            yield

    return app.agent(channel, name=f"behaviour-{topic}", concurrency=1)(cast("Any", behaviour))
