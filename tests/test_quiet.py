"""What TensorFlow is told before it is imported."""

from __future__ import annotations

import os

import pytest

from seedtf.commands import tensorflow_env as quiet

CHOSEN = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "XLA_FLAGS": "--xla_cpu_prefer_vector_width=512"
    " --xla_disable_hlo_passes=cpu-parallel-task-assigner",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN:
        monkeypatch.setenv(name, "")  # noted, so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(quiet, "_tensorflow_version", lambda: "2.21.0")


def test_kernels_and_vectors_are_chosen_and_the_log_is_quiet() -> None:
    quiet.import_tensorflow()
    assert {name: os.environ.get(name) for name in CHOSEN} == CHOSEN


def test_what_a_user_has_set_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "XLA_FLAGS": "--xla_dump_to=x",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    quiet.import_tensorflow()
    assert {name: os.environ[name] for name in own} == own


@pytest.mark.parametrize("version", ["2.15.1", "2.22.0", ""])
def test_a_version_that_may_not_know_the_flag_is_spared_it(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quiet, "_tensorflow_version", lambda: version)
    quiet.import_tensorflow()
    assert "XLA_FLAGS" not in os.environ
