"""``seedtf benchmark pipeline`` measures batches of each way to augment: fused, tf_image and device."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from seedtf.augment.mixing import Mixing
from seedtf.augment.policy import Policy
from seedtf.benchmark.pipeline import make_batches, store_of_images
from seedtf.commands.main import main

QUICK_COMMAND = [
    "benchmark",
    "pipeline",
    "--image_size=16",
    "--seconds=0.05",
    "--rounds=1",
    "--batch_size=8",
]
WAYS = ["fused", "tf_image", "device"]


def test_each_way_to_augment_has_a_rate(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK_COMMAND, f"--data_dir={tiny_folder}"]) == 0
    output = capsys.readouterr().out
    result = json.loads(output.partition("RESULT ")[2])
    assert [rate["way"] for rate in result["rates"]] == WAYS
    assert all(rate["images_per_second"] > 0 for rate in result["rates"])
    assert all(rate["images_per_cpu_second"] > 0 for rate in result["rates"])
    assert output.splitlines()[0].endswith("16² uint8 -> 16² float32, batches of 8")


def test_with_json_the_output_is_one_object(
    tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--json", f"--data_dir={tiny_folder}", "--mixup=0.5", "--random_erasing=0.25"]
    assert main([*QUICK_COMMAND, *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images"] == str(tiny_folder)
    assert result["mixing"] == {"mixup": 0.5, "cutmix": 0.0, "random_erasing": 0.25}
    assert [rate["way"] for rate in result["rates"]] == WAYS


def test_images_are_mixed_on_the_host_only() -> None:
    store, erasing = store_of_images(np.zeros([8, 16, 16, 3], np.uint8)), Mixing(random_erasing=1.0)
    # The images are black, and random erasing fills a rectangle of each with noise.
    for way, has_noise in [("fused", True), ("device", False)]:
        batches = make_batches(store, 16, 8, Policy(), way, mixing=erasing)
        images = next(iter(batches))[0]
        assert bool(np.any(images["image"] if way == "device" else images)) == has_noise


def test_a_value_out_of_range_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "pipeline", "--rounds=0"]) == 2
    assert "--rounds=0" in capsys.readouterr().err
