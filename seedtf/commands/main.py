"""``seedtf COMMAND --flags``: runs a command; an error is printed as one line."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

import seedtf
from seedtf.commands.arguments import HELP_FLAGS, suggest
from seedtf.commands.process import (
    describe_os_error,
    prepare_process,
    restart_in_utf8,
    write_fault_log,
)
from seedtf.errors import OutputError, UserError, WorkerLostError, first_line
from seedtf.report import one_line, report_error, report_text

__all__ = ["COMMANDS", "main", "run_command"]

# What each command does. The code of a command is in the module of its name, imported when it runs.
COMMANDS = {
    "train": "train a classifier on a folder of labelled images",
    "lr_find": "find a learning rate before training",
    "tune": "search for better training flags",
    "folds": "cross-validate: train k runs; each image is predicted by the run not trained on it",
    "ensemble": "make an ensemble that averages the predictions of several runs",
    "evaluate": "evaluate a run and write its report page",
    "compare": "compare two evaluated runs, image by image",
    "runs": "list runs: accuracy, time, and the flags that differ",
    "predict": "predict the classes of unlabelled images",
    "export": "export a run as a SavedModel for serving, LiteRT or ONNX",
    "embed": "write the features that a network computes from images",
    "demo": "show a page in the browser that classifies one image at a time",
    "probe": "compare pretrained networks on your images without training them",
    "publish": "write a folder with the export and a model card, or upload it",
    "benchmark": "measure speed and memory, with warm-up and medians",
    "models": "list the networks that --model takes",
    "pack": "pack images, tars or tables into a few large files to train on",
    "check": "find problems in a folder of images",
    "explore": "review suspected labels, near duplicates and poor images on one page",
    "data_service": "prepare batches on other machines for seedtf train --data_service",
    "preview": "draw what augmentation does to the images",
    "sample": "generate synthetic images of seedlings, in class folders",
    "completion": "print a script that completes commands and flags in bash, zsh or fish",
}

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
EXIT_FAULT = 70
"""EX_SOFTWARE of sysexits.h: a fault of seedtf itself."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line ``argv`` (default: that of the process) and returns the exit code."""
    if argv is None:
        restart_in_utf8()
    prepare_process()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        try:
            return _run(arguments)
        finally:
            # Flush here, also when --help raises SystemExit. If the reader has closed the pipe, the
            # interpreter's own flush at exit would print an error.
            sys.stdout.flush()
    except OutputError as error:
        return _handle_output_error(error)
    except OSError as error:
        return _handle_output_error(OutputError(error))


def _handle_output_error(error: OutputError) -> int:
    """Discards further output, and reports the error unless the reader has closed the pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    if error.pipe_is_closed:  # by its reader, for example `head`
        os.dup2(null, 2)
        return EXIT_BROKEN_PIPE
    with contextlib.suppress(UserError):
        report_error(f"seedtf: {error}")
    return error.exit_code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in (*HELP_FLAGS, "help"):
        report_text(_usage())
        return 0 if arguments else UserError.exit_code
    if arguments[0] in ("--version", "version"):
        report_text(f"seedtf {seedtf.__version__}")
        return 0
    return run_command(arguments[0], arguments[1:])


def run_command(command: str, arguments: list[str]) -> int:
    """Runs one command; an error becomes one line on stderr and an exit code, never a traceback.

    For an unexpected error, the line names a log file for a bug report, if one could be written. An
    error while writing to stdout or stderr is raised again, so that ``main`` handles it.
    """
    try:
        if command not in COMMANDS:
            hint = suggest(command, COMMANDS)
            raise UserError(f"{command!r} is not a seedtf command{hint}; see --help")
        module = importlib.import_module(f"seedtf.commands.{command}")
        return int(module.run(arguments) or 0)
    except OutputError:  # `main` handles it
        raise
    except UserError as error:
        report_error(f"seedtf {one_line(command)}: {one_line(str(error))}")
        if isinstance(error, WorkerLostError):
            # In a regular exit, TensorFlow would wait for the lost worker or print its own errors.
            sys.stdout.flush()
            os._exit(error.exit_code)
        return error.exit_code
    except BrokenPipeError:  # of stdout or stderr, as reading a file raises none; `main` handles it
        raise
    except OSError as error:
        text = describe_os_error(error, command, arguments)
        report_error(f"seedtf {command}: {one_line(text)}")
        return UserError.exit_code
    except KeyboardInterrupt:
        report_error(f"\nseedtf {command}: interrupted")
        return EXIT_INTERRUPTED
    except MemoryError as error:
        report_error(f"seedtf {command}: not enough memory ({first_line(error)})")
        return UserError.exit_code
    except Exception as error:
        log = write_fault_log(error, command, arguments)
        cause = f"{type(error).__name__}: {first_line(error)}"
        where = f"; traceback and versions for a bug report are in {log}" if log else ""
        report_error(f"seedtf {command}: a fault of seedtf itself ({cause}){where}")
        return EXIT_FAULT


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
