"""An export predicts as the evaluation does, or is not written; its signatures do not change."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import Shared
from PIL import Image

from seedtf.commands import export as command
from seedtf.commands.main import run_command
from seedtf.errors import UserError
from seedtf.evaluation.classifier import open_classifier
from seedtf.export import export, parity, parity_worker, serving_graph
from seedtf.export.warmup import WARMUP_FILE, example_jpeg, write_warmup
from seedtf.images.header import RefusedError
from seedtf.model.network import build_network, save_model
from seedtf.runs.folder import read_temperature
from seedtf.runs.open import Run, load_run, open_validation
from seedtf.runs.paths import RunPaths
from seedtf.runs.saved_model import ImageSettings, read_image_settings

SIZE, TEMPERATURE = 24, 1.6
NAMES = ("alder", "two words", "öland rye")
OUTPUTS = {
    "probabilities": (tf.float32, [None, 3]),
    "classes": (tf.string, [None, 3]),
    "scores": (tf.float32, [None, 3]),
    "class_name": (tf.string, [None]),
    "confidence": (tf.float32, [None]),
}


def draw_image(number: int) -> Image.Image:
    """Noisy blocks of colour; sizes and content differ from image to image."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (3, 2, 3), dtype=np.uint8).repeat(17 + number, 0).repeat(31, 1)
    noise = rng.integers(-20, 20, blocks.shape)
    return Image.fromarray(np.clip(blocks + noise, 0, 255).astype(np.uint8))


def write_images(root: Path) -> list[str]:
    """Writes 24 images of eight kinds to three class folders; returns their paths below ``root``."""
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("RGB", "jpg", {"exif": turned}),
        ("RGB", "jpg", {"progressive": True}),
        ("CMYK", "jpg", {}),
        ("L", "png", {}),
        ("RGBA", "png", {}),
        ("P", "png", {}),
        ("RGB", "bmp", {}),
        ("RGB", "webp", {"lossless": True}),
    ]
    paths = []
    for number in range(24):
        mode, suffix, options = kinds[number % 8]
        image = draw_image(number).convert(mode)
        if mode == "RGBA":
            image.putalpha(Image.linear_gradient("L").resize(image.size))
        paths.append(f"{NAMES[number % 3]}/{number}.{suffix}")
        (root / paths[-1]).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / paths[-1], **options)
    return paths


def make_sensitive_network(policy: str = "float32") -> keras.Model:
    """A network whose predictions differ from image to image and depend on every pixel."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        keras.utils.set_random_seed(3)
        model = build_network(model="tiny", num_classes=3, image_size=SIZE, weights="none")
    finally:
        keras.mixed_precision.set_global_policy(before)
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 10, bias])
    return model


def write_run(folder: Path) -> None:
    """Writes the folder of a run as if it had been trained in mixed precision and evaluated."""
    data = folder / "data"
    rows = [f"{path},{path.split('/')[0]},val\n" for path in write_images(data)]
    (folder / "checkpoints").mkdir()
    (folder / "report").mkdir()
    save_model(make_sensitive_network("mixed_bfloat16"), folder / "checkpoints" / "best.keras")
    settings = {
        "image_size": SIZE,
        "fit": "pad",  # an export that stretched the images would differ from the evaluation
        "cache_dir": str(folder / "cache"),
        "resolved": {"data_root": str(data), "precision": "mixed_bfloat16"},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES), "utf-8")
    (folder / "split.csv").write_text("file,label,split\n" + "".join(rows), "utf-8")
    (folder / "report" / "report.json").write_text(json.dumps({"temperature": TEMPERATURE}))


@pytest.fixture(scope="module")
def run(shared: Shared) -> Run:
    def write(folder: Path) -> None:
        write_run(folder)
        open_validation(load_run(folder))  # makes the cache, so that no test changes the folder

    return load_run(shared("export-run", write))


@pytest.fixture(scope="module")
def exported(run: Run, shared: Shared) -> export.Exported:
    def write(folder: Path) -> None:
        result = export.export_run(run, folder / "model", *open_validation(run))
        (folder / "exported.pickle").write_bytes(pickle.dumps(result))

    return pickle.loads((shared("export-served", write) / "exported.pickle").read_bytes())


@pytest.fixture(scope="module")
def signatures(exported: export.Exported) -> dict[str, Any]:
    loaded = tf.saved_model.load(str(exported.folder))
    # The loaded object is returned with its signatures, because they do not keep it alive.
    return {**loaded.signatures, "loaded": loaded}


@pytest.fixture
def _worker_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compares in this process, because a second process would take seconds to import TensorFlow."""

    def run_worker(name: str, runtime: str, model: Path, request: dict[str, Any]) -> parity.Parity:
        return parity.Parity.of(name, parity_worker.evaluate(runtime, str(model), request))

    monkeypatch.setattr(parity, "_run_worker", run_worker)


