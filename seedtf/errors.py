"""Errors that end a command with one line instead of a traceback, and the exit code of each."""

__all__ = [
    "DataConflictError",
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


class DataConflictError(UserError):
    """A table of labels contradicts the class folders, or a cell of its split column is unusable.

    seedtf ignores a table that it found by itself, without a flag, if the table has another fault. With
    one of these two faults, ignoring the table could train on wrong labels or on test images, so the
    command ends.
    """


class DivergedError(UserError):
    """The loss, or a value of a saved state, is NaN or infinite.

    The message names the step and the remedy. For the loss, it also names the files of the batch.
    """

    exit_code = 4


class OutputError(UserError):
    """stdout or stderr cannot be written: the disk is full, or the reader of a pipe has closed it.

    Attributes:
        pipe_is_closed: whether the reader of a pipe has closed the pipe, as ``head`` does. The command
            then ends without a message, because nobody reads its output any more.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the output cannot be written: {error.strerror or error}")
        self.pipe_is_closed = isinstance(error, BrokenPipeError)


class StoppedError(UserError):
    """A signal ended a run, a search or a cross-validation after its state was saved.

    The exit code 75, EX_TEMPFAIL of sysexits.h, tells a job scheduler to try again.
    """

    exit_code = 75


class WorkerLostError(UserError):
    """Another worker of a distributed run was lost.

    All workers can be started again. They continue from the last saved state, if there is one.
    """

    exit_code = 75


def first_line(error: BaseException | str, limit: int = 160) -> str:
    """The first non-empty line of an error's message, cut to ``limit`` characters.

    The messages of TensorFlow have several lines, of which usually only the first describes the error.
    For an exception without a message, its ``repr`` is returned.

    Args:
        error: an exception or its message.
        limit: the largest number of characters returned.

    Example:
        >>> first_line(ValueError("bad header\\n  at node decode"))
        'bad header'
    """
    if isinstance(error, str):
        message = error.strip()
    else:
        message = str(getattr(error, "message", "") or error).strip() or repr(error)
    lines = message.splitlines()
    return lines[0].strip()[:limit] if lines else ""


def missing_addons(needed_by: str) -> UserError:
    """The error for a flag that needs TensorFlow Addons, such as ``--optimizer=radam``."""
    return UserError(
        f"{needed_by}: needs TensorFlow Addons, which is not installed here; in an environment of "
        "Python 3.10 or 3.11: pip install 'seedtf[addons]'"
    )


def missing_hub(needed_by: str) -> UserError:
    """The error for a flag whose network needs KerasHub, such as ``--model=./folder``."""
    return UserError(
        f"{needed_by}: needs KerasHub, which is not installed here; with Python 3.11 or later: "
        "pip install 'seedtf[hub]'"
    )


def missing_sklearn(needed_by: str) -> UserError:
    """The error for a flag or command that needs scikit-learn, such as ``--head=fitted``."""
    return UserError(
        f"{needed_by}: needs scikit-learn, which is not installed here; run: "
        "pip install 'seedtf[probe]'"
    )
