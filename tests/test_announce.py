"""The first lines of a run name the active options; a preview names both classes of a mixed image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from seedtf.augment.mixing import Mixing
from seedtf.augment.policy import Policy
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import scan_folder
from seedtf.data.store import CachePlan, Store, build_store
from seedtf.plots.augmentation import draw_preview
from seedtf.training.train import open_session

TINY = {"model": "tiny", "weights": "none", "image_size": 16, "batch_size": 4, "epochs": 2}
ACTIVE_OPTIONS = {
    "recipe": "original",
    "mixup": 0.2,
    "cutmix": 1.0,
    "random_erasing": 0.25,
    "augment_strength": "auto",
    "sampler": "balanced",
    "ema_horizon": 0.1,
    "cycle_epochs": 1.0,
    "snapshots": True,
    "weight_decay": 0.001,
    "clip_norm": 2.0,
    "body_lr_factor": 0.5,
    "label_smoothing": 0.05,
}


def lines_by_label(output: str) -> dict[str, str]:
    """The text of every line, by the label in its first ten columns."""
    return {line[:10].strip(): line[10:] for line in output.splitlines()}


@pytest.fixture
def store(tiny_folder: Path, tmp_path: Path) -> Store:
    return build_store(scan_folder(tiny_folder), 16, CachePlan("ram", 0, ""), tmp_path)


def test_the_first_lines_name_every_active_option(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"data_dir": str(tiny_folder), "run_dir": str(tmp_path / "run")}
    with open_session(TrainConfig(**paths, **TINY, **ACTIVE_OPTIONS)):
        pass  # open_session prints all lines that come before the first step
    printed = lines_by_label(capsys.readouterr().out)
    assert printed["augment"].startswith(
        "strength auto, MixUp by Beta(0.2), CutMix by Beta(1), a rectangle erased in 0.25 of the "
        "images; on the host"
    )
    assert printed["update"] == (
        "weight decay 0.001, gradient clipped to norm 2, first layers at 0.5 of the learning rate, "
        "label smoothing 0.05"
    )
    assert printed["recipe"].startswith("original, as requested (defaults: epochs=200, ")
    assert "the same number of images from every class" in printed["sampler"]
    assert re.match(r"2 epochs of \d+ steps of 4 images, adam, cyclic ", printed["training"])
    assert printed["averages"] == (
        "moving average of the weights over 0.1 of all steps, validated and saved; a snapshot at the "
        "end of every cycle"
    )


def test_the_first_lines_leave_out_inactive_options(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"data_dir": str(tiny_folder), "run_dir": str(tmp_path / "run"), "recipe": "original"}
    with open_session(TrainConfig(**paths, **{**TINY, "epochs": 1})):
        pass
    printed = lines_by_label(capsys.readouterr().out)
    assert printed["augment"].startswith("strength 1; on the host")
    assert printed["training"].startswith("1 epoch of ")
    assert printed["update"] == "weight decay 0"
    assert not {"sampler", "averages", "weights", "sizes"} & set(printed)


def preview_titles(store: Store, mixing: Mixing) -> list[str]:
    records = np.arange(len(store.catalog), dtype=np.int64)
    figure = draw_preview(store, records, Policy(), seed=0, impl="fused", mixing=mixing)
    return [axes.get_title() for part in figure.subfigs for axes in part.axes]


def test_the_preview_names_both_classes_of_a_mixed_image(store: Store) -> None:
    plain, mixed = preview_titles(store, Mixing()), preview_titles(store, Mixing(mixup=1.0))
    assert len(plain) == len(mixed)
    assert not any("%" in title for title in plain)
    assert any("%" in title for title in mixed)
