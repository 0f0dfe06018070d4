"""`mmrec worker`."""

import logging
import sys
from typing import Annotated

import typer

from mmrec_stream.kafka.clients import LOGGER

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


TROUBLE = (
    "Connect to ",
    "Disconnected",
    "brokers are down",
    "Connection refused",
    "REQTMOUT",
    "timed out",
    "failed delivery",
)
"""What the client's lines say of a broker that does not answer."""


def worker(
    web_port: Annotated[
        int | None, typer.Option(help="Port of /health, /ready and /metrics on loopback; 0 takes a free one.")
    ] = None,
    lists: Annotated[
        bool | None, typer.Option("--lists/--no-lists", help="Publish recommendation lists, or only keep profiles.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Faust's own log lines too.")] = False,
) -> None:
    """Run a worker: fold behaviour into profiles and publish fresh lists.

    Start as many as there are partitions, on as many machines as you like; they share the work. Stop one with Ctrl-C
    or SIGTERM: it hands its partitions over and loses nothing.

    Example: `MMREC_BOOTSTRAP=kafka:9092 mmrec worker`
    """
    from mmrec_stream.errors import UserError
    from mmrec_stream.processes import run_steadily
    from mmrec_stream.settings import load_settings
    from streams.app import create_app
    from streams.runner import Runner
    from streams.serving import check_scoring

    settings = load_settings(web_port=web_port, lists=lists)
    configure_logging(verbose)
    check_scoring(settings)
    app = create_app(settings)
    run_steadily()
    runner = Runner(app, loglevel=None, override_logging=False, redirect_stdouts=False, quiet=True)
    try:
        runner.execute_from_commandline()
    finally:
        if app.failure is not None:
            raise UserError(app.failure)


def configure_logging(verbose: bool) -> None:
    """Lines of our own at INFO; of the libraries what needs attention."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr, force=True)
    if not verbose:
        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(logging.WARNING)
        LOGGER.addFilter(_no_connection_trouble)


def _no_connection_trouble(record: logging.LogRecord) -> bool:
    """Each of a worker's clients tells several times a second of a broker that is away; the worker does, every 10 s."""
    text = record.getMessage()
    return not any(sign in text for sign in TROUBLE)
