"""Notebooks: ``!seedtf train``, ``train_and_evaluate``, and the shipped notebook all train a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Shared

ROOT = Path(__file__).resolve().parent.parent
PIECES = ROOT / "scripts" / "notebooks" / "pieces.ipynb"
TRAINING_FLAGS = "--model=tiny --weights=none --image_size=16 --epochs=1 --batch_size=4"
# Compiling the augmentation that is used by default would take a second.
TRAINING_FLAGS += " --augment_impl=tf_image"
CELLS = (
    f"!seedtf train --data_dir=plants.zip {TRAINING_FLAGS} --run_dir=shell",
    """import seedtf
config = seedtf.TrainConfig(
    data_dir="plants.zip", run_dir="library", model="tiny", weights="none", image_size=16,
    epochs=1, batch_size=4, augment_impl="tf_image",
)
result = seedtf.train_and_evaluate(config)
print("best epoch", result.best_epoch)""",
)


# The shipped notebook trains until its models have learned something. A test only has to show that the
# notebook runs, so these replacements reduce the numbers of epochs.
FEWER_EPOCHS = {
    " epochs=30,": " epochs=2,",
    "cycle_epochs=15": "cycle_epochs=1",
    " epochs=8,": " epochs=1,",
}


def shipped_cells() -> tuple[str, ...]:
    """The code cells of the notebook that is shipped, with fewer epochs."""
    cells = json.loads(PIECES.read_text(encoding="utf-8"))["cells"]
    code = ["".join(each["source"]) for each in cells if each["cell_type"] == "code"]
    for many, few in FEWER_EPOCHS.items():
        assert sum(cell.count(many) for cell in code) == 1, many
        code = [cell.replace(many, few) for cell in code]
    return tuple(code)


def notebook(cells: tuple[str, ...]) -> dict[str, Any]:
    """The JSON of a notebook, as Jupyter saves it."""
    code = [
        {
            "cell_type": "code",
            "id": f"cell-{number}",
            "metadata": {},
            "execution_count": None,
            "source": text,
            "outputs": [],
        }
        for number, text in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": code}


@pytest.fixture(scope="module")
def outputs(tiny_folder: Path, shared: Shared) -> list[list[dict]]:
    """What each cell of a notebook shows after ``jupyter execute`` in a folder with only the data.

    The cells of the shipped notebook come first, then ``CELLS``. One kernel runs all cells, so that
    TensorFlow is imported only once.
    """
    bin_dir = Path(sys.executable).parent
    if not all((bin_dir / name).exists() for name in ("jupyter", "jupyter-execute", "seedtf")):
        pytest.skip("jupyter or seedtf is not installed: pip install -e '.[dev]'")
    folder = shared("notebook", lambda folder: execute(folder, bin_dir, tiny_folder))
    cells = json.loads((folder / "train.ipynb").read_text())["cells"]
    return [cell["outputs"] for cell in cells]


def execute(folder: Path, bin_dir: Path, images: Path) -> None:
    """Writes ``plants.zip`` and ``train.ipynb`` into ``folder``, and runs this notebook there."""
    with zipfile.ZipFile(folder / "plants.zip", "w") as archive:
        for path in images.rglob("*.png"):
            archive.write(path, f"plants/{path.relative_to(images)}")
    (folder / "train.ipynb").write_text(json.dumps(notebook((*shipped_cells(), *CELLS))))
    environment = {
        **os.environ,
        "PATH": f"{bin_dir}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Every download fails, because no program listens at the address of this proxy.
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    done = subprocess.run(
        [bin_dir / "jupyter", "execute", "--inplace", "train.ipynb"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def printed(outputs: list[dict]) -> str:
    return "".join("".join(each["text"]) for each in outputs if each["output_type"] == "stream")


def test_a_shell_command_in_a_notebook_trains(outputs: list[list[dict]]) -> None:
    *_, shell, _ = outputs
    assert "RESULT {" in printed(shell)
    assert "Traceback" not in printed(shell)


def test_the_curves_of_a_training_appear_below_the_cell(outputs: list[list[dict]]) -> None:
    *_, library = outputs
    assert "best epoch 1" in printed(library)
    assert any("image/png" in each.get("data", {}) for each in library)
    assert not any(each["output_type"] == "error" for each in library)


def test_the_shipped_notebook_runs_from_top_to_bottom(outputs: list[list[dict]]) -> None:
    shown = outputs[: len(shipped_cells())]
    first, datasets, images, fit, training, predictions = shown
    assert not any(each["output_type"] == "error" for cell in shown for each in cell)
    assert "Black-grass" in printed(first)
    assert "12 classes, 6 batches per epoch" in printed(datasets)
    for cell in (images, fit):
        assert any("image/png" in each.get("data", {}) for each in cell)
    assert "validation accuracy" in printed(fit)
    (result,) = [each for each in training if each["output_type"] == "execute_result"]
    assert "<img" in "".join(result["data"]["text/html"])
    assert len(printed(predictions).splitlines()) == 6


def test_the_shipped_notebook_is_valid_and_has_no_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    content = json.loads(PIECES.read_text(encoding="utf-8"))
    nbformat.validate(content)
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in code)
    text_of_all_cells = "".join("".join(cell["source"]) for cell in content["cells"])
    assert "colab.research.google.com" in text_of_all_cells
    assert "kaggle.com/code" in text_of_all_cells
