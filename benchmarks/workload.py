"""A worker of the product as a benchmark runs it: its environment, its topics, and changelogs made without it."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import events
from benchmarks.events import Message
from benchmarks.kafka import Cluster
from mmrec_stream.brokers.base import Broker, free_port
from mmrec_stream.contracts.behaviour import decode_event
from mmrec_stream.contracts.identity import partition_of, source_key
from mmrec_stream.kafka.plan import ensure_topics
from mmrec_stream.profiles.columns import columns_of
from mmrec_stream.profiles.fold import fold
from mmrec_stream.profiles.record import RECORD
from mmrec_stream.profiles.rows import ProfileRows
from mmrec_stream.settings import load_settings

PARTITIONS = 4

_TEMPLATES = 4_000
"""Folded profiles that a large changelog is made of: enough that its batches compress as real ones do."""


def worker_env(broker: Broker, *, prefix: str, app_id: str, data_dir: Path | str, **more: str) -> dict[str, str]:
    """The environment of a `mmrec worker` on the benchmark's broker; `more` are further settings."""
    return {
        "MMREC_BOOTSTRAP": broker.bootstrap,
        "MMREC_PREFIX": prefix,
        "MMREC_APP_ID": app_id,
        "MMREC_DATA_DIR": str(data_dir),
        "MMREC_WEB_PORT": str(free_port()),
        **{f"MMREC_{name.upper()}": value for name, value in more.items()},
    }


def health(port: int) -> dict[str, Any]:
    """What a worker's health page says; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            status: dict[str, Any] = json.load(answer)
            return status
    except OSError:
        return {}


def create_topics(cluster: Cluster, *, prefix: str, app_id: str, partitions: int = PARTITIONS) -> None:
    """Create what a worker needs and the cluster lacks, as `mmrec topics` would."""
    settings = load_settings(bootstrap=cluster.bootstrap, prefix=prefix, app_id=app_id, partitions=partitions)
    ensure_topics(settings)


def changelog(profiles: int, *, partitions: int = PARTITIONS) -> Iterator[Message]:
    """A changelog of `profiles` users, one row each: `_TEMPLATES` folded profiles, again and again."""
    values = _folded(_TEMPLATES)
    for number in range(profiles):
        key = f"user-{number:08d}".encode()
        yield Message(partition_of(key, partitions), key, values[number % _TEMPLATES])


def _folded(users: int) -> list[bytes]:
    """The bytes of the profiles of `users` users with 100 events each: full rings and affinities."""
    rows = ProfileRows()
    decoded = [decode_event(message.value) for message in events.messages(users * 100, users=users, partitions=1)]
    for start in range(0, len(decoded), 10_000):
        columns = columns_of(
            decoded[start : start + 10_000], range(start, start + len(decoded[start : start + 10_000]))
        )
        places = rows.rows_of(columns.users)
        fold(rows.records, places, columns, source_key("bench", 0))
    block, width = rows.records[: len(rows)].tobytes(), RECORD.itemsize
    return [block[start : start + width] for start in range(0, len(block), width)] * -(-users // len(rows))
