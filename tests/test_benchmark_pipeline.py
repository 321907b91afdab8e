"""``seedtf benchmark pipeline`` measures every variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedtf.commands.main import main

QUICK = [
    "benchmark",
    "pipeline",
    "--image_size=16",
    "--seconds=0.05",
    "--rounds=1",
    "--batch_size=8",
]
WAYS = ["fused", "tf_image", "device"]


def test_each_variant_has_a_rate(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, f"--data_dir={tiny_folder}"]) == 0
    output = capsys.readouterr().out
    result = json.loads(output.partition("RESULT ")[2])
    assert [rate["way"] for rate in result["rates"]] == WAYS
    assert all(rate["images_per_second"] > 0 for rate in result["rates"])
    assert all(rate["images_per_cpu_second"] > 0 for rate in result["rates"])
    assert output.splitlines()[0].endswith("16² uint8 -> 16² float32, batches of 8")


def test_json_is_one_object(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--json", f"--data_dir={tiny_folder}"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == str(tiny_folder)


def test_a_value_out_of_range_names_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "pipeline", "--rounds=0"]) == 2
    assert "--rounds=0" in capsys.readouterr().err