def read_files(run: Run) -> list[bytes]:
    store, _ = open_validation(run)
    return [Path(path).read_bytes() for path in store.catalog.absolute_paths()]


def classify(signatures: dict[str, Any], contents: list[bytes]) -> dict[str, np.ndarray]:
    outputs = signatures["serving_default"](image_bytes=tf.constant(contents, tf.string))
    return {name: value.numpy() for name, value in outputs.items()}


def test_the_signatures_are_what_clients_rely_on(signatures: dict[str, Any]) -> None:
    inputs = {
        "serving_default": ("image_bytes", tf.string, [None]),
        "image": ("image", tf.uint8, [None, None, None, 3]),
        "pixels": ("pixels", tf.float32, [None, SIZE, SIZE, 3]),
    }
    outputs = {
        "serving_default": {**OUTPUTS, "status": (tf.string, [None])},
        "image": OUTPUTS,
        "pixels": {"probabilities": OUTPUTS["probabilities"]},
    }
    for name, (argument, dtype, shape) in inputs.items():
        _, arguments = signatures[name].structured_input_signature
        assert {k: (v.dtype, v.shape.as_list()) for k, v in arguments.items()} == {
            argument: (dtype, shape)
        }
        results = signatures[name].structured_outputs
        assert {k: (v.dtype, v.shape.as_list()) for k, v in results.items()} == outputs[name]
        # TensorFlow Serving would encode a string output of such a name in base64.
        assert not any(output.endswith("_bytes") for output in results)


def test_saved_model_cli_shows_the_signature(exported: export.Exported) -> None:
    arguments = f"show --dir {exported.folder} --tag_set serve --signature_def serving_default"
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *arguments.split()]
    completed = forked.run_python(command)
    assert completed.returncode == 0, completed.stderr
    shown = " ".join(completed.stdout.split())
    assert "inputs['image_bytes'] tensor_info: dtype: DT_STRING shape: (-1)" in shown
    assert "outputs['probabilities'] tensor_info: dtype: DT_FLOAT shape: (-1, 3)" in shown
    assert "Method name is: tensorflow/serving/predict" in shown


def test_the_version_folder_is_complete(run: Run, exported: export.Exported) -> None:
    assert exported.folder.name == str(exported.version) == "1"
    names = sorted(path.name for path in exported.folder.parent.iterdir())
    assert names == ["1", "parity.json"]
    classes = (exported.folder / "assets" / "classes.txt").read_text("utf-8")
    assert tuple(classes.splitlines()) == run.class_names == NAMES
    facts = json.loads((exported.folder.parent / "parity.json").read_text("utf-8"))
    assert facts == json.loads((exported.folder / "assets.extra/parity.json").read_text("utf-8"))
    assert facts["fit"] == "pad"
    assert read_image_settings(exported.folder) == ("pad", facts["max_pixels"])
    # Without the file, as in an export of an older release, the settings are the defaults.
    assert read_image_settings(exported.folder.parent) == ImageSettings("stretch", 100_000_000)
    (row,) = facts["rows"]
    assert (row["format"], row["images"], row["top1_agreement"]) == ("saved_model", 24, 1.0)
    assert row["max_abs_difference"] <= 1e-4
    # The export computes in float32 and the trained model in mixed precision, so they differ.
    assert 1e-6 < facts["as_trained"]["max_abs_difference"] < 0.1
    assert (facts["temperature"], facts["temperature_fitted"]) == (TEMPERATURE, True)


def test_files_are_classified_as_training_sees_the_images(
    run: Run, signatures: dict[str, Any]
) -> None:
    store, records = open_validation(run)
    logits = make_sensitive_network()
    logits = keras.Model(logits.input, logits.get_layer("logits").output)
    pixels = store.read(tf.constant(records))
    expected = tf.nn.softmax(logits(pixels, training=False) / TEMPERATURE, axis=-1).numpy()
    outputs = classify(signatures, read_files(run))
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    assert len(set(expected.argmax(1))) > 1
    by_pixels = signatures["pixels"](pixels=tf.cast(pixels, tf.float32))["probabilities"]
    np.testing.assert_allclose(by_pixels, expected, atol=1e-5)


