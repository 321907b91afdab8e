"""What ends a command with one line instead of a traceback, and with which exit code."""

__all__ = ["DivergedError", "StoppedError", "UserError", "WorkerLostError"]


class UserError(Exception):
    """A mistake that the user can mend: shown as one line on stderr, no traceback.

    The message names the file or flag, the value found and the remedy, in that order.
    """

    exit_code = 2


class DivergedError(UserError):
    """The loss is no longer a number; the message names step, files and remedy."""

    exit_code = 4


class StoppedError(UserError):
    """A signal ended the run after its state was saved; EX_TEMPFAIL of sysexits.h: try again."""

    exit_code = 75


class WorkerLostError(UserError):
    """Another worker of the run is gone; all of them can go on from the last state together."""

    exit_code = 75
