"""The one error a user's mistake raises: its text is a readable line that says what to do."""


class UserError(Exception):
    """Something the user can put right; the command line prints it without a traceback."""
