"""The one error a user's mistake raises: its text is a readable line that says what to do."""


class UserError(Exception):
    """Something the user can put right; the command line prints it without a traceback."""


class NotNowError(UserError):
    """Something that passes, or can be put right elsewhere: whoever can wait may try again."""


class NoBrokerError(NotNowError):
    """No broker answers, or the one that does cannot say yet."""


def first_line(error: Exception) -> str:
    """What a library's error says, in one line; its type where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
