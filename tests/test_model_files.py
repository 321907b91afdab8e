"""Hostile model files give a one-line error, run no code, write nothing and take little memory.

Damaged model files give a one-line error, too.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import seedtf
from seedtf.errors import UserError
from seedtf.model.archive import check_hdf5
from seedtf.model.network import build_network, load_model, save_model

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged model file; the hostile files below are made from its members."""
    path = tmp_path_factory.mktemp("good") / "model.keras"
    model = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    save_model(model, path)
    return path


def members_of(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_archive(path: Path, members: Members, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def with_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Members], Members]:
    """Makes a function that changes the configuration of an archive by ``change``."""

    def altered(members: Members) -> Members:
        config = json.loads(members["config.json"])
        change(config)
        return {**members, "config.json": json.dumps(config).encode()}

    return altered


def with_weights(make: Callable[[h5py.File], object]) -> Callable[[Members], Members]:
    """Makes a function that replaces the weights file of an archive by one that ``make`` fills."""

    def altered(members: Members) -> Members:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            make(file)
        return {**members, "model.weights.h5": buffer.getvalue()}

    return altered


def layer(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a layer in the configuration of a model."""
    return next(
        entry for entry in config["config"]["layers"] if entry["config"].get("name") == name
    )


def initializer(module: str, name: str, *arguments: object) -> Callable[[dict[str, Any]], None]:
    """A change that replaces the head's initializer by the call ``module.name(*arguments)``."""

    def change(config: dict[str, Any]) -> None:
        call = {"module": module, "class_name": name, "config": {"args": arguments}}
        layer(config, "logits")["config"]["kernel_initializer"] = {**call, "registered_name": name}

    return change


# Each of the next functions makes the configuration of a model hostile.


def huge_head(config: dict[str, Any]) -> None:
    layer(config, "logits")["config"]["units"] = 10**9


def huge_head_and_negative_layer(config: dict[str, Any]) -> None:
    huge_head(config)
    layer(config, "conv1")["config"]["filters"] = -(10**12)


def huge_kernel(config: dict[str, Any]) -> None:
    layer(config, "conv2")["config"]["kernel_size"] = [50_000, 50_000]


def embedding(config: dict[str, Any]) -> None:
    relu = layer(config, "conv1_relu")
    relu["class_name"] = "Embedding"
    relu["config"] = {"name": "conv1_relu", "input_dim": 10**8, "output_dim": 10**4}


def without_shape(config: dict[str, Any]) -> None:
    del layer(config, "logits")["build_config"]


def nested(config: dict[str, Any]) -> None:
    value: dict[str, Any] = {}
    for _ in range(200):
        value = {"config": value}
    config["config"]["deep"] = value


# Each of the next functions fills a weights file with something hostile.


def huge_array(file: h5py.File) -> None:
    file.create_dataset("a", (10**6, 10**6), "f4", chunks=(1000, 1000))


def zipped_array(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros((3000, 3000), "f4"), compression="gzip")


def virtual_array(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("a", layout)


def variable_length_strings(file: h5py.File) -> None:
    file.create_dataset("a", data=["x"], dtype=h5py.string_dtype())


def group_in_itself(file: h5py.File) -> None:
    group = file.create_group("a")
    group["again"] = group


HOSTILE_WEIGHTS = {
    "no weights": lambda file: None,
    "huge array": huge_array,
    "zipped array": zipped_array,
    "external array": lambda file: file.create_dataset(
        "a", (4,), "u1", external=[("/etc/hostname", 0, 4)]
    ),
    "virtual array": virtual_array,
    "variable-length strings": variable_length_strings,
    "external link": lambda file: file.__setitem__("a", h5py.ExternalLink("/tmp/x.h5", "/")),
    "soft link": lambda file: file.__setitem__("a", h5py.SoftLink("/b")),
    "group in itself": group_in_itself,
}
HOSTILE_CONFIGS = {
    "os.system": initializer("os", "system", "touch marker"),
    "eval": initializer("builtins", "eval", "open('marker', 'w')"),
    "subprocess": initializer("subprocess", "Popen", ["touch", "marker"]),
    "unsafe": initializer("keras.config", "enable_unsafe_deserialization"),
    "get_file": initializer("keras.utils", "get_file", "marker", "file:///etc/hostname"),
    "function of seedtf": initializer("seedtf.files", "write_text", "marker", "x"),
    "huge head": huge_head,
    "huge head and negative layer": huge_head_and_negative_layer,
    "huge kernel": huge_kernel,
    "embedding": embedding,
    "no shape": without_shape,
    "nested": nested,
}
HOSTILE_ARCHIVES: dict[str, Callable[[Members], Members]] = {
    "zip slip": lambda members: {**members, "../../marker": b"x"},
    "absolute name": lambda members: {**members, "/tmp/marker": b"x"},
    "assets": lambda members: {**members, "assets/marker": b"x"},
    "no config": lambda members: {k: v for k, v in members.items() if k != "config.json"},
    "foreign zip": lambda members: {"word/document.xml": b"<xml/>"},
    "no members": lambda members: {},
    "config is a list": lambda members: {**members, "config.json": b"[]"},
    "config is cut": lambda members: {**members, "config.json": members["config.json"][:-9]},
    "weights are text": lambda members: {**members, "model.weights.h5": b"hello" * 100},
    "weights are cut": lambda members: {
        **members,
        "model.weights.h5": members["model.weights.h5"][:-5000],
    },
    **{name: with_config(change) for name, change in HOSTILE_CONFIGS.items()},
    **{name: with_weights(make) for name, make in HOSTILE_WEIGHTS.items()},
}


@pytest.fixture(autouse=True)
def _no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Asserts after each test that no file named ``marker`` is where an archive could write it."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.rglob("*marker*"))
    for folder in (tmp_path.parent, tmp_path.parent.parent, Path("/tmp")):
        assert not list(folder.glob("*marker*"))


def assert_load_refused(path: Path) -> str:
    """Asserts that ``load_model`` refuses the file in one line; returns the message."""
    with pytest.raises(UserError) as error:
        load_model(path)
    message = str(error.value)
    assert message.startswith(f"{path}: the file is damaged or not a seedtf model; pass a .keras")
    assert "\n" not in message
    assert "file not found" not in message.lower()
    return message


def test_a_compiled_model_is_accepted(good: Path) -> None:
    assert load_model(good).get_layer("logits").units == 3


@pytest.mark.parametrize("name", HOSTILE_ARCHIVES)
def test_a_hostile_archive_is_refused_in_one_line(name: str, good: Path, tmp_path: Path) -> None:
    assert_load_refused(
        write_archive(tmp_path / "model.keras", HOSTILE_ARCHIVES[name](members_of(good)))
    )


def test_the_error_names_the_cause(good: Path, tmp_path: Path) -> None:
    causes = {
        "os.system": "(it uses 'system' of os, which no network of seedtf has)",
        "embedding": "(it uses 'Embedding' of keras.layers, which no network of seedtf has)",
        "huge head": "(its layers have more parameters than the file can contain)",
        "huge head and negative layer": "(its layers have more parameters than the file can contain)",
        "huge array": "(its arrays are larger than the file)",
        "external link": "('a' is a link)",
    }
    for name, cause in causes.items():
        path = write_archive(tmp_path / "model.keras", HOSTILE_ARCHIVES[name](members_of(good)))
        assert assert_load_refused(path).endswith(cause)


def test_a_lambda_layer_runs_nothing(tmp_path: Path) -> None:
    image = keras.Input((4,), name="image")
    code = keras.layers.Lambda(lambda x: (open("marker", "w").close(), x)[1], output_shape=(4,))
    keras.Model(image, code(image)).save(tmp_path / "model.keras")
    for marker in tmp_path.glob("marker"):
        marker.unlink()  # building the model has run the code; loading the model must not
    assert "'Lambda'" in assert_load_refused(tmp_path / "model.keras")


@pytest.mark.parametrize("size", [0, 1, 100, 50_000, -1])
def test_a_truncated_file_is_reported_as_damaged(size: int, good: Path, tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(good.read_bytes()[:size])
    assert_load_refused(tmp_path / "model.keras")


def test_a_compressed_bomb_is_not_unpacked(good: Path, tmp_path: Path) -> None:
    members = {**members_of(good), "config.json": b" " * 50_000_000 + b"{}"}
    path = write_archive(tmp_path / "model.keras", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 500_000
    assert assert_load_refused(path).endswith("(its members are larger than the file)")


def test_an_archive_of_python_objects_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", array=np.array([{"a": 1}], dtype=object))
    (tmp_path / "model.npz").rename(tmp_path / "model.keras")
    assert_load_refused(tmp_path / "model.keras")


# Files for --weights


def assert_weights_refused(path: Path) -> str:
    """Asserts that ``build_network`` refuses the file as initial weights; returns the message."""
    with pytest.raises(UserError) as error:
        build_network(model="tiny", num_classes=3, image_size=16, weights=str(path))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"--weights={path} ")
    return str(error.value)


@pytest.mark.parametrize("name", HOSTILE_WEIGHTS)
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_hostile_weights_are_refused_in_one_line(
    name: str, suffix: str, good: Path, tmp_path: Path
) -> None:
    members = with_weights(HOSTILE_WEIGHTS[name])(members_of(good))
    path = tmp_path / f"model{suffix}"
    if suffix == ".keras":
        write_archive(path, members)
    else:
        path.write_bytes(members["model.weights.h5"])
    assert "is damaged or has the wrong suffix" in assert_weights_refused(path)


@pytest.mark.parametrize(
    "name", ["foreign zip", "no members", "weights are text", "weights are cut"]
)
def test_other_archives_are_refused_as_weights(name: str, good: Path, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.keras", HOSTILE_ARCHIVES[name](members_of(good)))
    assert "is damaged or has the wrong suffix" in assert_weights_refused(path)


def test_only_the_weights_of_an_archive_are_read(good: Path, tmp_path: Path) -> None:
    """The configuration in this archive would run code, so it must not be read."""
    members = HOSTILE_ARCHIVES["os.system"](members_of(good))
    path = write_archive(tmp_path / "model.keras", {**members, "../../marker": b"x"})
    build_network(model="tiny", num_classes=3, image_size=16, weights=str(path))


def test_undamaged_weights_are_accepted(good: Path) -> None:
    weights = members_of(good)["model.weights.h5"]
    check_hdf5(io.BytesIO(weights), len(weights))


# The source code of seedtf

FORBIDDEN = re.compile(
    r"\b(pickle|marshal|shelve|dill|joblib)\b|safe_mode\s*=\s*False|allow_pickle\s*=\s*True|"
    r"\.extractall\(|\.extract\(|shutil\b.*\bunpack_archive|enable_unsafe_deserialization|\b(eval|exec)\(|"
    r"yaml\.load\(|torch\.load\("
)
ALLOWED = re.compile(r"allow_pickle=False|no pickle", re.IGNORECASE)


def test_no_source_file_can_run_what_it_loads() -> None:
    sources = sorted(Path(seedtf.__file__).parent.rglob("*.py"))
    assert len(sources) > 40
    matches = [
        f"{source.name}:{number}: {line.strip()}"
        for source in sources
        for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), start=1)
        if FORBIDDEN.search(ALLOWED.sub("", line))
    ]
    assert matches == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "load_model(p, safe_mode=False)",
        "np.load(p, allow_pickle=True)",
        "z.extractall()",
        "shutil.unpack_archive(path)",
        "from shutil import unpack_archive",
    ],
)
def test_the_pattern_finds_forbidden_code(line: str) -> None:
    assert FORBIDDEN.search(line)
