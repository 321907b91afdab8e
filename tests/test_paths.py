"""Folders at URLs that TensorFlow reads, such as gs://; the tests use ram://, which is in memory."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import make_run

from seedtf.commands.process import describe_os_error
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import scan_folder
from seedtf.data.check.check import check_data
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.label_table import read_label_table
from seedtf.data.paths import common_folder, folder_at
from seedtf.data.remote import remote_files
from seedtf.data.store import cache_key
from seedtf.errors import UserError
from seedtf.evaluation.evaluate_run import evaluate_run

gfile = tf.io.gfile

pytestmark = pytest.mark.usefixtures("module_without_figures")


def put(url: str, data: bytes) -> None:
    gfile.makedirs(url.rpartition("/")[0])
    if gfile.exists(url):
        gfile.remove(url)  # opening for writing does not truncate in this file system
    with gfile.GFile(url, "wb") as file:
        file.write(data)


@pytest.fixture
def bucket(tiny_folder: Path, request: pytest.FixtureRequest):
    """The files of the tiny folder in an in-memory bucket for this test."""
    url = f"ram://{request.node.name.translate(str.maketrans('[]', '--'))}/images"
    for path in tiny_folder.rglob("*.png"):
        put(f"{url}/{path.relative_to(tiny_folder).as_posix()}", path.read_bytes())
    yield url
    gfile.rmtree(url)


def load(folder: str | Path, tmp_path: Path, **options: object) -> Dataset:
    settings = {"image_size": 8, "cache": "off", "cache_dir": tmp_path / "cache", **options}
    return load_dataset(str(folder), **settings)


def pixels(dataset: Dataset) -> np.ndarray:
    return dataset.store.read(tf.range(len(dataset.store.catalog), dtype=tf.int64)).numpy()


@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_a_bucket_gives_the_same_dataset_as_a_folder(
    bucket: str, tiny_folder: Path, tmp_path: Path, cache: str
) -> None:
    remote = load(bucket, tmp_path, cache=cache)
    local = load(tiny_folder, tmp_path, cache=cache)
    assert remote.store.catalog.paths == local.store.catalog.paths
    assert remote.store.catalog.class_names == local.store.catalog.class_names
    assert np.array_equal(remote.split.val, local.split.val)
    assert np.array_equal(pixels(remote), pixels(local))
    if cache == "disk":
        assert load(bucket, tmp_path, cache=cache).store.from_cache


def test_bad_files_duplicates_and_other_files_in_a_bucket_are_reported(
    bucket: str, tmp_path: Path
) -> None:
    png_bytes = gfile.GFile(f"{bucket}/alder/1.png", "rb").read()
    put(f"{bucket}/alder/1.png", png_bytes[:-20])
    put(f"{bucket}/alder/deep/x.json", b"{}")
    put(f"{bucket}/St. John's wort/1.png", png_bytes)
    put(f"{bucket}/St. John's wort/2.png", png_bytes)
    put(f"{bucket}/.git/3.png", png_bytes)
    dataset = load(bucket, tmp_path)
    assert {(f.path, f.fault) for f in dataset.store.catalog.faults} == {
        ("alder/1.png", "truncated"),
    }
    assert dataset.store.catalog.others == {".json": 1}
    assert "St. John's wort" in dataset.store.catalog.class_names
    assert dataset.duplicates == 1  # the two files in "St. John's wort"
    findings = {(f.path, f.fault) for f in check_data(bucket).findings}
    assert ("alder/1.png", "truncated") in findings
    assert ("St. John's wort/2.png", "identical file") in findings


def test_the_error_for_a_file_removed_from_the_bucket_names_the_file(
    bucket: str, tmp_path: Path
) -> None:
    store = load(bucket, tmp_path).store
    gfile.remove(f"{bucket}/alder/0.png")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"alder/0\.png: unreadable"):
        store.read(tf.constant([0], tf.int64))


def test_the_cache_key_changes_when_a_file_in_the_bucket_changes(bucket: str) -> None:
    before = cache_key(scan_folder(bucket), 8)
    assert cache_key(scan_folder(bucket), 8) == before
    put(f"{bucket}/alder/0.png", b"other content")
    assert cache_key(scan_folder(bucket), 8) != before


def test_a_label_table_and_its_images_can_both_be_at_urls(bucket: str) -> None:
    put(f"{bucket}/labels.csv", "\ufefffile,label\nalder/0.png,é\nalder/1.png,f\n".encode())
    catalog = read_label_table(f"{bucket}/labels.csv", bucket).catalog
    assert catalog.class_names == ("f", "é")
    assert list(catalog.absolute_paths()) == [f"{bucket}/alder/0.png", f"{bucket}/alder/1.png"]
    with pytest.raises(UserError, match=r"^--labels_csv=ram://no/t\.csv: no such file; pass a CSV"):
        read_label_table("ram://no/t.csv", bucket)


@pytest.mark.parametrize(
    ("tensorflow_error", "expected_error", "expected_errno"),
    [
        (tf.errors.NotFoundError, FileNotFoundError, errno.ENOENT),
        (tf.errors.PermissionDeniedError, PermissionError, errno.EACCES),
        (tf.errors.UnavailableError, OSError, errno.EIO),
    ],
)
def test_an_error_of_tensorflow_becomes_an_os_error_with_a_matching_errno(
    monkeypatch: pytest.MonkeyPatch,
    tensorflow_error: type,
    expected_error: type,
    expected_errno: int,
) -> None:
    def refuse(*_: object) -> None:
        raise tensorflow_error(None, None, "the bucket says no\nat length")

    files = remote_files("ram://bucket/1.png")
    monkeypatch.setattr(gfile, "stat", refuse)
    with pytest.raises(expected_error, match=r"says no: .ram://bucket/1\.png") as raised:
        files.status("ram://bucket/1.png")
    assert raised.value.errno == expected_errno
    shown = describe_os_error(raised.value, "predict", ["run", "ram://bucket/1.png"])
    assert shown == "ram://bucket/1.png: the bucket says no"


def test_a_run_whose_images_are_in_a_bucket_can_be_evaluated(bucket: str, tmp_path: Path) -> None:
    evaluation = evaluate_run(str(make_run(tmp_path / "run", bucket)))
    # make_run uses every second one of the 18 images for validation.
    assert len(evaluation.report.predictions.paths) == 9
    page = evaluation.page.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") > 0  # thumbnails of remote images


def test_the_error_for_a_missing_folder_or_a_file_in_its_place_names_the_flag(bucket: str) -> None:
    with pytest.raises(UserError, match=r"^--data_dir=ram://nowhere/x: no such folder; pass"):
        scan_folder("ram://nowhere/x")
    with pytest.raises(UserError, match=r"^--data_dir=ram://.*png: a file; pass"):
        scan_folder(f"{bucket}/alder/0.png")


def test_the_error_for_an_unknown_url_scheme_says_what_to_install() -> None:
    with pytest.raises(UserError) as error:
        scan_folder("no-such-store://bucket/images")
    assert str(error.value).startswith(
        "no-such-store://bucket/images: this TensorFlow has no file system for no-such-store://, only "
    )
    assert "pip install 'seedtf[remote]'" in str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("gs://b/x/train", "gs://b/x/val", ("gs://b/x", "train/", "val/")),
        ("gs://b/x", "gs://b/x/val", ("gs://b/x", "", "val/")),
        ("gs://b/x/", "gs://b/y", ("gs://b", "x/", "y/")),
        ("/a/train", "/a/val", ("/a", "train/", "val/")),
        ("/a", "/b", ("/", "a/", "b/")),
    ],
)
def test_common_folder_is_the_nearest_common_parent(
    first: str, second: str, expected: tuple[str, str, str]
) -> None:
    root, prefixes = common_folder(folder_at(first), folder_at(second))
    assert (str(root), *prefixes) == expected


def test_folders_in_two_file_systems_or_two_buckets_have_no_common_folder(
    bucket: str, tiny_folder: Path, tmp_path: Path
) -> None:
    for first, second in (("gs://a/x", "gs://b/x"), ("gs://a/x", "s3://a/x"), ("/a", "gs://a")):
        with pytest.raises(ValueError, match="different"):
            common_folder(folder_at(first), folder_at(second))
    with pytest.raises(UserError, match=r"^--val_dir=ram://.*: no common parent with --data_dir="):
        load(tiny_folder, tmp_path, val_dir=bucket)


def test_urls_stay_as_they_are_and_the_run_and_cache_folders_must_be_local() -> None:
    config = TrainConfig(data_dir="gs://b/x", val_dir="val", labels_csv="s3://b/t.csv")
    absolute = config.with_absolute_paths()
    assert (absolute.data_dir, absolute.labels_csv) == ("gs://b/x", "s3://b/t.csv")
    assert "--data_dir=gs://b/x\n" in config.to_flagfile()
    assert Path(absolute.val_dir).is_absolute()
    for name in ("run_dir", "cache_dir"):
        with pytest.raises(UserError, match=rf"^--{name}=gs://b/r: must be on a disk of this"):
            TrainConfig(**{"data_dir": "x", name: "gs://b/r"})
