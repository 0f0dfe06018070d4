"""What the parts of a worker need of the whole."""

from collections.abc import Sequence
from typing import Any, Protocol

from mmrec_stream.settings import Settings
from mmrec_stream.topics import Topics
from streams.assignment import Assignment
from streams.group import GroupClient
from streams.metrics import Metrics
from streams.pipeline import Pipeline


class Worker(Protocol):
    """A running worker."""

    settings: Settings
    topic_names: Topics
    metrics: Metrics
    assignment: Assignment
    pipeline: Pipeline

    async def join(self, topics: Sequence[str]) -> GroupClient:
        """Join the group, to share these topics' partitions."""

    async def pace(self) -> None:
        """Before more is fetched: see that lists keep up."""

    failure: str | None
    """Why the worker ends by itself; None while it does not."""

    def fail(self, reason: str) -> None:
        """End the worker, as going on would help nobody."""

    def status(self) -> dict[str, Any]:
        """What the health page says."""

    def observe(self) -> None:
        """Bring the gauges up to date."""
