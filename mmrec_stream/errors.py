"""The one error a user's mistake raises: its text is a readable line that says what to do."""


class UserError(Exception):
    """Something the user can put right; the command line prints it without a traceback."""


class NoBrokerError(UserError):
    """No broker answers, or the one that does cannot say yet: whoever can wait may try again."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
