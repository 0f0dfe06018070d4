"""A bare echo: what is consumed is produced back, naming its origin, with confluent-kafka at both ends."""

import typer
from confluent_kafka import Consumer, Producer

from benchmarks.peers import echo_of, milestone


def run(bootstrap: str, source: str, sink: str) -> None:
    """Echo SOURCE into SINK until ended."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "echo-confluent", "auto.offset.reset": "latest"})
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    consumer.subscribe([source], on_assign=lambda *_: milestone("ready"))
    while True:
        first = consumer.poll(0.2)
        producer.poll(0)
        if first is None:
            continue
        # poll waits for one record, consume takes what has come with it: together they wait for nothing.
        for record in (first, *consumer.consume(500, 0)):
            if record.error() is None:
                producer.produce(
                    sink, echo_of(record.key(), record.topic(), record.partition(), record.offset()), record.key()
                )
        producer.poll(0)


if __name__ == "__main__":
    typer.run(run)
