"""`python -m benchmarks [CASE] [options]`: one case, or all of them in turn."""

import importlib
import sys
from collections.abc import Sequence

import typer

from benchmarks.results import console
from mmrec_stream.errors import UserError

CASES = (
    *("stream", "scaling", "latency", "scoring", "restore", "catchup", "rebalance", "outage", "storm", "memory"),
    *("profile", "quality", "associations", "storefront", "truth", "presets", "catalogue", "rules", "swap"),
)
"""Each is a module `benchmarks.<case>` with a typer function `command`."""

APART = ("lighthouse", "document")
"""Run only when they are named: one fetches Lighthouse, the other is no benchmark and renews docs/performance.md."""


def main(arguments: Sequence[str]) -> int:
    """Run the case that the first argument names, with the rest as its options; all cases where none is named."""
    if arguments and arguments[0] in ("-h", "--help"):
        names = " | ".join((*CASES, *APART))
        console.print(f"python -m benchmarks [{names}] [--quick] [options]", markup=False)
        return 0
    named = bool(arguments) and not arguments[0].startswith("-")
    if named and arguments[0] not in (*CASES, *APART):
        console.print(f"no benchmark is called {arguments[0]!r}; there are {', '.join((*CASES, *APART))}", style="red")
        return 2
    cases, options = (arguments[:1], arguments[1:]) if named else (CASES, arguments)
    failed = 0
    for case in cases:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        app.command(case)(importlib.import_module(f"benchmarks.{case}").command)
        try:
            app(list(options))
        except SystemExit as end:
            failed = failed or int(end.code or 0)
        except UserError as error:
            console.print(f"{case}: {error}", style="red", highlight=False)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
