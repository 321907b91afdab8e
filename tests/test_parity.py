"""Parity: an export runs in another process, and its predictions are compared with the evaluation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.export import parity_worker
from seedtf.export.parity import Parity, compare_files, compare_probabilities

NAMES = ("a", "ö b", "c")
TABLE = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], np.float32)


class Export(tf.Module):
    """Predicts row 0 or 1 of TABLE for a file that contains "0" or "1"; a longer file is corrupt."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        super().__init__()
        self.names = names

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")])
    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        good = tf.strings.length(image_bytes) == 1
        row = tf.strings.to_number(tf.strings.substr(image_bytes, 0, 1), tf.int32)
        probabilities = tf.gather(tf.constant(TABLE), row)
        scores, order = tf.math.top_k(probabilities, 3)
        status = tf.where(good, "ok", "corrupt")
        classes = tf.gather(tf.constant(self.names), order)
        return {
            "probabilities": probabilities,
            "scores": scores,
            "classes": classes,
            "status": status,
        }


def save(folder: Path, module: Export) -> Path:
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def compare_here(export: Path, files: Sequence[str], expected: np.ndarray) -> Parity:
    """What ``compare_files`` returns, computed in this process."""
    request = {"files": files, "class_names": NAMES, "probabilities": expected}
    return Parity.of("saved_model", parity_worker.evaluate("tensorflow", str(export), request))


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("parity") / "good", Export())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    paths = []
    for number, text in enumerate(["0", "1", "0"]):
        (folder / f"{number} ü").write_text(text)
        paths.append(str(folder / f"{number} ü"))
    return paths


@pytest.mark.usefixtures("forked_subprocesses")
def test_agreement_and_difference_are_measured(export: Path, files: list[str]) -> None:
    expected = TABLE[[0, 1, 0]].copy()
    expected[1] = [0.1, 0.4, 0.5]
    parity = compare_files(export, files, expected, NAMES, max_pixels=1_000_000)
    assert (parity.images, parity.refused) == (3, ())
    assert parity.top1_agreement == pytest.approx(2 / 3)
    assert parity.max_abs_difference == pytest.approx(0.2)
    assert parity.runtime == f"tensorflow {tf.__version__}"
    assert "66.67%" in parity.fault
    assert not parity.as_row()["kept"]


def test_refused_files_are_named(export: Path, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("0x")
    parity = compare_here(export, [files[0], str(tmp_path / "bad")], TABLE[[0, 0]])
    assert parity.refused == (f"{tmp_path / 'bad'}: corrupt",)
    assert "1 image refused" in parity.fault


def test_class_names_in_the_wrong_order_are_a_fault(tmp_path: Path, files: list[str]) -> None:
    swapped = save(tmp_path / "swapped", Export(("ö b", "a", "c")))
    parity = compare_here(swapped, files, TABLE[[0, 1, 0]])
    assert parity.max_abs_difference is None
    assert parity.fault


@pytest.mark.usefixtures("forked_subprocesses")
def test_a_damaged_export_is_a_user_error(tmp_path: Path, files: list[str]) -> None:
    with pytest.raises(UserError, match="does not run"):
        compare_files(tmp_path, files, TABLE[[0, 1, 0]], NAMES, max_pixels=1_000_000)


def test_the_other_process_imports_neither_keras_nor_seedtf(
    export: Path, files: list[str], tmp_path: Path
) -> None:
    request = tmp_path / "request.npz"
    np.savez(request, files=np.array(files), class_names=NAMES, probabilities=TABLE[[0, 1, 0]])
    code = (
        "import runpy, sys; script, *arguments = sys.argv[1:]\n"
        "runpy.run_path(script)['main'](*arguments)\n"
        # The script sets ``sys.modules["keras"]`` to None, which makes an import of Keras fail.
        "loaded = {n.split('.')[0] for n, module in sys.modules.items() if module is not None}\n"
        "assert 'tensorflow' in loaded and not loaded & {'keras', 'seedtf'}, loaded"
    )
    command = [sys.executable, "-I", "-c", code, str(parity_worker.__file__)]
    completed = subprocess.run(
        [*command, "tensorflow", str(export), str(request)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert '"top1_agreement": 1.0, "max_abs_difference": 0.0' in completed.stdout


def make_parity(export_format: str, agreement: float, difference: float | None) -> Parity:
    return Parity(
        format=export_format,
        runtime="x 1",
        images=200,
        top1_agreement=agreement,
        max_abs_difference=difference,
        refused=(),
        seconds=0.1,
    )


@pytest.mark.parametrize("export_format", ["saved_model", "litert", "onnx"])
def test_float_formats_must_agree_on_every_image(export_format: str) -> None:
    assert not make_parity(export_format, 1.0, 1e-4).fault
    assert make_parity(export_format, 0.995, 1e-6).fault
    assert make_parity(export_format, 1.0, 1.1e-4).fault
    assert make_parity(export_format, 1.0, None).fault


def test_int8_warns_below_98_percent_of_agreement_and_is_a_fault_below_90() -> None:
    assert make_parity("litert_int8", 0.98, 0.3).as_row()["warning"] is False
    assert make_parity("litert_int8", 0.97, 0.3).as_row()["warning"] is True
    assert not make_parity("litert_int8", 0.97, 0.3).fault
    assert make_parity("litert_int8", 0.89, 0.3).fault
    assert make_parity("litert_int8", 0.0, None).fault


def test_nan_or_a_different_number_of_rows_never_agrees() -> None:
    bad = TABLE.copy()
    bad[0, 0] = np.nan
    assert parity_worker.compare(bad, TABLE) == (0.0, None)
    assert parity_worker.compare(TABLE[:1], TABLE) == (0.0, None)
    assert compare_probabilities(bad, TABLE) == {"top1_agreement": 0.0, "max_abs_difference": None}
