"""What a worker serves in a benchmark: a release, announced as the trainer does."""

from pathlib import Path

from confluent_kafka import Producer

from mmrec_stream.brokers.base import Broker
from mmrec_stream.contracts.releases import encode_release
from mmrec_stream.releases.folder import announcement
from mmrec_stream.settings import load_settings
from mmrec_stream.topics import Topics


def announce(broker: Broker, prefix: str, release: Path) -> None:
    """Tell the workers of `prefix` to serve a release."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    producer.produce(
        Topics.of(load_settings(prefix=prefix)).releases, encode_release(announcement(release)), b"default"
    )
    producer.flush(30)
