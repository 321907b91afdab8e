"""Exports a finished run as a SavedModel, which must predict as the evaluation does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from seedtf.data.paths import files_for_tensorflow, read_file
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import make_mean_predict_fn, predict_store
from seedtf.evaluation.metrics import scale_probabilities
from seedtf.export.formats import OPTIONAL_FORMATS, convert, rebuild_in_float32
from seedtf.export.parity import Parity, compare_files, compare_pixels, compare_probabilities
from seedtf.export.serving_graph import ServingModule
from seedtf.export.versions import new_version
from seedtf.export.warmup import write_warmup
from seedtf.files import write_text
from seedtf.images.header import RefusedError, read_header
from seedtf.model.activation_map import check_has_maps
from seedtf.report import warn
from seedtf.runs.folder import read_temperature
from seedtf.runs.open import Run, open_training_sample
from seedtf.runs.paths import PARITY
from seedtf.runs.presets import WEIGHTS_LICENCE, read_weights_licence

__all__ = ["Exported", "export_run"]

_BATCH_SIZE = 32
_NUM_CALIBRATION_IMAGES = 100
_MAX_COMPARED_IMAGES = 1000
"""Largest number of images on which a LiteRT or ONNX file is compared.

There is a limit because their pixels are sent to the worker process in one file.
"""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: the folder of the version.
        version: the number of the version.
        temperature: the divisor of the logits; 1.0 if no evaluation fitted a temperature.
        temperature_fitted: whether an evaluation fitted the temperature.
        rows: the comparison of each format; the first is that of the SavedModel.
    """

    folder: Path
    version: int
    temperature: float
    temperature_fitted: bool
    rows: tuple[Parity, ...]

    @property
    def left_out(self) -> tuple[Parity, ...]:
        """The rows of the formats that were left out because they predict differently."""
        return tuple(row for row in self.rows if row.fault)

    def as_json(self) -> str:
        """The text after ``RESULT`` in the last line of ``seedtf export``."""
        saved_model_row = self.rows[0]
        values = {
            "export": str(self.folder),
            "version": self.version,
            "images": saved_model_row.images,
            "top1_agreement": saved_model_row.top1_agreement,
            "max_abs_difference": saved_model_row.max_abs_difference,
            "temperature": self.temperature,
            "formats": {row.format: not row.fault for row in self.rows},
        }
        return json.dumps(values)


def export_run(
    run: Run,
    out_dir: Path,
    store: Store,
    records: np.ndarray,
    formats: Sequence[str] = (),
    *,
    heatmap: bool = False,
    max_pixels: int = 0,
) -> Exported:
    """Writes the next version to ``out_dir``, and ``out_dir``/parity.json.

    The SavedModel must predict every compared image as the model does in float32, in a process that can
    import neither Keras nor seedtf. If a prediction differs, no version appears.

    Other formats are files in ``assets.extra`` of the version. If the predictions of a format differ,
    its file is left out, and its row has the reason.

    A model that was trained in mixed precision is first rebuilt in float32. In this case ``as_trained``
    in parity.json compares the trained model with the float32 model.

    Args:
        run: a finished run, or several runs whose predictions are averaged.
        out_dir: the folder of the versions, which a model server is given as its base path.
        store: labelled images.
        records: int64 ``[N]``, the indices in ``store`` of the images to compare.
        formats: keys of ``OPTIONAL_FORMATS`` to write beside the SavedModel.
        heatmap: whether the SavedModel also returns the class activation map of the best class.
        max_pixels: the largest width × height that the SavedModel decodes; 0 for the limit of the run.
            Larger images are not compared.

    Raises:
        UserError: ``out_dir`` cannot be used, the model is damaged, has no class activation maps
            although ``heatmap`` is True, or cannot be converted to one of ``formats``; every image is
            larger than ``max_pixels``; or the predictions of the SavedModel differ.

    Example:
        >>> from seedtf.runs.open import load_run, open_validation
        >>> run = load_run("runs/seedlings")  # doctest: +SKIP
        >>> exported = export_run(run, Path("models"), *open_validation(run))  # doctest: +SKIP
        >>> exported.folder, exported.rows[0].top1_agreement  # doctest: +SKIP
        (PosixPath('models/1'), 1.0)
    """
    with new_version(out_dir) as version:
        checkpoint = run.checkpoint.stem if run.checkpoint else ""
        # The temperature of a single run does not suit the mean of several runs. No temperature is
        # fitted for the mean, because an ensemble has no images of its own, and every image of a
        # cross-validation was used to train some of the runs.
        report = run.paths.report_paths(checkpoint=checkpoint)
        fitted = None if run.members else read_temperature(report)
        temperature = 1.0 if fitted is None else fitted
        trained = run.load_members(use_snapshots=False)
        if heatmap:
            for model in trained:
                check_has_maps(model, "--heatmap")
        models = [rebuild_in_float32(model) for model in trained]
        expected = _predict_probabilities(run, models, store, records, temperature)
        reference = _Reference(store, records, expected)
        max_pixels = max_pixels or run.max_pixels
        classes_file = str(run.paths.classes)
        module = ServingModule(
            models[0],
            run.class_names,
            temperature,
            classes_file,
            heatmap=heatmap,
            others=models[1:],
            weights=run.weights,
            max_pixels=max_pixels,
            fit=run.fit,
        )
        saved_model_row = _write_saved_model(version.folder, module, run, reference, max_pixels)
        rows = (saved_model_row, *_write_formats(version.folder, formats, module, run, reference))
        values = {
            "version": version.number,
            "run": str(run.run_dir),
            "temperature": temperature,
            "temperature_fitted": fitted is not None,
            "max_pixels": max_pixels,
            "fit": run.fit,
            "rows": [row.as_row() for row in rows],
        }
        licences = {read_weights_licence(paths.root) for paths in run.members or (run.paths,)}
        if licence := ", ".join(sorted(licences - {""})):
            values[WEIGHTS_LICENCE] = licence
        if any(model is not original for model, original in zip(models, trained, strict=True)):
            as_trained = _predict_probabilities(run, trained, store, records, temperature)
            values["as_trained"] = compare_probabilities(as_trained, expected)
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        write_text(version.folder / "assets.extra" / PARITY, text)
    # This copy beside the versions is easier to find. The next export replaces it.
    write_text(out_dir / PARITY, text)
    folder = out_dir / str(version.number)
    return Exported(folder, version.number, temperature, fitted is not None, rows)


