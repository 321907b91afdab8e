"""Makes a run folder without training: a tiny network with random weights, for given images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
from PIL import Image

from seedtf.data.catalog import scan_folder
from seedtf.files import csv_line
from seedtf.model.network import build_network, save_model

IMAGE_SIZE = 16


def draw_classes(root: Path, names: Sequence[str], per_class: int = 4) -> Path:
    """Writes class folders of images of 20×16 pixels, each filled with a colour of its own."""
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            color = (40 * label % 256, 20 * number, 120)
            Image.new("RGB", (20, 16), color).save(root / name / f"{label}-{number}.png")
    return root


def make_run(
    run_dir: Path, data_root: Path, *, seed: int = 0, image_size: int = IMAGE_SIZE
) -> Path:
    """Writes the files of a run that later commands read; every second image is for validation."""
    catalog = scan_folder(data_root)
    keras.utils.set_random_seed(seed)
    model = build_network(
        model="tiny",
        num_classes=len(catalog.class_names),
        image_size=image_size,
        weights="none",
    )
    (run_dir / "checkpoints").mkdir(parents=True)
    save_model(model, run_dir / "checkpoints" / "best.keras")
    settings = {
        "model": "tiny",
        "image_size": image_size,
        "cache_dir": "",
        "resolved": {"data_root": str(data_root)},
    }
    (run_dir / "config.json").write_text(json.dumps(settings))
    (run_dir / "classes.txt").write_text("".join(f"{name}\n" for name in catalog.class_names))
    rows = [
        csv_line(path, catalog.class_names[label], "val" if index % 2 else "train")
        for index, (path, label) in enumerate(zip(catalog.paths, catalog.labels, strict=True))
    ]
    (run_dir / "split.csv").write_text(csv_line("file", "label", "split") + "".join(rows))
    return run_dir


def copy_run(run_dir: Path, target: Path) -> Path:
    """Copies a run, for a test that changes it."""
    return Path(shutil.copytree(run_dir, target))
