"""Quix Streams with its own state (RocksDB) and changelog."""

import tempfile
from typing import Any

import typer
from quixstreams import Application
from quixstreams.state import State

from benchmarks.peers import KEPT, milestone


def run(bootstrap: str, topic: str, group: str, count: int) -> None:
    """Keep the last items of each user over the first COUNT events of TOPIC, then commit and stop."""
    app = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(prefix="mmrec-bench-quix-"),
        use_changelog_topics=True,
        loglevel="WARNING",
    )
    seen = False

    def keep(event: dict[str, Any], state: State[str, list[str | None]]) -> None:
        nonlocal seen
        if not seen:
            seen = True
            milestone("first")
        items = state.get("items", [])
        items.append(event.get("item_id"))
        state.set("items", items[-KEPT:])

    app.dataframe(app.topic(topic, value_deserializer="json")).apply(keep, stateful=True)
    app.run(count=count)
    milestone("last")


if __name__ == "__main__":
    typer.run(run)
