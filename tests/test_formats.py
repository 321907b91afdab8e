"""LiteRT and ONNX files, run by their own runtimes, predict as the model does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.export import formats, parity_worker
from seedtf.export.formats import OPTIONAL_FORMATS, convert, parse_formats, rebuild_in_float32
from seedtf.export.parity import Parity, compare_pixels
from seedtf.export.serving_graph import ServingModule
from seedtf.model.network import build_network

SIZE, NAMES = 16, ("a", "b", "c", "d")
TEMPERATURE = 1.5


def make_network(policy: str = "float32") -> keras.Model:
    """A network whose logits are scaled up, so that its predictions differ between images."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        keras.utils.set_random_seed(1)
        model = build_network(model="tiny", num_classes=4, image_size=SIZE, weights="none")
    finally:
        keras.mixed_precision.set_global_policy(before)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 8, bias])
    return model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Images of noise, each around a colour of its own: uint8 ``[60, SIZE, SIZE, 3]``."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (60, 1, 1, 3))
    return np.clip(colors + rng.integers(-40, 40, (60, SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ServingModule:
    classes = tmp_path_factory.mktemp("classes") / "classes.txt"
    classes.write_text("\n".join(NAMES))
    return ServingModule(make_network(), NAMES, TEMPERATURE, str(classes))


@pytest.fixture(scope="module")
def expected(module: ServingModule, pixels: np.ndarray) -> np.ndarray:
    probabilities = module.probabilities(tf.constant(pixels, tf.float32)).numpy()
    assert len(set(probabilities.argmax(1))) > 1
    return probabilities


@pytest.fixture(scope="module")
def convert_once(module: ServingModule, pixels: np.ndarray) -> Callable[[str], bytes]:
    """Converts ``module`` to a format once and returns the content of the file."""
    return cache(lambda name: convert(module, name, pixels))


def compare_here(name: str, path: Path, pixels: np.ndarray, expected: np.ndarray) -> Parity:
    """Compares as ``compare_pixels`` does, but in this process."""
    request = {"pixels": pixels, "probabilities": expected}
    runtime = OPTIONAL_FORMATS[name].runtime
    return Parity.of(name, parity_worker.evaluate(runtime, str(path), request))


def skip_without_packages_of(name: str) -> None:
    for package in OPTIONAL_FORMATS[name].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")


@pytest.mark.parametrize("name", OPTIONAL_FORMATS)
def test_each_format_agrees_in_its_own_runtime(
    name: str,
    convert_once: Callable[[str], bytes],
    pixels: np.ndarray,
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    skip_without_packages_of(name)
    path = tmp_path / OPTIONAL_FORMATS[name].file
    path.write_bytes(convert_once(name))
    row = compare_pixels(name, OPTIONAL_FORMATS[name].runtime, path, pixels, expected)
    assert not row.fault
    assert row.images == 60
    # A comparison with the probabilities of the classes in reverse order must report a fault.
    assert compare_here(name, path, pixels, expected[:, ::-1]).fault


def test_int8_takes_unscaled_pixels(
    module: ServingModule, convert_once: Callable[[str], bytes], pixels: np.ndarray
) -> None:
    skip_without_packages_of("litert_int8")
    from ai_edge_litert.interpreter import Interpreter

    narrow = pixels // 2 + 40  # calibration images that reach neither 0 nor 255
    content = convert(module, "litert_int8", narrow)
    assert len(content) < len(convert_once("litert")) / 2
    interpreter = Interpreter(model_content=content)
    details = interpreter.get_input_details()[0]
    assert details["dtype"] == np.uint8
    assert details["quantization"] == (pytest.approx(1.0), 0)


def test_an_onnx_file_keeps_names_and_constants(pixels: np.ndarray, tmp_path: Path) -> None:
    skip_without_packages_of("onnx")
    import onnxruntime

    # The layer Normalization has constants that are not weights, as EfficientNet has.
    image = keras.Input((SIZE, SIZE, 3), name="image")
    normal = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(image)
    pooled = keras.layers.GlobalAveragePooling2D()(normal)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(pooled))
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    module = ServingModule(model, NAMES, 1.0, str(tmp_path / "classes.txt"))
    session = onnxruntime.InferenceSession(convert(module, "onnx", pixels))
    assert [node.name for node in session.get_inputs()] == ["pixels"]
    assert [node.name for node in session.get_outputs()] == ["probabilities"]
    images = pixels[:5].astype(np.float32)
    actual = session.run(None, {"pixels": images})[0]
    np.testing.assert_allclose(actual, module.probabilities(tf.constant(images)), atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_mixed_precision_model_is_rebuilt_in_float32(policy: str, pixels: np.ndarray) -> None:
    trained = make_network(policy)
    rebuilt = rebuild_in_float32(trained)
    assert {layer.compute_dtype for layer in rebuilt.layers} == {"float32"}
    exact = make_network().predict(pixels, verbose=0)
    np.testing.assert_allclose(rebuilt.predict(pixels, verbose=0), exact, atol=1e-6)
    assert np.abs(trained.predict(pixels, verbose=0) - exact).max() > 1e-6
    assert rebuild_in_float32(rebuilt) is rebuilt


def test_probabilities_that_are_not_finite_are_a_fault(
    pixels: np.ndarray, expected: np.ndarray, tmp_path: Path
) -> None:
    skip_without_packages_of("onnx")
    model = make_network()
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * np.nan, bias])
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    broken = ServingModule(model, NAMES, 1.0, str(tmp_path / "classes.txt"))
    path = tmp_path / "model.onnx"
    path.write_bytes(convert(broken, "onnx", pixels))
    assert "not finite" in compare_here("onnx", path, pixels, expected).fault


def test_a_converter_that_fails_is_a_user_error(
    module: ServingModule, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: ServingModule) -> bytes:
        raise RuntimeError("no such op\nat node 5")

    monkeypatch.setattr(formats, "_to_onnx", refuse)
    with pytest.raises(UserError, match=r"^--format=onnx: .*\(no such op\); leave onnx out$"):
        convert(module, "onnx", pixels)


def test_format_names_are_parsed_and_need_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert parse_formats("saved_model") == ()
    assert parse_formats("onnx, saved_model,litert") == ("litert", "onnx")
    with pytest.raises(UserError, match="--format=tflite: choose from saved_model, litert"):
        parse_formats("saved_model,tflite")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert parse_formats("saved_model") == ()
    with pytest.raises(UserError, match=r"tf2onnx.*pip install 'seedtf\[export\]'"):
        parse_formats("onnx")
