"""Options that several commands share."""

from typing import Annotated

import typer

Bootstrap = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka. Default: MMREC_BOOTSTRAP.")]
"""Where the brokers are."""

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, for programs.")]
"""Machine-readable output."""
