"""The one exception that means "the user can mend this"."""

__all__ = ["UserError"]


class UserError(Exception):
    """A mistake that the user can mend: shown as one line on stderr, exit code 2, no traceback.

    The message names the file or flag, the value found and the remedy, in that order.
    """
