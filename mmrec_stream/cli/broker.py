"""`mmrec broker`: a broker to play with, until Ctrl-C."""

import signal
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from mmrec_stream.errors import UserError


class Kind(StrEnum):
    """Which broker to start."""

    AUTO = "auto"
    KAFKA = "kafka"
    EMBEDDED = "embedded"


def broker(
    kind: Annotated[
        Kind, typer.Option(help="kafka: from KAFKA_HOME, with Java 17. embedded: in memory. auto: kafka if it can be.")
    ] = Kind.AUTO,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes a free one.")] = 9092,
    data: Annotated[
        Path | None, typer.Option(help="Folder for data and log, kept. Without: a temporary one.", file_okay=False)
    ] = None,
) -> None:
    """Start a broker on this machine, print its address, and stop it at Ctrl-C.

    It listens on 127.0.0.1 alone, without passwords: it is there to play with and to develop on. Production has a
    Kafka cluster of its own. With the embedded broker everything is gone when it stops; Kafka keeps what it has in
    `--data`.

    Example: `mmrec broker --port 9092`, and in another terminal `mmrec topics`.
    """
    from mmrec_stream.brokers import choose_broker

    signal.signal(signal.SIGTERM, _interrupt)
    with choose_broker(kind.value, port=port, data=data) as running:
        typer.echo(running.bootstrap)
        place = f"data in {running.data}" if data and running.keeps_data else "nothing is kept"
        typer.echo(f"{running.name}, {place}; Ctrl-C stops it", err=True)
        try:
            status = running.wait()
        except KeyboardInterrupt:
            return
        raise UserError(f"{running.name} ended by itself with status {status}. Its log:\n{running.log_tail()}")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
