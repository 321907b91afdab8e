"""Creates, locks and finds run folders; reads their settings, class names and temperature.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import LOCK, is_locked, lock_folder, numbered_names
from seedtf.model.families import short_name
from seedtf.runs.paths import RUNS, ReportPaths, RunPaths

__all__ = [
    "check_run_dir",
    "create_named_folder",
    "create_run_dir",
    "find_run",
    "format_class_names",
    "is_run_locked",
    "lock_run",
    "newest_run",
    "read_class_names",
    "read_settings",
    "read_temperature",
    "resolve_weights",
]


def check_run_dir(config: TrainConfig) -> None:
    """Raises UserError if ``run_dir`` is a file or already contains files.

    Hidden files, the lock file and empty folders do not count. Training calls this function before it
    decodes the data, which may take long.
    """
    folder = Path(config.run_dir)
    if not config.run_dir or not folder.exists():
        return
    if not folder.is_dir() or any(map(_is_content, folder.rglob("*"))):
        raise UserError(f"--run_dir={folder}: already exists; pass a new folder or remove it")


def create_run_dir(config: TrainConfig) -> Path:
    """Creates the folder of a run and returns it.

    It is ``run_dir`` if this flag is set, otherwise a new folder ``runs/<date>-<time>-<model>``.

    Raises:
        UserError: the folder already contains files or cannot be created.
    """
    check_run_dir(config)
    try:
        if config.run_dir:
            folder = Path(config.run_dir)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = create_named_folder(short_name(config.model).lower())
        paths = RunPaths(folder)
        paths.checkpoints.mkdir(exist_ok=True)
        paths.state.mkdir(exist_ok=True)
    except OSError as error:
        place = config.run_dir or RUNS
        raise UserError(f"--run_dir={place}: {error.strerror}; pass another folder") from error
    return folder


def create_named_folder(name: str) -> Path:
    """Creates the folder ``runs/<date>-<time>-<name>`` and returns it.

    If this folder exists, the first free number is appended to its name: ``…-2``, ``…-3``.

    Raises:
        OSError: the folder cannot be created.
    """
    for folder in numbered_names(RUNS / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            # If ``runs`` is a broken symbolic link, every name fails in this way: end the loop.
            if not folder.parent.is_dir():
                raise
        else:
            return folder
    raise AssertionError("unreachable")


@contextmanager
def lock_run(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Locks a run within the ``with`` block, so that one process at a time trains in its folder.

    The kernel releases the lock even if the process is killed.

    Raises:
        UserError: another process holds the lock.
    """
    paths = RunPaths.of(run_dir)
    try:
        with lock_folder(paths.state):
            yield
    except BlockingIOError:
        message = f"{paths.root}: another process is training there; wait until it has finished"
        raise UserError(message) from None


