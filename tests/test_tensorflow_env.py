"""Importing TensorFlow: variables that are set before, and log lines and packages that are hidden."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

from seedtf.compat import tensorflow_env

VALUES_OF_SEEDTF = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    "TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT": "1",
    "XLA_FLAGS": "--xla_cpu_prefer_vector_width=512"
    " --xla_disable_hlo_passes=cpu-parallel-task-assigner",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VALUES_OF_SEEDTF:
        # delenv alone would not make monkeypatch restore a variable that is not set now.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(tensorflow_env, "_tensorflow_version", lambda: "2.21.0")


def test_variables_that_are_not_set_get_the_values_of_seedtf() -> None:
    tensorflow_env.import_tensorflow()
    assert {name: os.environ.get(name) for name in VALUES_OF_SEEDTF} == VALUES_OF_SEEDTF


def test_variables_that_the_user_has_set_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "XLA_FLAGS": "--xla_dump_to=x",
        "TF_CPP_MIN_LOG_LEVEL": "0",
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    tensorflow_env.import_tensorflow()
    assert {name: os.environ[name] for name in own} == own


@pytest.mark.parametrize("version", ["2.15.1", "2.22.0", ""])
def test_a_version_that_may_not_know_the_xla_flags_does_not_get_them(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorflow_env, "_tensorflow_version", lambda: version)
    tensorflow_env.import_tensorflow()
    assert "XLA_FLAGS" not in os.environ


def test_xla_writes_its_modules_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow_env.write_xla_modules("folder")
    dump_flags = "--xla_dump_to=folder --xla_dump_hlo_as_text"
    assert os.environ["XLA_FLAGS"] == f"{VALUES_OF_SEEDTF['XLA_FLAGS']} {dump_flags}"
    monkeypatch.setattr(tensorflow_env, "_tensorflow_version", lambda: "2.22.0")
    monkeypatch.delenv("XLA_FLAGS")
    tensorflow_env.write_xla_modules("folder")
    assert "XLA_FLAGS" not in os.environ


def test_stderr_is_hidden_during_the_start_and_shown_if_it_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with tensorflow_env.silent_start():
        os.write(2, b"a log line\n")
    assert capfd.readouterr().err == ""
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL")  # which the first start has set
    with pytest.raises(RuntimeError), tensorflow_env.silent_start():
        os.write(2, b"the cause\n")
        raise RuntimeError
    assert capfd.readouterr().err == "the cause\n"


def test_a_package_is_missing_only_while_it_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    # delitem alone would not make monkeypatch restore a module that is not imported now.
    monkeypatch.setitem(sys.modules, "wave", sys)
    monkeypatch.delitem(sys.modules, "wave")
    with tensorflow_env._without_packages(["wave", "os"]):
        assert importlib.import_module("os") is os  # a package that is in use stays available
        with pytest.raises(ImportError):
            importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"
