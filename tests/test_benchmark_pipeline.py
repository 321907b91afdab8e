"""``seedtf benchmark pipeline`` measures every variant; benchmark_peers.py marks missed targets."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    """The script benchmark_peers.py as a module."""
    path = Path(__file__).parents[1] / "scripts" / "benchmark_peers.py"
    spec = importlib.util.spec_from_file_location("benchmark_peers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_marks_missed_targets(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_versions", dict)
    rates = {"seedtf": [600.0, 610.0, 590.0], "dali": [100.0] * 3, "tf_image": [120.0] * 3}
    lines, result = peers.report({**rates, "seedtf, one core": [300.0] * 3})
    table = "\n".join(lines)
    assert result["ratios"] == {"dali": 6.0, "tf_image": 5.0}
    assert result["scaling"] == 2.0
    assert [line for line in table.splitlines() if "MISSED" in line] == [
        line for line in lines if "tf.image" in line
    ]
