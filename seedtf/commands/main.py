"""``seedtf VERB --flags``: finds the verb, turns mistakes into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys

import seedtf
from seedtf.commands.arguments import suggest
from seedtf.errors import UserError, WorkerLostError

__all__ = ["VERBS", "main", "run_verb"]

# verb: what it does; the code is in the module of the same name, imported when the verb runs
VERBS = {
    "train": "train a classifier on a folder of labelled images",
    "lr_find": "find a learning rate before training",
    "tune": "search for better training flags",
    "evaluate": "judge a run and write its report page",
    "compare": "compare two evaluated runs, file by file",
    "predict": "name the classes of unlabelled images",
    "export": "write a run as a SavedModel, ready to serve, LiteRT or ONNX",
    "benchmark": "measure, with warm-up and medians",
    "check": "find what is wrong with a folder of images",
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
            # --help exits from within; left to the interpreter's end, a reader that has left is a fault
            sys.stdout.flush()
    except BrokenPipeError:
        # the reader of a pipe left, as `head` does; nothing more can be shown
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "--helpfull", "help"):
        print(_usage())
        return 0 if arguments else UserError.exit_code
    if arguments[0] in ("--version", "version"):
        print(f"seedtf {seedtf.__version__}")
        return 0
    return run_verb(arguments[0], arguments[1:])


def run_verb(verb: str, arguments: list[str]) -> int:
    """Runs one verb; a ``UserError`` becomes one line on stderr and its exit code."""
    try:
        if verb not in VERBS:
            raise UserError(f"{verb!r} is not a seedtf command{suggest(verb, VERBS)}; see --help")
        module = importlib.import_module(f"seedtf.commands.{verb}")
        return int(module.run(arguments) or 0)
    except UserError as error:
        print(f"seedtf {verb}: {error}", file=sys.stderr, flush=True)
        if isinstance(error, WorkerLostError):
            # taken down in order, TensorFlow waits for the lost worker, or complains of it
            sys.stdout.flush()
            os._exit(error.exit_code)
        return error.exit_code
    except BrokenPipeError:  # an OSError, but no file's: see main
        raise
    except OSError as error:
        where = error.filename or "a file"
        print(f"seedtf {verb}: {where}: {error.strerror or error}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print(f"\nseedtf {verb}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _usage() -> str:
    lines = [f"seedtf {seedtf.__version__}: from labelled images to a served classifier", ""]
    lines += ["usage: seedtf VERB [--flag=value …]", ""]
    lines += [f"  {verb:12} {text}" for verb, text in VERBS.items()]
    lines += ["", "seedtf VERB --help lists a verb's flags.", "", "First steps:"]
    lines += ["  seedtf train --data_dir=sample --weights=none --image_size=48 --epochs=3"]
    lines += ["  seedtf train --data_dir=path/to/folder_of_class_folders"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
