"""The state that a run resumes from exactly: arrays and JSON in one checksummed file.

A state file is an ``.npz`` archive, followed by its SHA-256 and a magic line. The archive holds no
Python objects and no code. Every batch follows from seed and step, so the data pipeline has no state to
save.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.compat.keras import (
    all_variables,
    build_optimizer,
    metrics_variables,
    optimizer_variables,
)
from seedtf.errors import UserError
from seedtf.files import atomic_path
from seedtf.model.batch_norm import finalize_layers
from seedtf.training.trainer import Trainer

__all__ = [
    "StateFolder",
    "TrainState",
    "capture_state",
    "copy_values",
    "load_newest_state",
    "read_state",
    "restore_average",
    "restore_metrics",
    "restore_optimizer",
    "restore_weights",
    "write_state",
]

FORMAT = 1
_MAGIC = b"seedtf-state\n"
_DIGEST_BYTES = 32
_GENERATIONS = 2
_CHUNK_BYTES = 1 << 20
_GROUPS = ("weights", "optimizer", "metrics", "average")


@dataclass(frozen=True)
class TrainState:
    """The state of a run between two steps.

    Attributes:
        epoch: epochs completed.
        step: steps completed in the epoch after those; 0 between epochs.
        facts: JSON values: the history so far, and what a resumed run must agree with.
        arrays: host copies of the variables by group (weights, optimizer, metrics, average), in a
            fixed order.
    """

    epoch: int
    step: int
    facts: dict[str, Any]
    arrays: dict[str, list[np.ndarray]]


class DamagedStateError(Exception):
    """The file is not a complete state; the message says why."""


def capture_state(
    model: Trainer,
    *,
    epoch: int,
    step: int,
    facts: dict[str, Any],
    weights: list[np.ndarray] | None = None,
) -> TrainState:
    """Copies every variable of a compiled trainer to host memory; training may continue at once.

    ``weights`` are copies of all variables of its network, if the caller has made them already.
    """
    arrays = {
        # All variables, not only weights: the random state of dropout is one of them.
        "weights": copy_values(all_variables(model.network)) if weights is None else weights,
        "optimizer": copy_values(optimizer_variables(model.optimizer)),
        "metrics": copy_values(metrics_variables(model)) if step else [],
        "average": copy_values(model.average.variables) if model.average else [],
    }
    return TrainState(epoch, step, facts, arrays)


def copy_values(variables: list[Any]) -> list[np.ndarray]:
    """Host copies of variables, independent of later updates.

    From a GPU all float32 values come in one transfer, because each transfer waits for the device.
    """
    joined = [each for each in variables if _joins(each)]
    copies = dict(zip(map(id, joined), _copy_joined(joined), strict=True))
    return [
        copies[id(each)] if id(each) in copies else np.asarray(each.numpy()) for each in variables
    ]


def restore_weights(model: keras.Model, state: TrainState) -> None:
    """Restores every variable of the model. Raises UserError when they do not fit."""
    _assign(all_variables(model), state.arrays["weights"])
    finalize_layers(model)


def restore_average(model: Trainer, state: TrainState) -> None:
    """Restores the moving average of a trainer that has one."""
    if model.average is not None:
        _assign(model.average.variables, state.arrays["average"])


def restore_optimizer(model: Trainer, state: TrainState) -> None:
    """Restores the optimizer's slots, its step count and the loss scale."""
    build_optimizer(model.optimizer, model.trainable_variables)
    _assign(optimizer_variables(model.optimizer), state.arrays["optimizer"])


def restore_metrics(model: Trainer, state: TrainState) -> None:
    """Restores the metric sums of an unfinished epoch."""
    _assign(metrics_variables(model), state.arrays["metrics"])


