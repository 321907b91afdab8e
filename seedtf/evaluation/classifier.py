"""``Classifier``: predicts the classes of images with a run or with an export (a SavedModel)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow as tf

from seedtf.data.decode_files import BatchDecoder, make_batch_decoder
from seedtf.data.paths import read_file
from seedtf.errors import UserError, first_line
from seedtf.evaluation.evaluate import make_mean_predict_fn, top_classes
from seedtf.images.decode import make_decoder, pixel_budget
from seedtf.images.header import MAX_PIXELS, STRETCH, RefusedError, read_header
from seedtf.images.transcode import to_decodable
from seedtf.model.activation_map import check_has_maps, make_map_function
from seedtf.runs.open import load_run
from seedtf.runs.saved_model import ServingSignature, newest_saved_model, read_image_settings

__all__ = ["Classifier", "Prediction", "open_classifier"]


Image = str | os.PathLike[str] | bytes | np.ndarray
"""The path of an image file, the content of such a file, or pixels, uint8 ``[H, W, 3]``."""
_BATCH_SIZE = 32


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
        names: the names of the classes, the most probable first.
        probabilities: the float32 probability of each class in ``names``.
        heatmap: the class activation map of the first class, float32 ``[h, w]``; None if there is none.
    """

    names: tuple[str, ...]
    probabilities: tuple[np.float32, ...]
    heatmap: np.ndarray | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Classifier:
    """A run or an export that is ready to predict images.

    Attributes:
        num_classes: number of classes K.
        prepare: converts the bytes of a file to an input of ``classify``. May be called from many
            threads. Raises RefusedError for a file that cannot be used.
        classify: takes a non-empty sequence of prepared images and k. Returns for each image its k
            most probable classes, or a RefusedError if the model rejected the image.
        max_pixels: the largest width × height that ``prepare`` accepts.
        fit: how images are made square, see ``images.decode.resize_image``.
        decode_files: reads and prepares several files at once, which is faster than a call of
            ``prepare`` for each file. None for an export, which decodes the files itself.
    """

    num_classes: int
    prepare: Callable[[bytes], Any]
    classify: Callable[[Sequence[Any], int], list[Prediction | RefusedError]]
    max_pixels: int = MAX_PIXELS
    fit: str = STRETCH
    decode_files: BatchDecoder | None = None

    @overload
    def predict(self, images: Image, k: int = 5) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, images: Sequence[Image], k: int = 5) -> list[Prediction]: ...

    def predict(self, images: Any, k: int = 5) -> Prediction | list[Prediction]:
        """The ``k`` most probable classes of one image, or of each image of a sequence.

        Args:
            images: one image or a sequence of images. An image is the path of a file, the content of a
                file as bytes, or an RGB array, uint8 ``[H, W, 3]``. A sequence may also be an array,
                uint8 ``[N, H, W, 3]``.
            k: number of classes; at most K are returned.

        Raises:
            RefusedError: a file is not an image, is damaged, or is too large. If a path was passed, the
                message contains it.
            ValueError: an array has another dtype or shape.
            OSError: a file cannot be read.
        """
        if _is_one_image(images):
            return self._predict_batch([images], k)[0]
        predictions: list[Prediction] = []
        for start in range(0, len(images), _BATCH_SIZE):
            predictions += self._predict_batch(images[start : start + _BATCH_SIZE], k)
        return predictions

    def prepare_files(self, paths: Sequence[str]) -> list[Any]:
        """Reads and prepares files; may be called from many threads.

        Returns:
            For each path the input of ``classify``, or a RefusedError if the file cannot be used.
        """
        if self.decode_files is None:
            return [self._prepare_file(path) for path in paths]
        return [
            _unreadable(image) if isinstance(image, OSError) else image
            for image in self.decode_files(paths)
        ]

    def _prepare_file(self, path: str) -> Any:
        try:
            return self.prepare(read_file(path, self.max_pixels))
        except OSError as error:
            return _unreadable(error)
        except RefusedError as error:
            return error

    def _predict_batch(self, images: Sequence[Image], k: int) -> list[Prediction]:
        def with_path(image: Image, error: RefusedError) -> RefusedError:
            path = f"{os.fspath(image)}: " if isinstance(image, (str, os.PathLike)) else ""
            return RefusedError(error.fault, f"{path}{error.detail}")

        prepared = []
        for image in images:
            try:
                prepared.append(self.prepare(_read_or_encode(image)))
            except RefusedError as error:
                raise with_path(image, error) from None
        predictions: list[Prediction] = []
        for image, prediction in zip(images, self.classify(prepared, k), strict=True):
            if isinstance(prediction, RefusedError):
                raise with_path(image, prediction)
            predictions.append(prediction)
        return predictions


