"""Prepares the process of a command before large libraries are imported; logs unexpected errors.

The settings of libraries are in other modules: those of Matplotlib in ``compat.matplotlib``, those of
TensorFlow and Keras in ``compat.tensorflow_env`` and ``compat.keras_settings``.
"""

from __future__ import annotations

import dataclasses
import errno
import importlib.metadata
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import seedtf
from seedtf.commands.arguments import find_config_class

__all__ = ["describe_os_error", "prepare_process", "restart_in_utf8", "write_fault_log"]

_PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib", "pillow", "absl-py")
_OUTPUT_FLAGS = ("out", "run_dir")
"""The names of flags for outputs. The output flag of a command is the first of these that it has."""
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def restart_in_utf8() -> None:
    """Restarts this process in Python's UTF-8 mode if the locale has another encoding.

    Otherwise file names with characters outside that encoding could not be passed to TensorFlow, which
    accepts only UTF-8. Console output keeps the encoding of the terminal.
    """
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8") or sys.flags.utf8_mode:
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]])


def prepare_process() -> None:
    """Makes sure that stdout and stderr can print any text, and that no warning becomes an error.

    A character that a stream cannot encode is printed as an escape such as ``\\xb2``. A stream that the
    caller has closed is replaced by the null device. Otherwise the next file that the process opens
    would get the file descriptor of the stream, and text for the stream would be written to the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.warnoptions:  # with `python -W error`, a library's warning would end a training
        warnings.filterwarnings("default", append=False)


def describe_os_error(error: OSError, command: str, arguments: Sequence[str]) -> str:
    """Describes an operating-system error in one line: flag or path, cause and, if known, a remedy.

    Args:
        error: an error about a file.
        command: the name of the command.
        arguments: the arguments of the command. If the value of a flag is the file or a folder that
            contains the file, the message names this flag.
    """
    cause = error.strerror or str(error)
    path = str(error.filename or "")
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if path and equals and name.startswith("--") and value and _is_or_contains(value, path):
            detail = "" if path == value else f" ({path})"
            return f"{name}={value}: {cause}{detail}; pass another path"
    # Nothing is written to URLs, so an error about a URL is not an error about an output.
    flag = "" if "://" in path else _output_flag(command, arguments)
    if flag and error.errno in _WRITE_ERRORS:
        return f"{path or 'the output'}: {cause}; free some space or pass another path as --{flag}"
    return f"{path or 'a file'}: {cause}"


def _output_flag(command: str, arguments: Sequence[str]) -> str:
    """The flag that names the output of a command; empty if the command has none."""
    name = f"{command}_{arguments[0]}" if command == "benchmark" and arguments else command
    module = sys.modules.get(f"seedtf.commands.{name}")
    if module is None:
        return ""
    config_class = find_config_class(module)
    refused = getattr(config_class, "REFUSED", {})
    names = {option.name for option in dataclasses.fields(config_class)} - refused.keys()
    return next((flag for flag in _OUTPUT_FLAGS if flag in names), "")


def write_fault_log(error: BaseException, command: str, arguments: Sequence[str]) -> str:
    """Writes traceback, command line and versions to a new file and returns its path.

    The file is in the temporary folder of ``tempfile``, or in the working folder if no temporary folder
    is writable. If neither is writable, the text is printed to stderr and the path is empty.
    """
    versions = {"seedtf": seedtf.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    lines = [f"seedtf {shlex.join([command, *arguments])}", f"system {platform.platform()}"]
    lines += [f"{name} {version}" for name, version in versions.items()]
    text = "\n".join([*lines, "", "".join(traceback.format_exception(error))])
    data = text.encode("utf-8", "backslashreplace")
    prefix = f"seedtf-fault-{time.strftime('%Y%m%d-%H%M%S')}-"
    try:
        descriptor, path = tempfile.mkstemp(".log", prefix)
        with open(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        sys.stderr.write(data.decode())
        return ""
    return path


def _is_or_contains(value: str, path: str) -> bool:
    """Whether a flag's value is ``path`` or a folder that contains it."""
    absolute_value, absolute_path = Path(value).absolute(), Path(path).absolute()
    return absolute_value == absolute_path or absolute_value in absolute_path.parents
