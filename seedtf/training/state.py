"""The state from which a run resumes exactly: arrays and JSON in one file with a checksum.

A state file is an ``.npz`` archive, followed by the SHA-256 of the archive and a line that identifies
the format. The archive holds no Python objects and no code. The data pipeline has no state to save,
because every batch is computed from the seed and the step.
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
    "has_state",
    "load_newest_state",
    "read_state",
    "restore_average",
    "restore_metrics",
    "restore_optimizer",
    "restore_weights",
    "write_state",
]

_FORMAT = 1
_MAGIC = b"seedtf-state\n"
_DIGEST_BYTES = 32
_STATES_KEPT = 2
_CHUNK_BYTES = 1 << 20
_GROUPS = ("weights", "optimizer", "metrics", "average")


@dataclass(frozen=True)
class TrainState:
    """The state of a run between two steps.

    Attributes:
        epoch: number of completed epochs.
        step: number of completed steps in the epoch after these; 0 between two epochs.
        facts: JSON values by name. ``history`` is the text of history.csv, ``identity`` the result of
            ``run_identity``, and ``replicas`` the number of devices that shared a batch.
        arrays: copies of the variables in host memory, by group: ``weights``, ``optimizer``,
            ``metrics`` and ``average``.
    """

    epoch: int
    step: int
    facts: dict[str, Any]
    arrays: dict[str, list[np.ndarray]]


class DamagedStateError(Exception):
    """A file is not a complete state; the message says why."""


def capture_state(
    trainer: Trainer,
    *,
    epoch: int,
    step: int,
    facts: dict[str, Any],
    weights: list[np.ndarray] | None = None,
) -> TrainState:
    """Copies the variables of a compiled trainer to host memory; training may continue afterwards.

    If ``step`` is 0, the sums of the metrics are left out. A caller that has already copied all
    variables of the network passes the copies as ``weights``.
    """
    arrays = {
        # All variables of the network, because the random state of dropout is not among its weights.
        "weights": copy_values(all_variables(trainer.network)) if weights is None else weights,
        "optimizer": copy_values(optimizer_variables(trainer.optimizer)),
        "metrics": copy_values(metrics_variables(trainer)) if step else [],
        "average": copy_values(trainer.average.variables) if trainer.average else [],
    }
    return TrainState(epoch, step, facts, arrays)


def copy_values(variables: list[Any]) -> list[np.ndarray]:
    """Copies variables to host memory; later updates do not change the copies.

    All float32 variables on a GPU are copied in one transfer, because each transfer waits for the
    device. Variables that a strategy distributes are copied one by one.
    """
    on_gpu = [variable for variable in variables if _is_float32_on_gpu(variable)]
    copies = dict(zip(map(id, on_gpu), _copy_in_one_transfer(on_gpu), strict=True))
    return [
        copies[id(variable)] if id(variable) in copies else np.asarray(variable.numpy())
        for variable in variables
    ]


def restore_weights(network: keras.Model, state: TrainState) -> None:
    """Restores every variable of the network; raises UserError if the state is of another network."""
    _assign(all_variables(network), state.arrays["weights"])
    finalize_layers(network)


def restore_average(trainer: Trainer, state: TrainState) -> None:
    """Restores the moving average of the weights, if the trainer has one."""
    if trainer.average is not None:
        _assign(trainer.average.variables, state.arrays["average"])


def restore_optimizer(trainer: Trainer, state: TrainState) -> None:
    """Restores the optimizer's slots, its step count and the loss scale."""
    build_optimizer(trainer.optimizer, trainer.trainable_variables)
    _assign(optimizer_variables(trainer.optimizer), state.arrays["optimizer"])


def restore_metrics(trainer: Trainer, state: TrainState) -> None:
    """Restores the metric sums of an unfinished epoch."""
    _assign(metrics_variables(trainer), state.arrays["metrics"])


def write_state(path: Path, state: TrainState) -> None:
    """Writes a state file atomically. Raises OSError if that fails."""
    members = {
        f"{group}/{number:06d}": array
        for group, arrays in state.arrays.items()
        for number, array in enumerate(arrays)
    }
    head = {"format": _FORMAT, "epoch": state.epoch, "step": state.step, "facts": state.facts}
    members["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        # Write to the file directly, because an archive in memory would be as large as the model.
        np.savez(file, **members)  # type: ignore[arg-type]
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        file.write(digest.digest() + _MAGIC)


def read_state(path: Path) -> TrainState:
    """Reads a state file.

    Raises:
        DamagedStateError: the file is truncated, altered or empty, or is not a state of this format.
        OSError: the file cannot be read.
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
    if head["format"] != _FORMAT:
        raise DamagedStateError(f"format {head['format']}, this version reads {_FORMAT}")
    return TrainState(head["epoch"], head["step"], head["facts"], arrays)


def has_state(folder: Path) -> bool:
    """Whether the folder has a state file, even a damaged one."""
    return bool(_state_files(folder))


def load_newest_state(folder: Path) -> tuple[TrainState | None, list[str]]:
    """Reads the newest state in ``folder`` that is not damaged.

    Returns:
        The state, which is None if the folder has no states, and the list of warnings: one for each
        damaged state that was skipped.

    Raises:
        UserError: all states in the folder are damaged or of another format, or a file cannot be read.
    """
    warnings: list[str] = []
    causes: list[str] = []
    for path in reversed(_state_files(folder)):
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
        """Creates the folder if needed; ``resumed`` is the state in it from which the run resumes."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._kept = [folder / _file_name(resumed)] if resumed else []

    def write(self, state: TrainState) -> None:
        """Writes ``state``, then removes all states but the two that were written last.

        Raises:
            UserError: the state could not be written; the previous state is kept.
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
        # The names do not show which files were written last, because a damaged state that was skipped
        # may be of a later step than the new states.
        others = [kept for kept in self._kept if kept != path]
        self._kept = [*others, path][-_STATES_KEPT:]
        for old in _state_files(self._folder):
            if old not in self._kept:
                with contextlib.suppress(OSError):  # the next call tries again
                    old.unlink()


def _file_name(state: TrainState) -> str:
    return f"{state.epoch:06d}-{state.step:08d}.state"


def _state_files(folder: Path) -> list[Path]:
    """The state files in the order of their names, without leftovers of an interrupted write."""
    return sorted(path for path in folder.glob("*.state") if not path.name.startswith("."))


def _is_float32_on_gpu(variable: Any) -> bool:
    # In a Keras variable, `value` is the TensorFlow variable; in a TensorFlow variable, it is a method.
    value = getattr(variable, "value", variable)
    value = variable if callable(value) else value
    if isinstance(value, tf.distribute.DistributedValues) or value.dtype != tf.float32:
        return False
    return "GPU" in value.device


def _copy_in_one_transfer(variables: list[Any]) -> list[np.ndarray]:
    if not variables:
        return []
    values = [tf.convert_to_tensor(variable) for variable in variables]
    flat = tf.concat([tf.reshape(value, [-1]) for value in values], 0).numpy()
    ends = np.cumsum([math.prod(value.shape) for value in values])
    parts = np.split(flat, ends[:-1])
    return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]


def _assign(variables: list[Any], arrays: list[np.ndarray]) -> None:
    needed_shapes = [tuple(variable.shape) for variable in variables]
    if [array.shape for array in arrays] != needed_shapes:
        raise UserError(
            f"--resume: the {len(arrays)} arrays of the state do not fit the {len(variables)} "
            "variables of this network and optimizer; resume with the flags the run was started with"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
