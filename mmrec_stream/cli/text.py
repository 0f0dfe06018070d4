"""Text that came from outside, made fit for a terminal."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\n")}


def printable(text: str) -> str:
    """The text with control characters written out: one in an id or a title must not steer the terminal."""
    return text.translate(_CONTROLS)
