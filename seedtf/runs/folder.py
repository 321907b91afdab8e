"""A run's folder: a name that is free, and the records written before training starts."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

import seedtf
from seedtf.compat.tensorflow import has_addons
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset, write_data_report
from seedtf.data.split import write_split_csv
from seedtf.errors import UserError
from seedtf.files import write_text

__all__ = ["check_run_dir", "create_run_dir", "describe_devices", "write_records"]

_PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib", "pillow", "absl-py")


def check_run_dir(config: TrainConfig) -> None:
    """Raises UserError when ``run_dir`` holds anything already; before the data is decoded."""
    folder = Path(config.run_dir)
    if not config.run_dir or not folder.exists():
        return
    if not folder.is_dir() or any(map(_is_content, folder.rglob("*"))):
        raise UserError(f"--run_dir={folder}: is there already; pass a new folder or remove it")


def create_run_dir(config: TrainConfig) -> Path:
    """Creates ``run_dir``, or ``runs/<date>-<time>-<model>`` with the first free number behind it.

    Raises:
        UserError: the folder is in use or cannot be created.
    """
    check_run_dir(config)
    if config.run_dir:
        return _make(Path(config.run_dir), exist_ok=True)
    base = Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{config.model.lower()}"
    number = 1
    while True:
        try:
            return _make(base if number == 1 else Path(f"{base}-{number}"), exist_ok=False)
        except FileExistsError:
            number += 1


def write_records(
    run_dir: Path, config: TrainConfig, dataset: Dataset, resolved: dict[str, Any]
) -> None:
    """Writes config.json, flags.txt, env.json, classes.txt, split.csv and data_report.csv.

    Args:
        run_dir: an existing folder.
        config: what the user asked for.
        intake: the data of the run.
        resolved: what ``auto`` and missing values became, for config.json.
    """
    catalog = dataset.store.catalog
    settings = {**config.as_dict(), "resolved": resolved}
    # first, because it is what --resume goes by
    write_text(run_dir / "config.json", json.dumps(settings, indent=2) + "\n")
    write_text(run_dir / "flags.txt", config.flagfile())
    write_text(run_dir / "env.json", json.dumps(_environment(), indent=2) + "\n")
    write_text(run_dir / "classes.txt", "".join(f"{name}\n" for name in catalog.class_names))
    write_split_csv(run_dir / "split.csv", catalog, dataset.split)
    write_data_report(run_dir / "data_report.csv", catalog, dataset.unopened)


def describe_devices() -> str:
    """``NVIDIA H200`` (``2 × …`` for two), or the CPU with its cores."""
    names = []
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        names.append(details.get("device_name", gpu.name))
    if not names:
        return f"CPU, {os.cpu_count()} cores"
    return ", ".join(
        f"{names.count(n)} × {n}" if names.count(n) > 1 else n for n in dict.fromkeys(names)
    )


def _is_content(path: Path) -> bool:
    """Whether a file is worth keeping: neither hidden nor the lock of a run that never began."""
    return path.is_file() and not path.name.startswith(".") and path.name != "lock"


def _make(folder: Path, *, exist_ok: bool) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
        (folder / "checkpoints").mkdir(exist_ok=exist_ok)
        (folder / "state").mkdir(exist_ok=exist_ok)
    except FileExistsError:
        raise
    except OSError as error:
        raise UserError(f"--run_dir={folder}: {error.strerror}; pass another folder") from error
    return folder


def _environment() -> dict[str, Any]:
    packages = (*_PACKAGES, *(("tensorflow-addons",) if has_addons() else ()))
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "seedtf": seedtf.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": describe_devices(),
        **versions,
    }
