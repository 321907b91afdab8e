"""Runs an exported model in a process of its own and judges its answers."""

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

from seedtf.errors import UserError

__all__ = ["Parity", "check_files", "check_pixels", "compare_answers"]

_SCRIPT = Path(__file__).with_name("parity.py")
_LIMITS = {"litert_int8": (0.9, 1.0)}
_STRICT = (1.0, 1e-4)
INT8_WARNING = 0.98
"""Share of equal best classes below which an int8 file is kept with a warning."""


@dataclass(frozen=True)
class Parity:
    """How an exported file agrees with the evaluation; one row of parity.json.

    Attributes:
        format: ``saved_model``, ``litert``, ``litert_int8`` or ``onnx``.
        runtime: the library that ran it, and its version.
        images: images compared.
        top1_agreement: share of images with the same best class.
        max_abs_difference: largest difference of a probability; None where not finite.
        refused: files that the export did not answer, with its status.
        seconds: time that the other process took to load the model and answer.
    """

    format: str
    runtime: str
    images: int
    top1_agreement: float
    max_abs_difference: float | None
    refused: tuple[str, ...]
    seconds: float

    @property
    def fault(self) -> str:
        """Why the file must not be kept, or nothing."""
        least, most = _LIMITS.get(self.format, _STRICT)
        if self.refused:
            return f"{len(self.refused)} images refused, first {self.refused[0]}"
        if self.max_abs_difference is None:
            return "its answers are not numbers, or its class names are in the wrong order"
        if self.top1_agreement < least or self.max_abs_difference > most:
            return f"{self.figures}; needed are {least:.0%} and {most:g}"
        return ""

    @property
    def figures(self) -> str:
        """The agreement in words."""
        difference = "none" if self.max_abs_difference is None else f"{self.max_abs_difference:.1e}"
        return (
            f"{self.top1_agreement:.2%} of {self.images} best classes equal, "
            f"largest difference of a probability {difference}"
        )

    def as_row(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        warning = self.format == "litert_int8" and self.top1_agreement < INT8_WARNING
        return {**asdict(self), "kept": not self.fault, "fault": self.fault, "warning": warning}


def check_files(
    saved_model: Path, files: Sequence[str], expected: np.ndarray, class_names: Sequence[str]
) -> Parity:
    """Compares a SavedModel's answers for whole ``files`` with ``expected`` float32 ``[N, K]``."""
    names = np.array(files), np.array(class_names)
    return _ask(
        "saved_model",
        "tensorflow",
        saved_model,
        {"files": names[0], "class_names": names[1], "probabilities": expected},
    )


def check_pixels(
    name: str, runtime: str, path: Path, pixels: np.ndarray, expected: np.ndarray
) -> Parity:
    """Compares a LiteRT or ONNX file's answers for uint8 ``[N, S, S, 3]`` with ``expected``."""
    return _ask(name, runtime, path, {"pixels": pixels, "probabilities": expected})


def compare_answers(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """``top1_agreement`` and ``max_abs_difference`` of two float32 ``[N, K]``, as in parity.json."""
    return {
        "top1_agreement": float(np.mean(found.argmax(1) == expected.argmax(1))),
        "max_abs_difference": float(np.abs(found - expected).max()),
    }


def _ask(name: str, runtime: str, model: Path, request: dict[str, np.ndarray]) -> Parity:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.npz"
        np.savez(path, **request)  # type: ignore[arg-type]
        # -I: no user packages, no environment, no current folder; this process holds the GPU
        ended = subprocess.run(
            [sys.executable, "-I", str(_SCRIPT), runtime, str(model), str(path)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        )
    lines = ended.stdout.strip().splitlines()
    if ended.returncode or not lines:
        cause = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:200]
        raise UserError(
            f"--format={name}: the exported model does not run ({cause}); please report this"
        )
    answer = json.loads(lines[-1])
    return Parity(name, **{**answer, "refused": tuple(answer["refused"])})
