"""Errors that end a command with one line instead of a traceback, and their exit codes."""

__all__ = [
    "DivergedError",
    "OutputError",
    "StoppedError",
    "UserError",
    "WorkerLostError",
    "first_line",
    "missing_addons",
    "missing_hub",
    "missing_sklearn",
]


class UserError(Exception):
    """A mistake that the user can correct: shown as one line on stderr, without a traceback.

    The message names the file or flag, the value found and the remedy, in that order.
    """

    exit_code = 2


class DivergedError(UserError):
    """The loss is not finite; the message names the step, its files and the remedy."""

    exit_code = 4


class OutputError(UserError):
    """The output cannot be written: its disk is full, or the reader of the pipe has closed it.

    Attributes:
        closed: whether the reader of a pipe has closed it, as ``head`` does; this is not an error.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")
        self.closed = isinstance(error, BrokenPipeError)


class StoppedError(UserError):
    """A signal ended the run after its state was saved; 75 is EX_TEMPFAIL of sysexits.h: try again."""

    exit_code = 75


class WorkerLostError(UserError):
    """Another worker of the run has died; all workers can resume from the last state together."""

    exit_code = 75


def first_line(error: BaseException | str, limit: int = 160) -> str:
    """The first non-empty line of an error's message, at most ``limit`` characters.

    Args:
        error: an exception or its text. The errors of TensorFlow have several lines, of which only the
            first one describes the error. For an exception without a message it is the ``repr``.
        limit: largest number of characters returned.

    Example:
        >>> first_line(ValueError("bad header\\n  at node decode"))
        'bad header'
    """
    text = error if isinstance(error, str) else str(getattr(error, "message", "") or error)
    lines = text.strip().splitlines()
    return (lines[0].strip() if lines else "" if isinstance(error, str) else repr(error))[:limit]


def missing_addons(wanted: str) -> UserError:
    """The error for a flag, such as ``--optimizer=radam``, that needs TensorFlow Addons."""
    return UserError(
        f"{wanted}: needs TensorFlow Addons, which is not installed here; in an environment of "
        "Python 3.10 or 3.11: pip install 'seedtf[addons]'"
    )


def missing_hub(wanted: str) -> UserError:
    """The error for a network, such as ``--model=./folder``, that needs KerasHub."""
    return UserError(
        f"{wanted}: needs KerasHub, which is not installed here; with Python 3.11 or later: "
        "pip install 'seedtf[hub]'"
    )


def missing_sklearn(wanted: str) -> UserError:
    """The error for a flag or command, such as ``--head=fitted``, that needs scikit-learn."""
    return UserError(
        f"{wanted}: needs scikit-learn, which is not installed here; run: pip install 'seedtf[probe]'"
    )
