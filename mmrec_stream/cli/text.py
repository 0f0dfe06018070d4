"""What commands print: a console that keeps names whole, and text from outside made fit for a terminal."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\n")}


def console() -> "Console":
    """The console on standard output. Piped output has no width of its own, and its readers want names whole."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)


def printable(text: str) -> str:
    """The text with control characters written out: one in an id or a title must not steer the terminal."""
    return text.translate(_CONTROLS)
