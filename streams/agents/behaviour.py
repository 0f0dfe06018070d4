"""The agents that consume behaviour: clicks, purchases, feedback, and every topic of the shop's own.

One agent a topic, so that a flood of impressions does not stand in a click's way. Concurrency is 1: parallelism is
partitions, and two tasks on one stream could finish out of order.
"""

from collections.abc import AsyncIterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from faust.streams import Stream
from faust.types import AgentT

from streams.transport import ChunkConsumer, ChunkTopic

if TYPE_CHECKING:
    from streams.app import StreamApp


def register(app: "StreamApp") -> list[AgentT[Any]]:
    """Create the agents on `app`."""
    return [_agent(app, topic) for topic in app.topic_names.behaviour]


def _agent(app: "StreamApp", topic: str) -> AgentT[Any]:
    channel = ChunkTopic(app, topics=[topic], partitions=app.settings.partitions, acks=True, internal=False)

    async def behaviour(stream: Stream[Any]) -> AsyncIterable[None]:
        consumer = cast("ChunkConsumer", app.consumer)
        async for event in cast("Stream[Any]", stream.noack()).events():
            await app.pipeline.accept(event, partial(consumer.begin, event.message))
            yield

    return app.agent(channel, name=f"behaviour-{topic}", concurrency=1)(cast("Any", behaviour))