def write_state(path: Path, state: TrainState) -> None:
    """Writes a state file atomically. Raises OSError as ``files.atomic_path`` does."""
    members = {
        f"{group}/{number:06d}": array
        for group, arrays in state.arrays.items()
        for number, array in enumerate(arrays)
    }
    head = {"format": FORMAT, "epoch": state.epoch, "step": state.step, "facts": state.facts}
    members["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        # Write straight to the file: a copy of the archive in memory would be as large as the model.
        np.savez(file, **members)  # type: ignore[arg-type]
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        file.write(digest.digest() + _MAGIC)


def read_state(path: Path) -> TrainState:
    """Reads a state file.

    Raises:
        DamagedStateError: truncated, altered, empty, or not a state file.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if not data.endswith(_MAGIC):
        raise DamagedStateError("truncated, or not a state of seedtf")
    end = len(data) - len(_MAGIC) - _DIGEST_BYTES
    payload = data[:end]
    if hashlib.sha256(payload).digest() != data[end : end + _DIGEST_BYTES]:
        raise DamagedStateError("altered: its checksum does not match")
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            head = json.loads(archive["head"].tobytes())
            arrays: dict[str, list[np.ndarray]] = {name: [] for name in _GROUPS}
            for name in sorted(archive.files):
                if name != "head":
                    arrays[name.partition("/")[0]].append(archive[name])
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedStateError(f"cannot be read: {error}") from error
    if head["format"] != FORMAT:
        raise DamagedStateError(f"format {head['format']}, this version reads {FORMAT}")
    return TrainState(head["epoch"], head["step"], head["facts"], arrays)


def load_newest_state(folder: Path) -> tuple[TrainState | None, list[str]]:
    """The newest complete state in ``folder``, and a warning for each damaged one that is skipped.

    Returns None only if no state was ever written.

    Raises:
        UserError: there are states, but none is complete and of this format, or one cannot be read.
    """
    warnings: list[str] = []
    causes: list[str] = []
    for path in reversed(_states(folder)):
        try:
            return read_state(path), warnings
        except DamagedStateError as error:
            warnings.append(f"{path}: {error}; using the state before it")
            causes.append(f"{path.name}: {error}")
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); try again") from error
    if warnings:
        raise UserError(
            f"{folder}: none of its states can be used ({causes[0]}); restore one, or start a new run"
        )
    return None, warnings


class StateFolder:
    """Writes states to a folder and keeps the two newest."""

    def __init__(self, folder: Path, resumed: TrainState | None = None) -> None:
        """Creates the folder; the ``resumed`` state counts as the newest one so far."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._kept = [folder / _file_name(resumed)] if resumed else []

    def write(self, state: TrainState) -> None:
        """Writes ``state``, then removes all but the two written last.

        Raises:
            UserError: it could not be written; the previous state is kept.
        """
        path = self._folder / _file_name(state)
        try:
            write_state(path, state)
        except OSError as error:
            cause = error.strerror or str(error)
            raise UserError(
                f"{self._folder}: the state could not be written ({cause}); the previous one is "
                "kept: free some space or repair the folder, then continue with --resume"
            ) from error
        # Keep the files written last, not those with the last names: a damaged state that a resume has
        # skipped may have a later name than the new states.
        self._kept = [*(p for p in self._kept if p != path), path][-_GENERATIONS:]
        for old in _states(self._folder):
            if old not in self._kept:
                with contextlib.suppress(OSError):  # the next write tries again
                    old.unlink()


def _file_name(state: TrainState) -> str:
    return f"{state.epoch:06d}-{state.step:08d}.state"


def _states(folder: Path) -> list[Path]:
    """State files, oldest first; leftovers of an interrupted write start with a dot."""
    return sorted(path for path in folder.glob("*.state") if not path.name.startswith("."))


def _joins(variable: Any) -> bool:
    value = getattr(variable, "value", variable)  # of a Keras variable; a method of TensorFlow's
    value = variable if callable(value) else value
    if isinstance(value, tf.distribute.DistributedValues) or value.dtype != tf.float32:
        return False
    return "GPU" in value.device


def _copy_joined(variables: list[Any]) -> list[np.ndarray]:
    if not variables:
        return []
    values = [tf.convert_to_tensor(each) for each in variables]
    flat = tf.concat([tf.reshape(each, [-1]) for each in values], 0).numpy()
    ends = np.cumsum([math.prod(each.shape) for each in values])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(each.shape) for part, each in zip(parts, values, strict=True)]


def _assign(variables: list[Any], arrays: list[np.ndarray]) -> None:
    wanted, found = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
    if wanted != found:
        raise UserError(
            f"--resume: the {len(found)} arrays of the state do not fit the {len(wanted)} variables of "
            "this network and optimizer; resume with the flags the run was started with"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