def is_run_locked(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a process is training in the run folder."""
    return is_locked(RunPaths.of(run_dir).state)


def newest_run() -> Path:
    """The run below ``runs/`` that was started last.

    Raises:
        UserError: there is no run.
    """
    runs = [RunPaths(folder) for folder in RUNS.glob("*") if RunPaths(folder).config.is_file()]
    if not runs:
        raise UserError(f"--resume: there is no run below {RUNS}/; pass --resume=<run folder>")
    return max(runs, key=lambda run: (run.config.stat().st_mtime_ns, run.root.name)).root


def find_run(path: str | os.PathLike[str]) -> tuple[Path, Path | None]:
    """The run folder that ``path`` names, and the checkpoint to use instead of the best model.

    Args:
        path: a run folder, its folder of checkpoints, or a ``.keras`` file anywhere inside a run.

    Returns:
        The run folder, which need not exist, and the checkpoint, which is None for the best model.

    Raises:
        UserError: ``path`` is the name of a ``.keras`` file that does not exist or is not in a run.
    """
    given = Path(path)
    if given.suffix == ".keras" and not given.is_dir():
        if not given.is_file():
            raise UserError(f"{given}: no such file; pass a run folder or a checkpoint in one")
        for folder in (*given.parents, *given.resolve().parents):
            paths = RunPaths(folder)
            if paths.config.is_file() and paths.classes.is_file():
                is_best = given.resolve() == paths.best.resolve()
                return folder, None if is_best else given
        raise UserError(
            f"{given}: lies in no run folder, so its classes are not known; pass a .keras file in "
            "the folder that seedtf train printed"
        )
    run = RunPaths(given.parent)
    is_checkpoint_folder = given.resolve() == run.checkpoints.resolve() and run.config.is_file()
    return (run.root if is_checkpoint_folder else given), None


def resolve_weights(weights: str, *, flag: str = "--weights") -> str:
    """The value of ``--weights``; if it is a run folder, the absolute path of the run's best model.

    Raises:
        UserError: the folder is not a run, its config.json is damaged, or it has no best model.
    """
    folder = Path(weights)
    if weights in ("none", "imagenet") or not folder.is_dir():
        return weights
    read_settings(folder, flag=flag)
    best = RunPaths(folder).best
    if not best.is_file():
        raise UserError(
            f"{flag}={folder}: the run has no {best.relative_to(folder)} yet; pass another run, "
            "or a .keras file"
        )
    return os.path.abspath(best)


def read_settings(run_dir: str | os.PathLike[str], *, flag: str = "") -> dict[str, Any]:
    """The content of config.json: all flags and, in ``resolved``, the values chosen for the run.

    Args:
        run_dir: a run folder.
        flag: the flag that named the folder, for the error message, such as ``--resume``.

    Raises:
        UserError: the folder does not exist or is not a run, or config.json is damaged.
    """
    paths = RunPaths.of(run_dir)
    name = f"{flag}={paths.root}" if flag else f"{paths.root}"
    if not paths.root.is_dir():
        raise UserError(f"{name}: no such run; pass the folder that seedtf train printed")
    try:
        settings = json.loads(paths.config.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{name}: not a run of seedtf train (no {paths.config.name})") from None
    except ValueError as error:
        raise UserError(f"{name}: {paths.config.name} is damaged ({error}); restore it") from None
    if not isinstance(settings, dict):
        raise UserError(f"{name}: {paths.config.name} is damaged (no JSON object); restore it")
    return settings


def read_class_names(run_dir: str | os.PathLike[str]) -> tuple[str, ...]:
    """The class names of a run, in the order of the model's outputs.

    Raises:
        UserError: classes.txt is missing or not UTF-8.
    """
    paths = RunPaths.of(run_dir)
    try:
        text = paths.classes.read_bytes().decode("utf-8")
    except OSError:
        message = f"{paths.root}: not a run of seedtf train (no {paths.classes.name})"
        raise UserError(message) from None
    except UnicodeDecodeError as error:
        message = f"{paths.root}: {paths.classes.name} is damaged ({error}); restore it"
        raise UserError(message) from None
    return tuple(
        _parse_class_name(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n")
    )


def format_class_names(names: Sequence[str]) -> str:
    """The content of classes.txt: one name per line, in the order of the model's outputs.

    A name is written as a JSON string if it contains a line end, or if it looks like such a JSON string
    itself. Other names are written unchanged.

    Example:
        >>> format_class_names(["maize", "two\\nlines"])
        'maize\\n"two\\\\nlines"\\n'
    """
    return "".join(f"{_format_class_name(name)}\n" for name in names)


def _format_class_name(name: str) -> str:
    return json.dumps(name, ensure_ascii=False) if _needs_quotes(name) else name


def _needs_quotes(name: str) -> bool:
    """Whether a line with the unquoted name would be read as another name, or as several names."""
    return "\n" in name or "\r" in name or _parse_class_name(name) != name


def _parse_class_name(line: str) -> str:
    """The name in a line of classes.txt; the line is a JSON string if the name needs quotes."""
    if not (line.startswith('"') and line.endswith('"')):
        return line
    try:
        name = json.loads(line)
    except ValueError:
        return line
    # Only names that need quotes are written as JSON strings; any other line is the name itself.
    return name if _needs_quotes(name) else line


def read_temperature(paths: ReportPaths) -> float | None:
    """The temperature in a report of ``seedtf evaluate``; None without a report or a temperature.

    Raises:
        UserError: report.json is damaged, or its temperature is not a positive finite number.
    """
    path = paths.report_json
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get("temperature")
        temperature = None if value is None else float(value)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); run seedtf evaluate again") from None
    if temperature is not None and not 0.0 < temperature < math.inf:
        raise UserError(
            f"{path}: temperature {temperature} is not a positive number; run seedtf evaluate again"
        )
    return temperature


def _is_content(path: Path) -> bool:
    """Whether ``path`` is a file, and neither a hidden file nor the lock file of an earlier run."""
    return path.is_file() and not path.name.startswith(".") and path.name != LOCK
