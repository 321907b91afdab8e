"""``seedtf COMMAND --flags``: runs a command; prints an error as one line and sets the exit code."""

from __future__ import annotations

import importlib
import os
import sys

import seedtf
from seedtf.commands.arguments import HELP_FLAGS, suggest
from seedtf.errors import UserError, WorkerLostError
from seedtf.report import report_error, report_text

__all__ = ["COMMANDS", "main", "run_command"]

# what each command does; its code is in the module of the same name, imported when the command runs
COMMANDS = {
    "train": "train a classifier on a folder of labelled images",
    "lr_find": "find a learning rate before training",
    "tune": "search for better training flags",
    "evaluate": "evaluate a run and write its report page",
    "compare": "compare two evaluated runs, image by image",
    "predict": "predict the classes of unlabelled images",
    "export": "export a run as a SavedModel for serving, LiteRT or ONNX",
    "benchmark": "measure speed and memory, with warm-up and medians",
    "check": "find problems in a folder of images",
    "data_service": "prepare batches on other machines for seedtf train --data_service",
    "preview": "draw what augmentation does to the images",
    "sample": "write the embedded sample images as class folders",
}

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Runs the command line ``argv`` (default: the process's own) and returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            return _run(arguments)
        finally:
            # Flush here, also when --help raises SystemExit: if the reader has closed the pipe, a flush
            # by the interpreter at exit would print an error.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Discard what the interpreter flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in (*HELP_FLAGS, "help"):
        report_text(_usage())
        return 0 if arguments else UserError.exit_code
    if arguments[0] in ("--version", "version"):
        report_text(f"seedtf {seedtf.__version__}")
        return 0
    return run_command(arguments[0], arguments[1:])


def run_command(command: str, arguments: list[str]) -> int:
    """Runs one command; a ``UserError`` becomes one line on stderr and its exit code."""
    try:
        if command not in COMMANDS:
            hint = suggest(command, COMMANDS)
            raise UserError(f"{command!r} is not a seedtf command{hint}; see --help")
        module = importlib.import_module(f"seedtf.commands.{command}")
        return int(module.run(arguments) or 0)
    except UserError as error:
        report_error(f"seedtf {command}: {error}")
        if isinstance(error, WorkerLostError):
            # In a regular exit, TensorFlow would wait for the lost worker or print its own errors.
            sys.stdout.flush()
            os._exit(error.exit_code)
        return error.exit_code
    except BrokenPipeError:  # an OSError of stdout, not of a file; `main` handles it
        raise
    except OSError as error:
        where = error.filename or "a file"
        report_error(f"seedtf {command}: {where}: {error.strerror or error}")
        return UserError.exit_code
    except KeyboardInterrupt:
        report_error(f"\nseedtf {command}: interrupted")
        return EXIT_INTERRUPTED


def _usage() -> str:
    lines = [f"seedtf {seedtf.__version__}: from labelled images to a served classifier", ""]
    lines += ["usage: seedtf COMMAND [--flag=value …]", ""]
    lines += [f"  {command:12} {text}" for command, text in COMMANDS.items()]
    lines += ["", "seedtf COMMAND --help lists a command's flags.", "", "First steps:"]
    lines += ["  seedtf train --data_dir=sample --weights=none --image_size=48 --epochs=3"]
    lines += ["  seedtf train --data_dir=path/to/folder_of_class_folders"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