def open_classifier(
    path: str | os.PathLike[str],
    tta: int = 1,
    *,
    snapshots: bool = False,
    heatmaps: bool = False,
) -> Classifier:
    """Opens a run, a SavedModel, or the newest one in a folder of numbered SavedModels.

    Args:
        path: the folder, or a checkpoint inside a run.
        tta: test-time augmentation: 1 for none, or 8 for the mean over the eight rotations and
            reflections of the square; for a run only.
        snapshots: whether to average all snapshots instead of using the best model; for a run only.
        heatmaps: whether predictions have a class activation map; for a run only. The predictions of an
            export always have a map if it was written with ``seedtf export --heatmap``.

    Raises:
        UserError: ``path`` is neither a run nor an export, or is damaged; ``tta`` 8, ``snapshots`` or
            ``heatmaps`` was passed for an export; ``snapshots`` was passed, but the run has none; or
            ``heatmaps`` was passed, but the network has no class activation maps.

    Example:
        >>> classifier = open_classifier("runs/seedlings")
        >>> prediction = classifier.predict("leaf.png", k=2)
        >>> sorted(prediction.names)
        ['Charlock', 'Maize']
        >>> bool(prediction.probabilities[0] >= prediction.probabilities[1])
        True
    """
    saved_model = newest_saved_model(Path(path))
    if saved_model is None:
        return _open_run(path, tta, snapshots, heatmaps)
    not_for_exports = {"--snapshots": snapshots, f"--tta={tta}": tta != 1, "--heatmaps": heatmaps}
    for flag, given in not_for_exports.items():
        if given:
            raise UserError(f"{flag}: does not apply to an export; pass the run folder instead")
    return _open_export(saved_model)


def _unreadable(error: OSError) -> RefusedError:
    return RefusedError("unreadable", error.strerror or str(error))


def _is_one_image(images: Any) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim == 3
    return isinstance(images, (str, bytes, os.PathLike))


def _read_or_encode(image: Image) -> bytes:
    """Returns the bytes of an image file; pixels are encoded as PNG, which is lossless."""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, np.ndarray):
        return Path(image).expanduser().read_bytes()
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"Pixels must be uint8 [H, W, 3]. Received: {image.dtype} {list(image.shape)}"
        )
    return tf.io.encode_png(image, compression=1).numpy()


def _open_run(
    path: str | os.PathLike[str], tta: int, snapshots: bool, heatmaps: bool
) -> Classifier:
    run = load_run(path)
    models = run.load_members(snapshots)
    predict = make_mean_predict_fn(models, tta, run.weights)
    if heatmaps:
        for model in models:
            check_has_maps(model, "--heatmaps")
    compute_maps = make_map_function(models, run.weights) if heatmaps else None

    def classify(images: Sequence[Any], k: int) -> list[Prediction | RefusedError]:
        batch = tf.constant(np.stack(images))
        probabilities = predict(batch)
        top = top_classes(probabilities, k)
        names = [tuple(run.class_names[index] for index in row) for row in top]
        values = np.take_along_axis(probabilities, top, axis=1)
        maps = [None] * len(top)
        if compute_maps is not None:
            maps = list(compute_maps(batch, top[:, 0]).numpy())
        return [Prediction(*row) for row in zip(names, map(tuple, values), maps, strict=True)]

    decoder_arguments = (run.image_size, run.max_pixels, run.fit)
    # This decoder is made and traced only if `prepare` is called. `prepare_files` does not need it.
    get_decoder = functools.cache(lambda: make_decoder(*decoder_arguments))

    def prepare(data: bytes) -> tf.Tensor:
        return get_decoder()(data)

    return Classifier(
        len(run.class_names),
        prepare,
        classify,
        run.max_pixels,
        run.fit,
        make_batch_decoder(*decoder_arguments),
    )


def _open_export(path: Path) -> Classifier:
    signature = ServingSignature(path)
    fit, max_pixels = read_image_settings(path)

    def classify(files: Sequence[Any], k: int) -> list[Prediction | RefusedError]:
        try:
            named_tensors = signature(tf.constant(files)).items()
            outputs = {name: tensor.numpy() for name, tensor in named_tensors}
        except tf.errors.OpError as error:
            if len(files) == 1:
                return [RefusedError("corrupt", first_line(error, 120))]
            # In some exports, one damaged image fails the whole batch, so each is predicted alone.
            return [prediction for file in files for prediction in classify([file], k)]
        return [_prediction_of_row(outputs, row, k) for row in range(len(files))]

    prepare = functools.partial(_decodable_bytes, max_pixels=max_pixels)
    return Classifier(signature.num_classes, prepare, classify, max_pixels, fit)


def _decodable_bytes(data: bytes, *, max_pixels: int) -> bytes:
    """``data``, or a BMP of the same image if only Pillow can decode ``data``, but not an export."""
    header = read_header(data, max_pixels)
    if not header.needs_pillow:
        return data
    with pixel_budget.reserve(header.pixels):
        return to_decodable(data, header, max_pixels)[0]


def _prediction_of_row(
    outputs: dict[str, np.ndarray], row: int, k: int
) -> Prediction | RefusedError:
    probabilities = outputs["probabilities"][row]
    if not probabilities.any():  # An export returns zeros for an image that it cannot decode.
        status = outputs["status"][row].decode() if "status" in outputs else "unreadable"
        return RefusedError(status, "the exported model cannot decode it")
    names = tuple(name.decode() for name in outputs["classes"][row][:k])
    heat = outputs["heatmap"][row] if "heatmap" in outputs else None
    # ``classes`` is sorted by probability, but ``probabilities`` may be in the order of the classes.
    return Prediction(names, tuple(np.sort(probabilities)[::-1][:k]), heat)
