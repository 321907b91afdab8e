"""``seedtf predict`` writes a row per file with the probabilities of ``seedtf evaluate``.

Its table may be one of several shards or a submission, and is written completely or not at all.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_run import copy_run, make_run

from seedtf.commands.main import main
from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier, Prediction, open_classifier
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.predict import list_images, predict_files, write_predictions
from seedtf.evaluation.submission import read_sample, write_submission
from seedtf.images.header import RefusedError
from seedtf.runs.open import load_run, open_validation

pytestmark = pytest.mark.usefixtures("module_without_figures")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, tiny_folder):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_folder)


@pytest.fixture(scope="module")
def classifier(run_dir):
    return open_classifier(run_dir)


@pytest.fixture
def flat(tmp_path, tiny_folder):
    """A folder of two images, three files that cannot be used, and two files that are skipped."""
    folder = tmp_path / "flat"
    (folder / "deep").mkdir(parents=True)
    good = (tiny_folder / "alder" / "0.png").read_bytes()
    (folder / "b good.png").write_bytes(good)
    (folder / "deep" / "a.PNG").write_bytes(good)
    (folder / "cut.png").write_bytes(good[:-30])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(good)
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder


def read_csv(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content_as_class(content):
    """The prediction of a stub model: the class is the text in the file."""
    return Prediction((content.decode(),), (np.float32(1),))


def stub_classifier(
    prepare=lambda data: data,
    classify=lambda contents, k: [content_as_class(content) for content in contents],
):
    return Classifier(num_classes=3, prepare=prepare, classify=classify)


def write_files(folder, count):
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:03}.png").write_text(f"class {index}")
    return folder


def test_predict_gives_the_probabilities_of_evaluate(run_dir, tmp_path, tiny_folder):
    evaluated = evaluate_run(str(run_dir)).report.predictions
    inputs = [str(tiny_folder / path) for path in reversed(evaluated.paths)]
    out = tmp_path / "p.csv"
    assert main(["predict", str(run_dir), *inputs, f"--out={out}", "--batch_size=4"]) == 0
    rows = read_csv(out)
    assert [row["file"] for row in rows] == inputs
    for row, expected in zip(rows, evaluated.probabilities[::-1], strict=True):
        probability_of = {row[f"top{k}"]: float(row[f"p{k}"]) for k in (1, 2, 3)}
        probabilities = [probability_of[name] for name in evaluated.class_names]
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
        assert row["top1"] == evaluated.class_names[expected.argmax()]


def test_tta_gives_the_probabilities_of_evaluate_with_tta(run_dir, tmp_path, tiny_folder):
    report = evaluate_run(str(run_dir), tta=8, out=str(tmp_path / "report")).report
    path = str(tiny_folder / report.predictions.paths[0])
    assert main(["predict", str(run_dir), path, f"--out={tmp_path / 'p.csv'}", "--tta=8"]) == 0
    (row,) = read_csv(tmp_path / "p.csv")
    assert float(row["p1"]) == pytest.approx(report.predictions.confidence[0], abs=1e-6)


def test_every_file_has_a_row_with_its_status(run_dir, flat, tmp_path, capsys):
    out = tmp_path / "p.csv"
    # Exit code 3: some files have no prediction.
    assert main(["predict", str(run_dir), str(flat), f"--out={out}", "--topk=2"]) == 3
    rows = read_csv(out)
    assert list(rows[0]) == ["file", "status", "top1", "p1", "top2", "p2"]
    assert [(os.path.relpath(row["file"], flat), row["status"]) for row in rows] == [
        ("b good.png", "ok"),
        ("cut.png", "truncated"),
        ("deep/a.PNG", "ok"),
        ("empty.jpg", "empty file"),
        ("notes.txt", "not an image"),
    ]
    assert [bool(row["top1"]) for row in rows] == [True, False, True, False, False]
    shown = capsys.readouterr()
    assert "3 of 5 have no prediction, first" in shown.err
    result = json.loads(shown.out.splitlines()[-1].removeprefix("RESULT "))
    assert result == {"out": str(out), "files": 5, "bad": 3}


def test_a_dangling_link_has_a_row(classifier, flat, tmp_path):
    (flat / "z.png").symlink_to(flat / "nowhere.png")
    counts = write_predictions(classifier, [str(flat)], tmp_path / "p", topk=1, batch_size=2)
    assert (counts.num_files, counts.num_bad) == (6, 4)
    assert read_csv(tmp_path / "p")[-1]["status"] == "unreadable"


def test_a_named_pipe_does_not_block(classifier, flat, tmp_path):
    os.mkfifo(flat / "z.jpg")
    pipe = os.open(flat / "z.jpg", os.O_RDWR)
    # A read from the pipe would block until the timer closes the pipe; the timer would then no longer
    # be alive.
    close_pipe = threading.Timer(5, os.close, [pipe])
    close_pipe.start()
    counts = write_predictions(classifier, [str(flat)], tmp_path / "p", topk=1, batch_size=2)
    assert close_pipe.is_alive()
    close_pipe.cancel()
    os.close(pipe)
    assert (counts.num_files, counts.num_bad) == (6, 4)
    assert read_csv(tmp_path / "p")[-1]["status"] == "unreadable"


@pytest.mark.parametrize(("max_pixels", "status"), [(319, "too large"), (320, "ok")])
def test_the_pixel_limit_of_the_run_applies(run_dir, flat, tmp_path, max_pixels, status):
    run = load_run(copy_run(run_dir, tmp_path / "run"))
    settings = {**run.settings, "max_pixels": max_pixels, "cache_dir": str(tmp_path / "cache")}
    (run.run_dir / "config.json").write_text(json.dumps(settings))
    model, image_path = open_classifier(run.run_dir), str(flat / "b good.png")  # of 20×16 pixels
    write_predictions(model, [image_path], tmp_path / "p", topk=1, batch_size=2)
    assert read_csv(tmp_path / "p")[0]["status"] == status
    if status == "ok":
        _, indices = open_validation(load_run(run.run_dir))
        assert len(indices)
    else:
        with pytest.raises(UserError, match="can be decoded"):
            open_validation(load_run(run.run_dir))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_batch_size_does_not_change_the_rows(flat, tmp_path, batch_size):
    inputs = [str(write_files(tmp_path / "many", 10)), str(flat)]

    def prepare(data):
        if data.startswith(b"class 5") or data == b"no image":
            raise RefusedError("corrupt", "on purpose")
        return data[:8]  # all of "class N", or the PNG signature

    counts = write_predictions(
        stub_classifier(
            prepare,
            lambda contents, k: [
                Prediction((str(content),), (np.float32(1),)) for content in contents
            ],
        ),
        inputs,
        tmp_path / "p.csv",
        topk=1,
        batch_size=batch_size,
    )
    rows = read_csv(tmp_path / "p.csv")
    # The PNG signature is not UTF-8; the class is therefore str(bytes).
    assert [row["top1"] for row in rows[:10]] == [
        "" if index == 5 else str(f"class {index}".encode()) for index in range(10)
    ]
    assert (counts.num_files, counts.num_bad) == (15, 2)


@settings(deadline=None, max_examples=15)
@given(
    num_files=st.integers(1, 9),
    num_shards=st.integers(1, 12),
    suffix=st.sampled_from(["csv", "parquet"]),
)
def test_the_shards_in_order_are_the_whole_table(tmp_path_factory, num_files, num_shards, suffix):
    """Every file is in exactly one shard, also with more shards than files and with bad files."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("shards")
    photos = write_files(folder / "photos", num_files)
    (photos / "000.txt").touch()
    classifier = stub_classifier(refuse_empty)

    def predict_shard(name, shard):
        out = folder / f"{name}.{suffix}"
        write_predictions(classifier, [str(photos)], out, topk=1, batch_size=2, shard=shard)
        return read_table(out)

    parts = [predict_shard(number, (number, num_shards)) for number in range(1, num_shards + 1)]
    joined = [row for part in parts for row in part]
    assert joined == predict_shard("whole", (1, 1))
    assert len(joined) == num_files + 1
    assert [row["status"] for row in joined].count("ok") == num_files
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def refuse_empty(data: bytes) -> bytes:
    if not data:
        raise RefusedError("empty file", "0 bytes")
    return data