def test_classes_and_scores_are_sorted_by_probability(run: Run, signatures: dict[str, Any]) -> None:
    outputs = classify(signatures, read_files(run))
    for number, probabilities in enumerate(outputs["probabilities"]):
        ranked = sorted(zip(-probabilities, NAMES, strict=True))
        assert [name.decode() for name in outputs["classes"][number]] == [n for _, n in ranked]
        np.testing.assert_array_equal(outputs["scores"][number], -np.sort(-probabilities))
    np.testing.assert_array_equal(outputs["class_name"], outputs["classes"][:, 0])
    np.testing.assert_array_equal(outputs["confidence"], outputs["probabilities"].max(1))
    assert set(outputs["status"]) == {b"ok"}


def test_a_prediction_does_not_depend_on_its_batch(run: Run, signatures: dict[str, Any]) -> None:
    contents = read_files(run)[:7]
    batched = classify(signatures, contents)["probabilities"]
    single = [classify(signatures, [image])["probabilities"][0] for image in contents]
    np.testing.assert_allclose(batched, single, atol=1e-6)


def test_bad_files_do_not_fail_the_rest_of_the_batch(run: Run, signatures: dict[str, Any]) -> None:
    good = read_files(run)
    png = next(content for content in good if content.startswith(b"\x89PNG"))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1  # a bit of the pixels, which only the decoder's checksum can detect
    buffer = io.BytesIO()
    draw_image(0).convert("P").save(buffer, "BMP")
    bad = {
        b"": b"empty file",
        b"<html>404</html>": b"not an image",
        good[0][:-2]: b"corrupt",
        good[0][:60]: b"truncated",
        png[:-30]: b"truncated",
        bytes(flipped): b"corrupt",
        buffer.getvalue(): b"unsupported variant",
        png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:]: b"too large",
        # A file of 57 bytes that announces a chunk of a gigabyte.
        png[:33] + struct.pack(">I4s", 2**30, b"tEXt") + bytes(16): b"truncated",
    }
    contents = [good[1], *bad, good[2]]
    outputs = classify(signatures, contents)
    assert outputs["status"].tolist() == [b"ok", *bad.values(), b"ok"]
    expected = classify(signatures, [good[1], good[2]])["probabilities"]
    np.testing.assert_allclose(outputs["probabilities"][[0, -1]], expected, atol=1e-6)
    assert not outputs["probabilities"][1:-1].any()
    assert not outputs["confidence"][1:-1].any()
    assert set(outputs["class_name"][1:-1]) == {b""}
    # A batch may consist of bad files only.
    assert classify(signatures, [b"x"])["status"].tolist() == [b"not an image"]


def test_empty_inputs_and_wrong_shapes_fail_the_whole_request(signatures: dict[str, Any]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        classify(signatures, [])
    with pytest.raises(tf.errors.InvalidArgumentError):
        signatures["image"](image=tf.zeros([2, 0, 5, 3], tf.uint8))
    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        signatures["serving_default"](image_bytes=tf.constant([[b"x"]]))


def test_images_of_any_size_are_resized_as_in_training(
    run: Run, signatures: dict[str, Any]
) -> None:
    store, records = open_validation(run)
    bmp_indices = [i for i, path in enumerate(store.catalog.paths) if path.endswith(".bmp")]
    expected = classify(signatures, [read_files(run)[i] for i in bmp_indices])["probabilities"]
    for row, index in enumerate(bmp_indices):
        image = np.asarray(Image.open(store.catalog.absolute_paths()[index]))
        pair = tf.constant(np.stack([image, image]))
        actual = signatures["image"](image=pair)["probabilities"]
        np.testing.assert_allclose(actual, expected[[row, row]], atol=1e-6)
        same_size = signatures["image"](image=store.read(tf.constant(records[[index]])))
        np.testing.assert_allclose(same_size["probabilities"], expected[[row]], atol=1e-6)


def test_the_graph_has_no_python_and_no_custom_op(exported: export.Exported) -> None:
    from tensorflow.core.protobuf import saved_model_pb2
    from tensorflow.python.framework import op_def_registry

    saved = saved_model_pb2.SavedModel.FromString((exported.folder / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    nodes = [*graph.graph_def.node]
    function_names = {function.signature.name for function in graph.graph_def.library.function}
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    ops = {node.op for node in nodes} - function_names
    assert len(ops) > 50
    assert all(op_def_registry.get(op) is not None for op in ops)
    assert not [op for op in ops if "Py" in op]
    assert not any("gpu" in node.device.lower() for node in nodes)


def test_small_networks_have_constants_and_large_ones_variables(
    exported: export.Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = exported.folder / "variables" / "variables.data-00000-of-00001"
    assert variables.stat().st_size < 1000
    (tmp_path / "classes.txt").write_text("")
    arguments = (make_sensitive_network(), NAMES, TEMPERATURE, str(tmp_path / "classes.txt"))
    small = serving_graph.ServingModule(*arguments)
    monkeypatch.setattr(serving_graph, "_MAX_CONSTANTS", 1000)
    large = serving_graph.ServingModule(*arguments)
    assert (len(small.variables), len(large.variables)) == (0, len(arguments[0].variables))
    pixels = tf.random.stateless_uniform([3, SIZE, SIZE, 3], (0, 1), 0.0, 255.0)
    np.testing.assert_allclose(small.probabilities(pixels), large.probabilities(pixels), atol=1e-6)


def test_warm_up_requests_run(exported: export.Exported, signatures: dict[str, Any]) -> None:
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="tensorflow-serving-api not installed"
    )
    records = list(tf.data.TFRecordDataset(str(exported.folder / WARMUP_FILE)))
    assert 1 <= len(records) <= 1000
    seen = set()
    for record in records:
        log = logs.PredictionLog.FromString(record.numpy())
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](
            **{name: tf.constant(value) for name, value in inputs.items()}
        )
        assert set(outputs.get("status", tf.constant([b"ok"])).numpy()) == {b"ok"}
        seen.add((request.model_spec.signature_name, *inputs))
    assert seen == {("serving_default", "image_bytes"), ("image", "image"), ("pixels", "pixels")}


def test_warm_up_images_are_within_the_limit_of_the_export(tmp_path: Path) -> None:
    write_warmup(tmp_path, 24, 1000)  # images of twice the size, 48 × 48, would exceed 1,000 pixels
    record = next(iter(tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE)))).numpy()
    image = Image.open(io.BytesIO(record[record.index(b"\xff\xd8\xff") :]))
    assert image.size == (31, 31)


