"""A run as a folder that a server loads: a SavedModel, proven equal to the evaluation, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.evaluation.evaluate import make_classifier, predict_store
from seedtf.evaluation.metrics import scale_probabilities
from seedtf.export.check_export import Parity, check_files, check_pixels, compare_answers
from seedtf.export.float32 import rebuild_in_float32
from seedtf.export.formats import OPTIONAL_FORMATS, convert
from seedtf.export.serving_graph import ServingModule
from seedtf.export.versions import new_version
from seedtf.export.warmup import write_warmup
from seedtf.files import write_text
from seedtf.runs.open import Run, open_training_sample

__all__ = ["Exported", "export_run", "read_temperature"]

_BATCH_SIZE = 32
_CALIBRATION_IMAGES = 100
_MOST_PIXEL_IMAGES = 1000
"""Images that a LiteRT or ONNX file is compared on: a million images' pixels fit no request."""


@dataclass(frozen=True)
class Exported:
    """A finished export.

    Attributes:
        folder: the version's folder.
        version: its number.
        temperature: the logits are divided by it; 1.0 where no report gave one.
        temperature_fitted: whether a report gave it.
        rows: one comparison for each format, the SavedModel's first.
    """

    folder: Path
    version: int
    temperature: float
    temperature_fitted: bool
    rows: tuple[Parity, ...]

    @property
    def refused(self) -> tuple[Parity, ...]:
        """The formats that were not kept."""
        return tuple(row for row in self.rows if row.fault)

    def as_json(self) -> str:
        """The ``RESULT`` line's value."""
        best = self.rows[0]
        values = {
            "export": str(self.folder),
            "version": self.version,
            "images": best.images,
            "top1_agreement": best.top1_agreement,
            "max_abs_difference": best.max_abs_difference,
            "temperature": self.temperature,
            "formats": {row.format: not row.fault for row in self.rows},
        }
        return json.dumps(values)


def export_run(
    run: Run, out_dir: Path, store: Store, records: np.ndarray, formats: Sequence[str] = ()
) -> Exported:
    """Writes the next version below ``out_dir``, and ``out_dir``/parity.json.

    The version's folder appears when the SavedModel has answered for every image as the evaluation
    does, in a process that has TensorFlow alone. Other formats lie in its ``assets.extra``; one that
    disagrees is left out and said so in its row. Of a model trained in mixed precision parity.json also
    says, under ``as_trained``, how the float32 one answers beside it.

    Args:
        run: a finished run.
        out_dir: the folder of versions; a server's base path.
        store: labelled images; ``records`` int64 ``[N]`` of them are compared.
        formats: keys of ``OPTIONAL_FORMATS`` to write beside the SavedModel.

    Raises:
        UserError: ``out_dir`` cannot be used, the model is damaged, or the export's answers differ.
    """
    with new_version(out_dir) as version:
        fitted = read_temperature(run)
        temperature = 1.0 if fitted is None else fitted
        trained = run.load_model()
        model = rebuild_in_float32(trained)
        expected = _probabilities(model, store, records, temperature)
        compared = _Compared(store, records, expected)
        classes_file = str(run.run_dir / "classes.txt")
        module = ServingModule(model, run.class_names, temperature, classes_file)
        first = _write_saved_model(version.folder, module, run, compared)
        rows = (first, *_write_formats(version.folder, formats, module, run, compared))
        facts = {
            "version": version.number,
            "run": str(run.run_dir),
            "temperature": temperature,
            "temperature_fitted": fitted is not None,
            "rows": [row.as_row() for row in rows],
        }
        if model is not trained:
            found = _probabilities(trained, store, records, temperature)
            facts["as_trained"] = compare_answers(found, expected)
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        write_text(version.folder / "assets.extra" / "parity.json", text)
    # beside the versions too, for whoever looks there; the version's own copy is the one that counts
    write_text(out_dir / "parity.json", text)
    folder = out_dir / str(version.number)
    return Exported(folder, version.number, temperature, fitted is not None, rows)


def read_temperature(run: Run) -> float | None:
    """The temperature that ``seedtf evaluate`` fitted, None where there is none.

    Raises:
        UserError: report.json is damaged.
    """
    path = run.run_dir / "report" / "report.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = values.get("temperature")
        temperature = None if found is None else float(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged ({error}); run seedtf evaluate again") from None
    if temperature is not None and not 0.0 < temperature < float("inf"):
        raise UserError(
            f"{path}: temperature {temperature} is not a positive number; evaluate again"
        )
    return temperature


@dataclass(frozen=True)
class _Compared:
    """The images of a comparison and the evaluation's answers, float32 ``[N, K]``."""

    store: Store
    records: np.ndarray
    expected: np.ndarray


def _write_saved_model(
    folder: Path, module: ServingModule, run: Run, compared: _Compared
) -> Parity:
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    write_warmup(folder, run.image_size)
    paths = compared.store.catalog.absolute_paths()
    files = [paths[record] for record in compared.records]
    row = check_files(folder, files, compared.expected, run.class_names)
    if row.fault:
        raise UserError(
            f"{run.run_dir}: the export does not answer as the evaluation does ({row.fault}); "
            "nothing was written; please report this"
        )
    return row


def _write_formats(
    folder: Path, formats: Sequence[str], module: ServingModule, run: Run, compared: _Compared
) -> list[Parity]:
    """Converts, compares, and removes what disagrees; one row for each format."""
    if not formats:
        return []
    count = len(compared.records)
    few = np.linspace(0, count - 1, min(count, _MOST_PIXEL_IMAGES)).astype(np.int64)
    pixels = compared.store.read(tf.constant(compared.records[few])).numpy()
    needs_images = "litert_int8" in formats
    calibration = open_training_sample(run, _CALIBRATION_IMAGES) if needs_images else pixels[:1]
    rows = []
    for name in formats:
        file, runtime, _ = OPTIONAL_FORMATS[name]
        path = folder / "assets.extra" / file
        path.write_bytes(convert(module, name, calibration))
        row = check_pixels(name, runtime, path, pixels, compared.expected[few])
        if row.fault:
            path.unlink()
        rows.append(row)
    return rows


def _probabilities(
    model: keras.Model, store: Store, records: np.ndarray, temperature: float
) -> np.ndarray:
    """What the evaluation answers, float32 ``[N, K]``, with the temperature applied."""
    with _exact_products():
        found = predict_store(make_classifier(model), store, records, _BATCH_SIZE).probabilities
    return scale_probabilities(found, temperature).astype(np.float32)


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TensorFloat-32: on recent GPUs it would cost float32 products 13 of their 23 bits."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