def read_table(out):
    if out.suffix == ".csv":
        return read_csv(out)
    import pyarrow.parquet

    return pyarrow.parquet.read_table(out).to_pylist()


def test_a_parquet_table_has_the_values_of_the_csv_table(classifier, flat, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("seedtf.evaluation.prediction_table._ROW_GROUP_SIZE", 2)
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"p.{suffix}"
        write_predictions(classifier, [str(flat)], out, topk=2, batch_size=2)
    parquet_rows, csv_rows = read_table(tmp_path / "p.parquet"), read_table(tmp_path / "p.csv")
    assert len(parquet_rows) == 5
    # p1 and p2 are float32 in Parquet; an empty cell is None.
    for parquet_row, csv_row in zip(parquet_rows, csv_rows, strict=True):
        assert {name: "" if cell is None else cell for name, cell in parquet_row.items()} == {
            name: float(np.float32(text)) if text and name.startswith("p") else text
            for name, text in csv_row.items()
        }


def test_without_pyarrow_one_line_says_what_to_install(run_dir, flat, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["predict", str(run_dir), str(flat), f"--out={flat.parent}/p.parquet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'seedtf[parquet]'" in error


def test_at_most_one_batch_is_decoded_ahead(tmp_path):
    folder = write_files(tmp_path / "many", 40)
    prepared, num_prepared_at_call = [], []

    def classify(contents, k):
        assert len(contents) <= 4
        num_prepared_at_call.append(len(prepared))
        return [content_as_class(content) for content in contents]

    model = stub_classifier(lambda data: prepared.append(1) or data, classify)
    predictions = predict_files(model, list_images([str(folder)]), topk=1, batch_size=4)
    first_five = [next(predictions) for _ in range(5)]
    assert len(first_five) == 5
    predictions.close()
    # Of the 40 files, the two batches of 4 that were used and the next batch may be prepared.
    assert len(prepared) <= 12
    assert num_prepared_at_call[0] <= 8


def test_an_incomplete_table_does_not_replace_the_old_one(tmp_path):
    folder = write_files(tmp_path / "many", 9)
    out = tmp_path / "out" / "p.csv"
    out.parent.mkdir()
    out.write_text("old table")

    def classify(contents, k):
        # Rows are written to a temporary file, so the old table is unchanged.
        assert out.read_text() == "old table"
        if b"class 8" in contents:
            raise KeyboardInterrupt
        return [content_as_class(content) for content in contents]

    with pytest.raises(KeyboardInterrupt):
        write_predictions(
            stub_classifier(classify=classify), [str(folder)], out, topk=1, batch_size=2
        )
    assert out.read_text() == "old table"
    assert [path.name for path in out.parent.iterdir()] == ["p.csv"]


@pytest.mark.parametrize(
    "files",
    [
        # A second heat map named x would be called x~2.png, which is also the name of an input.
        ["a/x.png", "b/x.jpg", "c/x~2.png", "d/x.png"],
        ["a/x~2.png", "b/x.png", "c/x.png", "d/x.png"],
    ],
)
def test_heat_maps_of_images_with_the_same_name_get_different_names(tmp_path, tiny_folder, files):
    for file in files:
        (tmp_path / file).parent.mkdir()
        shutil.copyfile(tiny_folder / "alder" / "0.png", tmp_path / file)

    def classify(contents, k):
        heatmap = np.eye(2, dtype=np.float32)
        return [Prediction(("x",), (np.float32(1),), heatmap=heatmap)] * len(contents)

    (maps := tmp_path / "maps").mkdir()
    inputs = [str(tmp_path / file) for file in files]
    write_predictions(
        stub_classifier(classify=classify),
        inputs,
        tmp_path / "p",
        topk=1,
        batch_size=4,
        heatmaps=maps,
    )
    names = [row["heatmap"] for row in read_csv(tmp_path / "p")]
    assert len(set(names)) == 4
    assert sorted(path.name for path in maps.iterdir()) == sorted(names)


def test_the_error_for_an_unwritable_heat_map_names_the_heatmaps_flag_not_the_out_flag(
    flat, tmp_path
):
    maps, out = tmp_path / "maps", tmp_path / "p.csv"
    (maps / "b good.png").mkdir(parents=True)  # A folder has the name of the heat map.

    def classify(contents, k):
        prediction = Prediction(("oak",), (np.float32(1),), heatmap=np.zeros((2, 2)))
        return [prediction] * len(contents)

    model, image = stub_classifier(classify=classify), str(flat / "b good.png")
    with pytest.raises(UserError) as error:
        write_predictions(model, [image], out, topk=1, batch_size=2, heatmaps=maps)
    assert str(error.value) == f"--heatmaps={maps}: Is a directory; pass another folder"
    assert not out.exists()


def test_a_folder_is_listed_lazily_and_sorted(flat):
    listed = list_images([str(flat), str(flat / ".hidden.png")])
    assert next(listed) == str(flat / "b good.png")
    assert [os.path.relpath(path, flat) for path in listed] == [
        "cut.png",
        "deep/a.PNG",
        "empty.jpg",
        "notes.txt",
        ".hidden.png",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}"], "FILES_OR_FOLDERS is missing"),
        (["{run}", "nowhere.png"], "nowhere.png: no such file or folder"),
        (["{run}", "{empty}"], "no files; pass images"),
        (["nowhere", "{flat}"], "nowhere: no such run"),
        (["{flat}", "{flat}"], "not a run of seedtf train"),
        (["{run}", "{flat}", "--out={flat}"], "already exists; pass a file name"),
        (["{run}", "{flat}", "--out={flat}/notes.txt"], "pass another name or --overwrite"),
        (["{run}", "{flat}", "--out={flat}/no/p.csv"], "no folder"),
        (["{run}", "{flat}", "--topk=0"], "--topk=0: out of range"),
        (["{run}", "{flat}", "--submission=nowhere.csv"], "--submission=nowhere.csv: no such file"),
        (["{run}", "{flat}", "--shard=17/16"], "--shard=17/16: no such shard; pass number/count"),
        (["{run}", "{flat}", "--shard=0/2"], "--shard=0/2: no such shard"),
        (["{run}", "{flat}", "--shard=third"], "--shard=third: no such shard"),
        (["{run}", "{flat}", "--shard=1/2", "--submission=s.csv"], "excludes --submission"),
        (["{run}", "{flat}", "--out=p.parquet", "--submission=s.csv"], "a submission is CSV"),
    ],
)
def test_wrong_arguments_give_a_one_line_error_and_exit_code_2(
    run_dir, flat, capsys, arguments, message
):
    out, empty = flat.parent / "p.csv", flat.parent / "empty"
    empty.mkdir()
    places = {"run": run_dir, "flat": flat, "empty": empty}
    filled = [argument.format(**places) for argument in arguments]
    if not any(argument.startswith("--out") for argument in filled):
        filled.append(f"--out={out}")
    assert main(["predict", *filled]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


def test_overwrite_replaces_the_table(run_dir, flat, tmp_path, capsys):
    out = tmp_path / "p.csv"
    out.write_text("old")
    image_path = str(flat / "b good.png")
    assert main(["predict", str(run_dir), image_path, f"--out={out}", "--overwrite"]) == 0
    assert len(read_csv(out)) == 1
    assert f"{out}: 1 file, 1 predicted\n" in capsys.readouterr().out


class _Export(tf.Module):
    """A minimal export, which predicts the colour of an image; a damaged file makes its batch fail."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve(self, image_bytes):
        def color_fractions(contents):
            image = tf.cast(tf.io.decode_png(contents, channels=3), tf.float32)
            means = tf.reduce_mean(image, [0, 1])
            return means / tf.reduce_sum(means)

        rows = tf.map_fn(color_fractions, image_bytes, fn_output_signature=tf.float32)
        probabilities, order = tf.math.top_k(tf.ensure_shape(rows, [None, 3]), 3)
        return {
            "probabilities": probabilities,
            "classes": tf.gather(tf.constant(["red", "grün", "blue"]), order),
        }


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """An export with two versions: 2, which is damaged, and 10."""
    folder = tmp_path_factory.mktemp("export")
    module = _Export()
    for version in ("2", "10"):
        tf.saved_model.save(module, str(folder / version), {"serving_default": module.serve})
    (folder / "2" / "saved_model.pb").write_bytes(b"damaged")
    (folder / "parity.json").write_text("{}")
    return folder


def test_an_export_predicts_the_other_files_if_one_is_damaged(export, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (8, 8), (10, 30, 60)).save(folder / "a.png")
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).save(folder / "b.png")
    damaged = bytearray((folder / "b.png").read_bytes())
    middle = damaged.index(b"IDAT") + 40
    damaged[middle : middle + 20] = bytes(20)  # the header is good, the pixels are not
    (folder / "b.png").write_bytes(damaged)
    Image.new("RGB", (8, 8), (60, 30, 10)).save(folder / "c.png")
    for path in (export, export / "10"):
        out = tmp_path / f"{path.name}.csv"
        assert main(["predict", str(path), str(folder), f"--out={out}"]) == 3
        rows = read_csv(out)
        assert [row["status"] for row in rows] == ["ok", "corrupt", "ok"]
        assert [rows[0][f"top{k}"] for k in (1, 2, 3)] == ["blue", "grün", "red"]
        assert [float(rows[0][f"p{k}"]) for k in (1, 2, 3)] == pytest.approx([0.6, 0.3, 0.1])
        assert "top4" not in rows[0]


def test_tta_and_a_damaged_version_of_an_export_are_refused(export):
    with pytest.raises(UserError, match="--tta=8: does not apply to an export"):
        open_classifier(export, tta=8)
    with pytest.raises(UserError, match="cannot be loaded as an export"):
        open_classifier(export / "2")


@pytest.fixture
def write_sample(tmp_path):
    """A function that writes the given lines as a sample submission and returns its path."""

    def write(*lines):
        path = tmp_path / "sample.csv"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8-sig")
        return path

    return write


def submit(folder, sample_path, out):
    return write_submission(
        stub_classifier(), [str(folder)], read_sample(str(sample_path)), out, batch_size=2
    )


def test_a_submission_has_the_header_and_the_files_of_its_sample(tmp_path, write_sample):
    folder = write_files(tmp_path / "test", 5)
    path = write_sample("file,species", "004.png,x", "001.png,x", "004.png,x")
    out = tmp_path / "s.csv"
    num_rows = submit(folder, path, out)
    assert num_rows == 3
    assert out.read_text() == "file,species\n004.png,class 4\n001.png,class 1\n004.png,class 4\n"


def test_a_submission_has_the_columns_in_the_order_of_its_sample(tmp_path, write_sample):
    folder = write_files(tmp_path / "test", 3)
    out = tmp_path / "s.csv"
    submit(folder, write_sample("species,file", "x,002.png", "x,000.png"), out)
    assert out.read_text() == "species,file\nclass 2,002.png\nclass 0,000.png\n"


def test_the_command_writes_a_submission(run_dir, tiny_folder, tmp_path, write_sample):
    path = write_sample("file,species", "3.png,x", "0.png,x")
    out = tmp_path / "s.csv"
    command = ["predict", str(run_dir), str(tiny_folder / "alder"), f"--out={out}"]
    assert main([*command, f"--submission={path}"]) == 0
    rows = read_csv(out)
    assert [row["file"] for row in rows] == ["3.png", "0.png"]
    assert {row["species"] for row in rows} <= {"alder", "two words", "öland rye"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,species", "000.png,x", "nope.png,x"], "1 of 2 files are not among .*'nope.png'"),
        (["file,species", "bad.png,x", "000.png,x"], "bad.png: not an image"),
        (["file,species", "twice.png,x"], "same name as"),
        (["id,a,b", "000.png,1,0"], "column 'a' is no class of the model"),
        (["file,species", "000.png"], "row 2 has 1 column;"),
        (["file,species"], "no rows"),
    ],
)
def test_a_submission_that_is_impossible_is_refused_and_not_written(
    tmp_path, write_sample, lines, message
):
    folder = write_files(tmp_path / "test", 2)
    (folder / "bad.png").write_text("bad")
    for name in ("one", "two"):
        (folder / name).mkdir()
        (folder / name / "twice.png").write_text("class 1")
    path, out = write_sample(*lines), tmp_path / "s.csv"

    def prepare(data):
        if data == b"bad":
            raise RefusedError("not an image", "on purpose")
        return data

    with pytest.raises(UserError, match=message):
        write_submission(
            stub_classifier(prepare), [str(folder)], read_sample(str(path)), out, batch_size=8
        )
    assert not out.exists()


def test_bytes_paths_and_arrays_get_the_same_prediction_alone_and_in_lists(classifier, flat):
    path = flat / "b good.png"
    pixels = np.asarray(Image.open(path).convert("RGB"))
    expected = classifier.predict(path.read_bytes(), k=2)
    assert classifier.predict(path, k=2) == expected
    assert classifier.predict(str(path), k=2) == expected
    assert classifier.predict(pixels, k=2) == expected
    assert classifier.predict(np.stack([pixels] * 3), k=2) == [expected] * 3
    names = {prediction.names for prediction in classifier.predict([path] * 40, k=2)}
    assert names == {expected.names}
    assert classifier.predict([]) == []


def test_the_error_for_an_unusable_image_or_array_says_what_is_wrong(classifier, flat):
    with pytest.raises(RefusedError, match=r"cut\.png"):
        classifier.predict([flat / "b good.png", flat / "cut.png"])
    with pytest.raises(ValueError, match=r"Received: float64 \[8, 8, 3\]"):
        classifier.predict(np.zeros([8, 8, 3]))
