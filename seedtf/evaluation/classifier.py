"""One way to ask a run folder or an exported SavedModel for the classes of encoded images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.evaluation.ensemble import make_ensemble
from seedtf.evaluation.evaluate import top_classes
from seedtf.images.decode import make_decoder
from seedtf.images.header import MAX_PIXELS, RefusedError, read_header
from seedtf.runs.open import load_run
from seedtf.runs.saved_model import ServingSignature, newest_saved_model

__all__ = ["Answer", "Classifier", "open_classifier"]


@dataclass(frozen=True)
class Answer:
    """The most probable classes of one image, best first: names and float32 probabilities."""

    names: tuple[str, ...]
    probabilities: tuple[np.float32, ...]


@dataclass(frozen=True)
class Classifier:
    """A model that takes whole image files.

    Attributes:
        num_classes: K.
        prepare: a file's bytes to what ``classify`` takes, safe to call from many threads; raises
            RefusedError for a file that is not used.
        classify: prepared images, at least one, and a number k to the k best classes of each, or
            the RefusedError that the model answered with.
        max_pixels: the largest width × height that ``prepare`` accepts.
    """

    num_classes: int
    prepare: Callable[[bytes], Any]
    classify: Callable[[Sequence[Any], int], list[Answer | RefusedError]]
    max_pixels: int = MAX_PIXELS


def open_classifier(
    path: str | os.PathLike[str], tta: int = 1, *, snapshots: bool = False
) -> Classifier:
    """Opens a run folder, a SavedModel folder, or a folder of numbered ones (the highest number).

    Args:
        path: the folder.
        tta: 1, or 8 for the mean over the eight turns and mirror images; a run only.
        snapshots: whether all snapshots of a run answer, by their mean, rather than its best model.

    Raises:
        UserError: none of the three, damaged, an export asked for ``tta`` 8 or ``snapshots``, or a run
            without any.
    """
    saved_model = newest_saved_model(Path(path))
    if saved_model is None:
        return _open_run(path, tta, snapshots)
    if snapshots:
        raise UserError("--snapshots: an export answers as it is; pass the run's folder instead")
    if tta != 1:
        raise UserError(f"--tta={tta}: an export answers as it is; pass the run's folder instead")
    return _open_export(saved_model)


def _open_run(path: str | os.PathLike[str], tta: int, snapshots: bool) -> Classifier:
    run = load_run(path)
    answer_batch = make_ensemble(run.load_members(snapshots), tta)

    def classify(images: Sequence[Any], k: int) -> list[Answer | RefusedError]:
        probabilities = answer_batch(tf.stack(images))
        top = top_classes(probabilities, k)
        names = [tuple(run.class_names[index] for index in row) for row in top]
        values = np.take_along_axis(probabilities, top, axis=1)
        return [Answer(*pair) for pair in zip(names, map(tuple, values), strict=True)]

    prepare = make_decoder(run.image_size, run.max_pixels)
    return Classifier(len(run.class_names), prepare, classify, run.max_pixels)


def _open_export(path: Path) -> Classifier:
    signature = ServingSignature(path)

    def ask(files: Sequence[bytes]) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in signature(tf.constant(files)).items()}

    def classify(files: Sequence[Any], k: int) -> list[Answer | RefusedError]:
        try:
            found = ask(files)
        except tf.errors.OpError as error:
            if len(files) == 1:
                return [RefusedError("corrupt", error.message.splitlines()[0][:120])]
            # one bad image fails a whole batch in some graphs: ask for each by itself
            return [answer for file in files for answer in classify([file], k)]
        return [_row_answer(found, row, k) for row in range(len(files))]

    return Classifier(signature.num_classes, _judged, classify)


def _judged(data: bytes) -> bytes:
    read_header(data)
    return data


def _row_answer(found: dict[str, np.ndarray], row: int, k: int) -> Answer | RefusedError:
    probabilities = found["probabilities"][row]
    if not probabilities.any():
        fault = found["status"][row].decode() if "status" in found else "unreadable"
        return RefusedError(fault, "the exported model cannot decode it")
    names = tuple(name.decode() for name in found["classes"][row][:k])
    # in whichever order the graph lists probabilities, its classes are sorted by them
    return Answer(names, tuple(np.sort(probabilities)[::-1][:k]))