@dataclass(frozen=True)
class _Reference:
    """The images to compare.

    Attributes:
        store: contains the images.
        records: int64 ``[N]``, the indices of the images in ``store``.
        expected: float32 ``[N, K]``, the probabilities by the float32 model.
    """

    store: Store
    records: np.ndarray
    expected: np.ndarray


def _write_saved_model(
    folder: Path, module: ServingModule, run: Run, reference: _Reference, max_pixels: int
) -> Parity:
    """Writes the SavedModel with its warm-up requests; raises UserError if it predicts differently."""
    paths = reference.store.catalog.absolute_paths()
    with files_for_tensorflow([paths[record] for record in reference.records]) as files:
        kept = list(range(len(files)))
        # No image of a run exceeds the limit of the run, so only a smaller limit excludes images.
        if max_pixels < run.max_pixels:
            kept = _files_within(files, max_pixels, run.max_pixels)
        tf.saved_model.save(module, str(folder), signatures=module.signatures())
        write_warmup(folder, run.image_size, max_pixels)
        compared = [files[index] for index in kept]
        expected = reference.expected[kept]
        row = compare_files(folder, compared, expected, run.class_names, max_pixels)
    if row.fault:
        raise UserError(
            f"{run.run_dir}: the export does not predict as the evaluation does ({row.fault}); "
            "nothing was written; please report this"
        )
    return row


def _files_within(files: Sequence[str], max_pixels: int, run_max_pixels: int) -> list[int]:
    """The indices of the files with at most ``max_pixels`` pixels; warns if there are larger files.

    ``run_max_pixels``, the limit of the run, limits the bytes that are read of a file.

    Raises:
        UserError: every file is larger.
    """

    def is_too_large(path: str) -> bool:
        try:
            read_header(read_file(path, run_max_pixels), max_pixels)
        except RefusedError as error:
            return error.fault == "too large"
        except OSError:
            return False  # The worker reports that the file cannot be read.
        return False

    kept = [index for index, path in enumerate(files) if not is_too_large(path)]
    if not kept:
        raise UserError(f"--max_pixels={max_pixels}: too small for every image; pass a larger one")
    if len(kept) < len(files):
        larger = f"{len(files) - len(kept):,} of {len(files):,} images are larger"
        warn(
            f"--max_pixels={max_pixels}: {larger} and were not compared; the export gives such images "
            "the status 'too large'"
        )
    return kept


def _write_formats(
    folder: Path, formats: Sequence[str], module: ServingModule, run: Run, reference: _Reference
) -> list[Parity]:
    """Writes and compares the file of each format, and deletes it if its predictions differ.

    Returns:
        The comparison of each format.
    """
    if not formats:
        return []
    num_images = len(reference.records)
    num_compared = min(num_images, _MAX_COMPARED_IMAGES)
    sample = np.linspace(0, num_images - 1, num_compared).astype(np.int64)
    pixels = reference.store.read(tf.constant(reference.records[sample])).numpy()
    calibration = pixels[:1]  # only litert_int8 uses it
    if "litert_int8" in formats:
        calibration = open_training_sample(run, _NUM_CALIBRATION_IMAGES)
    rows = []
    for name in formats:
        path = folder / "assets.extra" / OPTIONAL_FORMATS[name].file
        path.write_bytes(convert(module, name, calibration))
        expected = reference.expected[sample]
        row = compare_pixels(name, OPTIONAL_FORMATS[name].runtime, path, pixels, expected)
        if row.fault:
            path.unlink()
        rows.append(row)
    return rows


def _predict_probabilities(
    run: Run,
    models: Sequence[keras.Model],
    store: Store,
    records: np.ndarray,
    temperature: float,
) -> np.ndarray:
    """The weighted mean of the models' probabilities, scaled by ``temperature``, float32 ``[N, K]``.

    TensorFloat-32 is disabled, so that a GPU computes in full float32.
    """
    with _without_tensor_float_32():
        predictions = predict_store(
            make_mean_predict_fn(models, weights=run.weights), store, records, _BATCH_SIZE
        )
    return scale_probabilities(predictions.probabilities, temperature).astype(np.float32)


@contextmanager
def _without_tensor_float_32() -> Iterator[None]:
    """Disables TensorFloat-32, with which recent GPUs use 10 instead of 23 mantissa bits of float32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
