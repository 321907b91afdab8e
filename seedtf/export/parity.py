"""Runs an exported model in a child process, and compares its predictions with the evaluation.

The child process is ``parity_worker.py``, a script that can import neither seedtf nor Keras.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seedtf.data.paths import read_file
from seedtf.errors import UserError
from seedtf.export import parity_worker
from seedtf.images.header import RefusedError, read_header
from seedtf.images.transcode import to_decodable
from seedtf.report import format_count

__all__ = ["Parity", "compare_files", "compare_pixels", "compare_probabilities"]

# A file is kept if it has at least this top-1 agreement and at most this difference of a probability.
_FLOAT_TOLERANCE = (1.0, 1e-4)
_TOLERANCES = {"litert_int8": (0.9, 1.0)}  # formats with another tolerance
_MAX_COPIES = 32
"""Largest number of compared files that only Pillow can decode; they are compared as BMP copies."""
INT8_WARNING = 0.98
"""Top-1 agreement, in 0–1, below which an int8 file is kept with a warning."""


@dataclass(frozen=True)
class Parity:
    """The comparison of an exported file with the evaluation; one row of parity.json.

    Attributes:
        format: ``saved_model``, ``litert``, ``litert_int8`` or ``onnx``.
        runtime: the library that ran the file, and its version.
        images: number of images compared.
        top1_agreement: fraction of images, 0 to 1, for which the exported file and the evaluation
            predict the same class.
        max_abs_difference: largest absolute difference of a probability. None if a probability is not
            finite, if the shapes differ, or if a class name and its score do not match.
        refused: paths of images that the export did not classify, each with its status.
        seconds: time that the worker process took to load the model and to predict.
    """

    format: str
    runtime: str
    images: int
    top1_agreement: float
    max_abs_difference: float | None
    refused: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, name: str, result: dict[str, Any]) -> Parity:
        """Creates the row of the format ``name`` from the result of ``parity_worker.evaluate``."""
        return cls(name, **{**result, "refused": tuple(result["refused"])})

    @property
    def fault(self) -> str:
        """Why the exported file must not be kept; empty if it may be kept."""
        min_agreement, max_difference = _TOLERANCES.get(self.format, _FLOAT_TOLERANCE)
        if self.refused:
            return f"{format_count(len(self.refused), 'image')} refused, first {self.refused[0]}"
        if self.max_abs_difference is None:
            return "its probabilities are not finite, or its classes differ in order or number"
        if self.top1_agreement < min_agreement or self.max_abs_difference > max_difference:
            return f"{self.summary}; required: {min_agreement:.0%} and {max_difference:g}"
        return ""

    @property
    def summary(self) -> str:
        """``top1_agreement`` and ``max_abs_difference`` as text.

        Example:
            >>> Parity("onnx", "onnxruntime 1.27.0", 200, 0.995, 0.02, (), 1.3).summary
            '99.50% top-1 agreement on 200 images, largest probability difference 2.0e-02'
        """
        difference = "none" if self.max_abs_difference is None else f"{self.max_abs_difference:.1e}"
        return (
            f"{self.top1_agreement:.2%} top-1 agreement on {self.images} images, "
            f"largest probability difference {difference}"
        )

    @property
    def needs_warning(self) -> bool:
        """Whether to warn that an int8 file often predicts another class than the evaluation."""
        return self.format == "litert_int8" and self.top1_agreement < INT8_WARNING

    def as_row(self) -> dict[str, Any]:
        """The row of parity.json, as JSON values."""
        return {
            **asdict(self),
            "kept": not self.fault,
            "fault": self.fault,
            "warning": self.needs_warning,
        }


def compare_files(
    saved_model: Path,
    files: Sequence[str],
    expected: np.ndarray,
    class_names: Sequence[str],
    max_pixels: int,
) -> Parity:
    """Compares a SavedModel's predictions for whole image files with the expected probabilities.

    Args:
        saved_model: folder of the SavedModel.
        files: N paths of images, whose bytes the worker passes to the SavedModel. Files that only
            Pillow can decode, such as TIFF, are passed as BMP, as ``seedtf predict`` does. Only the
            first 32 of such files are compared.
        expected: the probabilities of the evaluation, float32 ``[N, K]``.
        class_names: K names in the order of the columns of ``expected``.
        max_pixels: the largest width × height that the SavedModel decodes.

    Raises:
        UserError: the SavedModel does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        sent = _choose_files(files, Path(folder), max_pixels)
        request = {
            "files": np.array(list(sent.values())),
            "class_names": np.array(class_names),
            "probabilities": expected[list(sent)],
        }
        return _run_worker("saved_model", "tensorflow", saved_model, request)


def _choose_files(files: Sequence[str], folder: Path, max_pixels: int) -> dict[int, str]:
    """Returns the paths of the files to compare, by their index in ``files``.

    A file that only Pillow can decode is replaced by a BMP copy in ``folder``.
    """
    sent, num_copies = {}, 0
    for index, path in enumerate(files):
        sent[index] = path
        try:
            data = read_file(path, max_pixels)
            header = read_header(data, max_pixels)
            if not header.needs_pillow:
                continue
            del sent[index]
            if num_copies < _MAX_COPIES:
                copy = folder / f"{index}.bmp"
                copy.write_bytes(to_decodable(data, header, max_pixels)[0])
                sent[index], num_copies = str(copy), num_copies + 1
        except (RefusedError, OSError):
            continue  # the worker reports the status that the SavedModel gives this file
    return sent


def compare_pixels(
    name: str, runtime: str, path: Path, pixels: np.ndarray, expected: np.ndarray
) -> Parity:
    """Compares the predictions of a LiteRT or ONNX file with the expected probabilities.

    Args:
        name: the format of the file, for the row and for error messages.
        runtime: ``litert`` or ``onnx``.
        path: the LiteRT or ONNX file.
        pixels: the images, uint8 ``[N, S, S, 3]``.
        expected: the probabilities of the evaluation, float32 ``[N, K]``.

    Raises:
        UserError: the file does not run.
    """
    return _run_worker(name, runtime, path, {"pixels": pixels, "probabilities": expected})


def compare_probabilities(actual: np.ndarray, expected: np.ndarray) -> dict[str, float | None]:
    """Compares two arrays of probabilities, float32 ``[N, K]``, with the measures of ``Parity``.

    Example:
        >>> expected = np.array([[0.7, 0.3], [0.4, 0.6]], np.float32)
        >>> compare_probabilities(expected[::-1], expected)["top1_agreement"]
        0.0
        >>> compare_probabilities(expected, expected)
        {'top1_agreement': 1.0, 'max_abs_difference': 0.0}
    """
    agreement, difference = parity_worker.compare(actual, expected)
    return {"top1_agreement": agreement, "max_abs_difference": difference}


def _run_worker(name: str, runtime: str, model: Path, request: dict[str, np.ndarray]) -> Parity:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.npz"
        np.savez(path, **request)  # type: ignore[arg-type]
        # -I isolates the child from user packages, PYTHON* variables and the working directory. The
        # child runs on the CPU, because this process has reserved the memory of the GPU.
        completed = subprocess.run(
            [sys.executable, "-I", parity_worker.__file__, runtime, str(model), str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
    lines = completed.stdout.strip().splitlines()
    if completed.returncode or not lines:
        error_lines = completed.stderr.strip().splitlines()
        cause = (error_lines or [f"exit code {completed.returncode}"])[-1][:200]
        raise UserError(
            f"--format={name}: the exported model does not run ({cause}); please report this"
        )
    return Parity.of(name, json.loads(lines[-1]))
