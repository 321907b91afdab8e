"""Beam, Spark and Ray apply an export to image files, and predict what ``seedtf predict`` predicts.

The engines are too large for the environment of the tests. The environment variable
``SEEDTF_BEAM_PYTHON=/path/to/venv/bin/python`` names a Python that has Beam and TensorFlow;
``SEEDTF_SPARK_PYTHON`` and ``SEEDTF_RAY_PYTHON`` do the same for the other engines. If the variable of
an engine is not set, its test runs in the environment of the tests, or is skipped if the engine is
missing there.
"""

from __future__ import annotations

import ast
import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import make_run

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts" / "batch"
ENGINES = {
    "beam": ("beam.py", "apache_beam"),
    "spark": ("spark.py", "pyspark"),
    "ray": ("ray_data.py", "ray.data"),
}


def python_of(engine: str) -> str:
    """The Python interpreter that has the engine. If the engine is missing, the test is skipped."""
    _, module = ENGINES[engine]
    python = os.environ.get(f"SEEDTF_{engine.upper()}_PYTHON", sys.executable)
    search = f"import importlib.util as u; raise SystemExit(u.find_spec({module!r}) is None)"
    code = f"try:\n {search}\nexcept ImportError: raise SystemExit(1)"
    if subprocess.run([python, "-c", code], check=False).returncode:
        pytest.skip(f"{module.partition('.')[0]} is not installed in {python}")
    if engine == "spark" and not shutil.which("java"):
        pytest.skip("Spark needs Java, which is not installed")
    return python


def read_csv_shards(out: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(out.parent.glob(f"{out.name}-*")):
        with path.open(newline="", encoding="utf-8") as file:
            rows += list(csv.DictReader(file))
    return rows


def read_parquet_folder(out: Path) -> list[dict[str, str]]:
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(out).to_pylist()


READERS: dict[str, Callable[[Path], list[dict[str, str]]]] = {
    "beam": read_csv_shards,
    "spark": read_parquet_folder,
    "ray": read_parquet_folder,
}


@pytest.fixture(scope="module")
def export(tmp_path_factory, tiny_folder) -> tuple[Path, Path, dict[str, dict[str, str]]]:
    """An export, a folder with one damaged image, and the prediction of seedtf for each path."""
    from seedtf.evaluation.classifier import open_classifier
    from seedtf.evaluation.predict import write_predictions
    from seedtf.export.export import export_run
    from seedtf.runs.open import load_run, open_validation

    root = tmp_path_factory.mktemp("batch")
    run = load_run(make_run(root / "run", tiny_folder))
    exported = export_run(run, root / "export", *open_validation(run)).folder
    photos = Path(shutil.copytree(tiny_folder, root / "photos"))
    (photos / "alder" / "cut.png").write_bytes((photos / "alder" / "0.png").read_bytes()[:-30])
    write_predictions(
        open_classifier(exported), [str(photos)], root / "p.csv", topk=1, batch_size=4
    )
    with (root / "p.csv").open(newline="", encoding="utf-8") as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    return exported, photos, expected


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_predicts_as_seedtf_does(engine: str, tmp_path: Path, request) -> None:
    python = python_of(engine)
    exported, photos, expected = request.getfixturevalue("export")
    out = tmp_path / "predictions"
    images = f"{photos}/**" if engine == "beam" else str(photos)
    command = [python, str(SCRIPTS / ENGINES[engine][0]), str(exported), images, str(out)]
    environment = {**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PYSPARK_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["file"].removeprefix("file:"): row for row in READERS[engine](out)}
    assert rows.keys() == expected.keys()
    for path, row in expected.items():
        prediction = rows[path]
        assert (prediction["status"], prediction["class_name"]) == (row["status"], row["top1"])
        assert float(prediction["confidence"]) == pytest.approx(float(row["p1"] or 0), abs=1e-5)


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_a_script_is_short_and_needs_no_seedtf(script: str) -> None:
    text = (SCRIPTS / script).read_text()
    nodes = list(ast.walk(ast.parse(text)))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {name for name in imported if name.split(".")[0] in ("seedtf", "keras")}
    assert len(text.splitlines()) <= 70
    # If a script had the name of its engine, its import of the engine would import the script itself.
    assert script.removesuffix(".py") not in {name.split(".")[0] for name in imported}
