"""A notebook trains: with ``!seedtf train`` in a cell, and with seedtf as a library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = "--model=tiny --weights=none --image_size=16 --epochs=1 --batch_size=4"
CELLS = (
    f"!seedtf train --data_dir=plants.zip {TRAINING} --run_dir=shell",
    """import seedtf
config = seedtf.TrainConfig(
    data_dir="plants.zip", run_dir="library", model="tiny", weights="none", image_size=16,
    epochs=1, batch_size=4,
)
result = seedtf.train_and_evaluate(config)
print("best epoch", result.best_epoch)""",
)


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
def outputs(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict]]:
    """What each cell shows after ``jupyter execute``, in a folder that has only the data."""
    programs = Path(sys.executable).parent
    if not all((programs / name).exists() for name in ("jupyter", "jupyter-execute", "seedtf")):
        pytest.skip("jupyter is not installed: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("notebook")
    with zipfile.ZipFile(folder / "plants.zip", "w") as archive:
        for path in tiny_folder.rglob("*.png"):
            archive.write(path, f"plants/{path.relative_to(tiny_folder)}")
    (folder / "train.ipynb").write_text(json.dumps(notebook(CELLS)))
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    done = subprocess.run(
        [programs / "jupyter", "execute", "--inplace", "train.ipynb"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads((folder / "train.ipynb").read_text())["cells"]
    return [cell["outputs"] for cell in cells]


def printed(outputs: list[dict]) -> str:
    return "".join("".join(each["text"]) for each in outputs if each["output_type"] == "stream")


def test_a_notebook_trains(outputs: list[list[dict]]) -> None:
    shell, _ = outputs
    assert "RESULT {" in printed(shell)
    assert "Traceback" not in printed(shell)


def test_the_curves_of_a_training_appear_below_the_cell(outputs: list[list[dict]]) -> None:
    _, library = outputs
    assert "best epoch 1" in printed(library)
    assert any("image/png" in each.get("data", {}) for each in library)
    assert not any(each["output_type"] == "error" for each in library)