def test_grpc_request_and_response_fit_the_signature(run: Run, signatures: dict[str, Any]) -> None:
    apis = pytest.importorskip(
        "tensorflow_serving.apis.predict_pb2", reason="tensorflow-serving-api not installed"
    )
    request = apis.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "seedlings", "serving_default"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(read_files(run)[:2], shape=[2]))
    received = apis.PredictRequest.FromString(request.SerializeToString())
    value = tf.make_ndarray(received.inputs["image_bytes"])
    outputs = signatures["serving_default"](image_bytes=tf.constant(value))
    response = apis.PredictResponse()
    for name, tensor in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(tensor.numpy()))
    shapes = {
        name: [dim.size for dim in proto.tensor_shape.dim]
        for name, proto in response.outputs.items()
    }
    assert shapes["probabilities"] == shapes["classes"] == shapes["scores"] == [2, 3]
    assert shapes["class_name"] == shapes["confidence"] == shapes["status"] == [2]


def test_openvino_serves_the_pixels_without_tensorflow(
    run: Run, exported: export.Exported, signatures: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    from tensorflow.core.protobuf import saved_model_pb2

    # OpenVINO reads only the signature serving_default, but it cannot decode the image files that this
    # signature takes. Therefore ``pixels`` is renamed to serving_default in a copy of the export.
    copy = Path(shutil.copytree(exported.folder, tmp_path / "copy"))
    saved = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    signature = saved.meta_graphs[0].signature_def
    signature["serving_default"].CopyFrom(signature["pixels"])
    del signature["pixels"], signature["image"]
    (copy / "saved_model.pb").write_bytes(saved.SerializeToString())
    store, records = open_validation(run)
    pixels = store.read(tf.constant(records)).numpy().astype(np.float32)
    np.save(tmp_path / "pixels.npy", pixels)
    code = (
        "import sys, numpy as np, openvino as ov; copy, pixels, out = sys.argv[1:]\n"
        "exact = {'INFERENCE_PRECISION_HINT': 'f32'}\n"
        "model = ov.compile_model(ov.convert_model(copy), 'CPU', exact)\n"
        "np.save(out, model(np.load(pixels))[0]); assert 'tensorflow' not in sys.modules\n"
    )
    paths = [str(tmp_path / name) for name in ("copy", "pixels.npy", "probabilities.npy")]
    completed = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    actual = np.load(tmp_path / "probabilities.npy")
    expected = classify(signatures, read_files(run))["probabilities"]
    np.testing.assert_array_equal(actual.argmax(1), expected.argmax(1))
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.usefixtures("_worker_in_this_process")
def test_an_export_that_sees_other_pixels_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_antialias(image: tf.Tensor, size: int, _: str) -> tf.Tensor:
        scaled = tf.image.resize(image, [size, size])
        return tf.ensure_shape(tf.saturate_cast(tf.round(scaled), tf.uint8), [size, size, 3])

    monkeypatch.setattr(serving_graph, "resize_image", without_antialias)
    with pytest.raises(UserError, match="does not predict as the evaluation does"):
        export.export_run(run, tmp_path / "out", *open_validation(run))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("_worker_in_this_process")
def test_a_format_that_disagrees_with_the_model_is_left_out_and_the_rest_exported(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    convert = export.convert

    def convert_with_reversed_ranking(module: Any, name: str, calibration: np.ndarray) -> bytes:
        temperature = module._temperature
        module._temperature = -temperature
        try:
            return convert(module, name, calibration)
        finally:
            module._temperature = temperature

    monkeypatch.setattr(export, "convert", convert_with_reversed_ranking)
    out = tmp_path / "out"
    limit = 5_000  # the images have 3,162 to 7,440 pixels
    arguments = [str(run.run_dir), f"--out={out}", "--format=litert", f"--max_pixels={limit}"]
    assert run_command("export", arguments) == command.EXIT_INCOMPLETE
    assert (out / "1" / "saved_model.pb").is_file()
    assert not (out / "1" / "assets.extra" / "model.tflite").exists()
    facts = json.loads((out / "parity.json").read_text("utf-8"))
    assert [(row["format"], row["kept"], row["images"]) for row in facts["rows"]] == [
        ("saved_model", True, 10),
        ("litert", False, 24),
    ]
    captured = capsys.readouterr()
    printed = captured.out.splitlines()
    assert "--max_pixels=5000: 14 of 24 images are larger and were not compared" in captured.out
    assert facts["max_pixels"] == limit
    classifier = open_classifier(out)
    assert classifier.max_pixels == limit
    files = [tf.io.encode_png(tf.zeros([50, width, 3], tf.uint8)).numpy() for width in (100, 101)]
    classifier.prepare(files[0])
    with pytest.raises(RefusedError, match="101×50 is more than 5000 pixels"):
        classifier.prepare(files[1])
    assert any(line.startswith("not kept  litert: ") for line in printed)
    result = json.loads(printed[-1].removeprefix("RESULT "))
    assert result["formats"] == {"saved_model": True, "litert": False}
    assert (result["version"], result["temperature"]) == (1, TEMPERATURE)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs ``seedtf export``, which must fail; returns the one line that it prints on stderr."""
    assert run_command("export", list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_wrong_runs_and_flags_give_a_one_line_error(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such run" in refusal(capsys, str(tmp_path / "none"))
    assert "not a run" in refusal(capsys, str(tmp_path))
    limit = [str(run.run_dir), f"--out={tmp_path / 'new'}", "--max_pixels=1024"]
    assert "--max_pixels=1024: too small for every image" in refusal(capsys, *limit)
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").write_text("")
    out = f"--out={tmp_path / 'file'}"
    assert "pass a folder that can be written" in refusal(capsys, str(run.run_dir), out)
    assert "choose from" in refusal(capsys, str(run.run_dir), "--format=h5")
    assert "--max_pixels=-1: out of range" in refusal(capsys, str(run.run_dir), "--max_pixels=-1")
    assert "is missing" in refusal(capsys)
    for flag in ("--labels_csv=t.csv", "--file_column=f", "--label_column=2", "--layout=table"):
        assert f"{flag}: needs --data_dir, the folder" in refusal(capsys, str(run.run_dir), flag)
    copy = Path(shutil.copytree(run.run_dir, tmp_path / "copy"))
    model = copy / "checkpoints" / "best.keras"
    model.write_bytes(model.read_bytes()[:-100])
    assert "damaged" in refusal(capsys, str(copy))
    (copy / "report" / "report.json").write_text('{"temperature": 0}')
    assert "not a positive number" in refusal(capsys, str(copy))
    assert list((copy / "export").iterdir()) == []


@pytest.mark.parametrize(
    ("report", "expected"),
    [(None, None), ("{}", None), ('{"temperature": null}', None), ('{"temperature": 2}', 2.0)],
)
def test_the_temperature_of_a_report_is_read_and_is_none_if_it_is_missing(
    tmp_path: Path, report: str | None, expected: Any
) -> None:
    if report is not None:
        (tmp_path / "report").mkdir()
        (tmp_path / "report" / "report.json").write_text(report)
    assert read_temperature(RunPaths(tmp_path).report) == expected


def test_the_warm_up_image_is_a_jpeg_of_its_size() -> None:
    image = Image.open(io.BytesIO(example_jpeg(50)))
    assert (image.format, image.size, image.mode) == ("JPEG", (50, 50), "RGB")
