"""Brokers to play and test with: Apache Kafka where it can be had, an embedded Kafka-compatible one otherwise.

Production runs on a cluster of its own; nothing here is for it.
"""

from pathlib import Path
from typing import Literal

from mmrec_stream.brokers.apache import ApacheCluster, ApacheKafka, apache_cluster, apache_kafka, why_no_kafka
from mmrec_stream.brokers.base import Broker, free_port
from mmrec_stream.brokers.embedded import EmbeddedBroker, embedded, why_no_embedded

__all__ = [
    "ApacheCluster",
    "ApacheKafka",
    "Broker",
    "BrokerKind",
    "EmbeddedBroker",
    "apache_cluster",
    "apache_kafka",
    "choose_broker",
    "embedded",
    "free_port",
    "why_no_embedded",
    "why_no_kafka",
]

BrokerKind = Literal["auto", "kafka", "embedded"]


def choose_broker(kind: BrokerKind = "auto", *, port: int = 0, data: Path | None = None) -> Broker:
    """A broker, not started: Apache Kafka where KAFKA_HOME and Java are there, otherwise the embedded one.

    Raises:
        UserError: the kind asked for cannot run here.
    """
    if kind == "kafka" or (kind == "auto" and why_no_kafka() is None):
        return apache_kafka(port=port, data=data)
    return embedded(port=port, data=data)
