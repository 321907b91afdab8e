"""The exact-resume state: arrays and JSON in one checksummed file, written beside training.

A state holds no code and no pickle: a magic line, the SHA-256 of the rest, and an ``.npz`` archive.
Since every batch follows from (seed, step), nothing of the data pipeline is in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.errors import UserError
from seedtf.files import write_bytes

__all__ = [
    "StateWriter",
    "TrainState",
    "capture_state",
    "load_newest_state",
    "read_state",
    "restore_metrics",
    "restore_optimizer",
    "restore_weights",
]

FORMAT = 1
_MAGIC = b"seedtf-state\n"
_DIGEST_BYTES = 32
_GENERATIONS = 2


@dataclass(frozen=True)
class TrainState:
    """A run between two steps.

    Attributes:
        epoch: epochs completed.
        step: steps done of the epoch after these; 0 between epochs.
        facts: JSON values: the history so far and what the run must agree with to go on.
        arrays: the variables by group (weights, optimizer, metrics), host copies in a fixed order.
    """

    epoch: int
    step: int
    facts: dict[str, Any]
    arrays: dict[str, list[np.ndarray]]


class DamagedStateError(Exception):
    """The file is not a whole state; the message says why."""


def capture_state(
    model: keras.Model, *, epoch: int, step: int, facts: dict[str, Any]
) -> TrainState:
    """Copies every variable of a compiled model to host memory; training may go on at once."""
    arrays = {
        # all variables, not only weights: dropout's random state is one of them
        "weights": _copies(model.variables),
        "optimizer": _copies(model.optimizer.variables),
        "metrics": _copies(model.metrics_variables) if step else [],
    }
    return TrainState(epoch, step, facts, arrays)


def restore_weights(model: keras.Model, state: TrainState) -> None:
    """Puts back every variable of the model. Raises UserError when they do not fit."""
    _assign(model.variables, state.arrays["weights"])


def restore_optimizer(model: keras.Model, state: TrainState) -> None:
    """Puts back the optimizer's slots, its step count and the loss scale."""
    model.optimizer.build(model.trainable_variables)
    _assign(model.optimizer.variables, state.arrays["optimizer"])


def restore_metrics(model: keras.Model, state: TrainState) -> None:
    """Puts back the sums that an epoch under way has gathered."""
    _assign(model.metrics_variables, state.arrays["metrics"])


def serialize_state(state: TrainState) -> bytes:
    """The state as the bytes of its file."""
    members = {
        f"{group}/{number:06d}": array
        for group, arrays in state.arrays.items()
        for number, array in enumerate(arrays)
    }
    head = {"format": FORMAT, "epoch": state.epoch, "step": state.step, "facts": state.facts}
    members["head"] = np.frombuffer(json.dumps(head).encode(), np.uint8)
    archive = io.BytesIO()
    np.savez(archive, **members)  # type: ignore[arg-type]
    payload = archive.getvalue()
    return _MAGIC + hashlib.sha256(payload).digest() + payload


def read_state(path: Path) -> TrainState:
    """Reads a state file back.

    Raises:
        DamagedStateError: truncated, altered, empty, or no state at all.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise DamagedStateError("not a state of seedtf")
    payload = data[len(_MAGIC) + _DIGEST_BYTES :]
    if hashlib.sha256(payload).digest() != data[len(_MAGIC) : len(_MAGIC) + _DIGEST_BYTES]:
        raise DamagedStateError("its checksum does not agree: cut short or altered")
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as archive:
            head = json.loads(archive["head"].tobytes())
            arrays: dict[str, list[np.ndarray]] = {"weights": [], "optimizer": [], "metrics": []}
            for name in sorted(archive.files):
                if name != "head":
                    arrays[name.partition("/")[0]].append(archive[name])
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamagedStateError(f"cannot be read: {error}") from error
    if head["format"] != FORMAT:
        raise DamagedStateError(f"format {head['format']}, this version reads {FORMAT}")
    return TrainState(head["epoch"], head["step"], head["facts"], arrays)


def load_newest_state(folder: Path) -> tuple[TrainState | None, list[str]]:
    """The newest whole state below ``folder``, and a warning for each damaged one passed over."""
    warnings: list[str] = []
    for path in reversed(_states(folder)):
        try:
            return read_state(path), warnings
        except (DamagedStateError, OSError) as error:
            warnings.append(f"{path}: {error}; going back to the state before")
    return None, warnings


class StateWriter:
    """Writes states in a thread of its own and keeps the two newest.

    One write runs at a time: ``save`` waits for the one before, and raises what went wrong in it.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the folder."""
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._pending: Future[None] | None = None

    def save(self, state: TrainState) -> None:
        """Begins to write ``state``. Raises UserError when the write before has failed."""
        self.wait()
        self._pending = self._pool.submit(self._write, state)

    def wait(self) -> None:
        """Returns when everything is on disk. Raises UserError when it could not be written."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as error:
            cause = error.strerror or str(error)
            raise UserError(
                f"{self._folder}: the state could not be written ({cause}); the one before is "
                "kept: make room or repair the folder, then go on with --resume"
            ) from error

    def close(self) -> None:
        """Lets the thread end; waits for it, but raises nothing."""
        self._pool.shutdown()

    def _write(self, state: TrainState) -> None:
        name = f"{state.epoch:06d}-{state.step:08d}.state"
        write_bytes(self._folder / name, serialize_state(state))
        for old in _states(self._folder)[:-_GENERATIONS]:
            old.unlink(missing_ok=True)


def _states(folder: Path) -> list[Path]:
    """State files, oldest first; temporary files of a killed write start with a dot."""
    return sorted(path for path in folder.glob("*.state") if not path.name.startswith("."))


def _copies(variables: list[Any]) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[Any], arrays: list[np.ndarray]) -> None:
    wanted, found = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
    if wanted != found:
        raise UserError(
            f"--resume: the state has {len(found)} arrays that do not fit the {len(wanted)} of this "
            "network and optimizer; resume with the flags the run was started with"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
