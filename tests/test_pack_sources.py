"""What ``seedtf pack`` reads: WebDataset tars, TFRecords, parquet and Arrow tables, and archives."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from conftest import TINY_CLASSES
from pack_sources import labelled_files, write_hf_table, write_tar, write_tfrecord

from seedtf.commands.main import main
from seedtf.data.listing import list_files
from seedtf.data.pack import sources
from seedtf.data.pack.records import ImageNamer, Record
from seedtf.data.packed import open_pack

pytest.importorskip("array_record")
CLASSES = list(TINY_CLASSES)


@pytest.fixture(scope="module")
def files(tiny_folder):
    return labelled_files(tiny_folder)


def pack_and_open(source, tmp_path, *flags):
    out = tmp_path / "packed"
    assert main(["pack", str(source), f"--out={out}", *flags]) == 0
    return open_pack(str(out))


def contents(pack):
    """The class name and the bytes of every image, in the order of the pack."""
    labels = [pack.class_names[label] for label in pack.labels]
    return [(label, pack.read(index)) for index, label in enumerate(labels)]


def left_out_faults(pack):
    return [(path, fault) for path, fault, _ in pack.left_out]


def test_webdataset_tars_are_packed_in_order(files, tmp_path):
    entries = {}
    for number, (_, label, data) in enumerate(files):
        entries[f"./{number:03}.png"] = data
        entries[f"./{number:03}.cls"] = f"{CLASSES.index(label)}\n".encode()
    first = dict(list(entries.items())[:16])
    second = dict(list(entries.items())[16:])
    extra = {
        "a.png": b"x",
        "b.cls": b"1",
        "c.seg.png": b"s",
        "c.png": b"x",
        "c.json": b'{"label": 2}',
    }
    write_tar(tmp_path / "data" / "train-0.tar", first)
    write_tar(tmp_path / "data" / "train-1.tar", {**second, **extra})
    (tmp_path / "data" / "classnames.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    pack = pack_and_open(tmp_path / "data", tmp_path)
    assert contents(pack) == [(label, data) for _, label, data in files] + [(CLASSES[2], b"x")]
    assert pack.names[0] == "train-0/000.png"
    assert pack.names[len(pack.names) - 1] == "train-1/c.png"
    assert pack.sides is None
    assert left_out_faults(pack) == [
        ("train-1/a.png", "no label"),
        ("train-1/b", "no image"),
        ("train-1/c.seg.png", "second image"),
    ]


def test_labels_in_json_and_the_split_in_the_names_of_tars_are_kept(files, tmp_path):
    import json

    for side, part in (("train", files), ("val", files[::3])):
        entries = {}
        for path, label, data in part:
            key = path.removesuffix(".png")
            entries[f"{key}.json"] = json.dumps({"id": 7, "species": label}).encode()
            entries[f"{key}.png"] = data
        write_tar(tmp_path / "data" / f"plants-{side}-000.tar", entries)
    unlabelled = {
        "0.png": files[0][2],
        "0.cls": b"1",
        "1.png": b"x",
        "1.json": b'{"species": null}',
    }
    write_tar(tmp_path / "data" / "plants-val-001.tar", unlabelled)
    pack = pack_and_open(tmp_path / "data", tmp_path, "--label_column=species")
    assert contents(pack) == [(label, data) for _, label, data in (*files, *files[::3])]
    assert {detail for *_, detail in pack.left_out} == {"no species in .json"}
    catalog, split = list_files(str(tmp_path / "packed"))
    assert split.train.tolist() == list(range(len(files)))
    assert split.val.tolist() == list(range(len(files), len(catalog)))


def test_tfrecords_are_packed_in_order(files, tmp_path):
    rows = [
        {
            "image/encoded": data,
            "image/class/label": CLASSES.index(label) + 1,
            "image/class/text": label.encode(),
            "image/filename": path.split("/")[1].encode(),
        }
        for path, label, data in files
    ]
    bad = [
        {"image/class/label": 1},
        {"image/encoded": files[0][2]},
        {"image/encoded": b"?", "label": 1},
    ]
    write_tfrecord(tmp_path / "data" / "train-00000-of-00002", rows[:5])
    write_tfrecord(tmp_path / "data" / "train-00001-of-00002", rows[5:] + bad, "GZIP")
    pack = pack_and_open(tmp_path / "data", tmp_path)
    assert contents(pack) == [(label, data) for _, label, data in files]
    assert list(pack.names)[:2] == ["train-00000-of-00002/0.png", "train-00000-of-00002/1.png"]
    assert "train-00001-of-00002/0~2.png" in pack.names  # the second image named 0.png in this file
    assert [fault for _, fault in left_out_faults(pack)] == ["no image", "no label", "not an image"]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_tables_of_hugging_face_are_packed_in_order(files, tmp_path, suffix):
    rows = [(data, path.split("/")[1], CLASSES.index(label)) for path, label, data in files]
    rows += [(None, "lost.png", 0), (files[0][2], None, -1)]
    write_hf_table(tmp_path / "data" / f"train-00000-of-00002.{suffix}", rows[:7], CLASSES)
    write_hf_table(tmp_path / "data" / f"train-00001-of-00002.{suffix}", rows[7:], CLASSES)
    write_hf_table(tmp_path / "data" / f"test-00000-of-00001.{suffix}", rows[:6], CLASSES)
    pack = pack_and_open(tmp_path / "data", tmp_path)
    expected = [(label, data) for _, label, data in files]
    assert contents(pack) == expected[:6] + expected
    assert pack.sides.tolist() == ["test"] * 6 + ["train"] * 18
    assert [fault for _, fault in left_out_faults(pack)] == ["no image", "no label"]


def test_images_of_files_with_dots_in_their_names_are_not_confused(files, tmp_path):
    entries = [{"0.cls": label.encode(), "0.png": data} for _, label, data in files[:9]]
    names = [*(f"s.{number:03}.tar" for number in range(7)), "t.tar", "t.TAR.GZ"]
    for name, part in zip(names, entries, strict=True):
        write_tar(tmp_path / "data" / name, part)
    pack = pack_and_open(tmp_path / "data", tmp_path)
    expected = [f"s.{number:03}/0.png" for number in range(7)] + ["t.TAR.GZ/0.png", "t.tar/0.png"]
    assert sorted(pack.names) == sorted(expected)
    # ``find``, by which a table of labels finds its images, returns the image of the right tar.
    found = {name: pack.read(pack.find(name)) for name in pack.names}
    assert [found[name] for name in expected[:7]] == [data for *_, data in files[:7]]
    rows = [{"image/encoded": data, "image/class/text": b"a"} for *_, data in files[:2]]
    for number, row in enumerate(rows):
        write_tfrecord(tmp_path / "tfds" / f"x.tfrecord-{number:05}-of-00002", [row])
    assert main(["pack", str(tmp_path / "tfds"), f"--out={tmp_path}/p"]) == 0
    packed = open_pack(str(tmp_path / "p"))
    assert [packed.read(packed.find(name)) for name in packed.names] == [d for *_, d in files[:2]]


def test_two_images_of_a_file_never_get_the_same_name():
    name_image = ImageNamer("f")
    given = ["a.png", "a.png", "a~2.png", "a.png", "a~2.png", "", "0000005.png", "./a.png"]
    names = [name_image(name, b"\x89PNG\r\n\x1a\n") for name in given]
    assert len(set(names)) == len(names)
    assert names[:3] == ["f/a.png", "f/a~2.png", "f/a~2~2.png"]


def test_images_that_would_have_the_same_name_in_the_pack_are_refused(files, tmp_path, capsys):
    one, two = ({"0.cls": b"a", "0.png": data} for *_, data in files[:2])
    write_tar(tmp_path / "data" / "a" / "b.tar", one)
    write_tar(tmp_path / "data" / "a.tar", {f"b/{name}": data for name, data in two.items()})
    assert main(["pack", str(tmp_path / "data"), f"--out={tmp_path}/packed"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "two images would be called 'a/b/0.png' in the pack; rename one of the files" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_table_of_image_bytes_and_class_names_is_packed(files, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {"photo": [data for *_, data in files], "kind": [label for _, label, _ in files]}
    )
    pq.write_table(table, tmp_path / "one.parquet")
    pack = pack_and_open(tmp_path / "one.parquet", tmp_path, "--label_column=kind")
    assert contents(pack) == [(label, data) for _, label, data in files]
    assert pack.names[0] == "one/0000000.png"


def test_a_name_in_a_tar_that_is_not_utf_8_is_left_out(files, tmp_path):
    good, bad = "0.png", "\udcff.png"
    entries = {"0.json": b'{"label": "\\ud83d oak"}', good: files[0][2], bad: files[1][2]}
    entries |= {"\udcff.cls": b"1", "\udcfe.png": b"x"}
    source = write_tar(tmp_path / "a.tar", entries)
    pack = pack_and_open(source, tmp_path)
    assert contents(pack) == [("? oak", files[0][2])]
    assert left_out_faults(pack) == [
        ("a/\\xff.png", "unreadable name"),
        ("a/\\xfe.png", "unreadable name"),
    ]


def test_a_source_that_cannot_be_read_is_named(files, tmp_path, capsys, monkeypatch):
    write_tar(tmp_path / "data" / "a.tar", {"0.png": files[0][2], "0.cls": b"1"})

    def fail_later(path, *_):
        yield Record("a/0.png", "1", "", files[0][2])
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setitem(sources._KINDS, "WebDataset", fail_later)
    assert main(["pack", str(tmp_path / "data"), f"--out={tmp_path}/packed"]) == 2
    message = f"{tmp_path}/data/a.tar: cannot be read: Input/output error; copy it again"
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_tar_of_class_folders_is_not_read_as_webdataset(tiny_folder, files, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "plants"), "tar", tiny_folder)
    assert contents(pack_and_open(archive, tmp_path)) == [(label, data) for _, label, data in files]


def break_tar(folder, png):
    tar = write_tar(
        folder / "a.tar", {"1.png": png, "1.cls": b"a", "2.png": png * 300, "2.cls": b"b"}
    )
    tar.write_bytes(tar.read_bytes()[:-12000])


def break_tfrecord(folder, png):
    row = {"image/encoded": png, "image/class/label": 1}
    path = write_tfrecord(folder / "a.tfrecord", [row, row])
    path.write_bytes(path.read_bytes()[:-9])


def break_parquet(folder, png):
    path = write_hf_table(folder / "a.parquet", [(png, "1.png", 0)], CLASSES)
    path.write_bytes(path.read_bytes()[:-9])


def write_two_label_columns(folder, png):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"image": [png], "label": [1], "class": [2]})
    pq.write_table(table, folder / "a.parquet")


def write_two_kinds_of_files(folder, png):
    write_tfrecord(folder / "a.tfrecord", [])
    write_hf_table(folder / "b.parquet", [(png, "1.png", 0)], CLASSES)


@pytest.mark.parametrize(
    ("write_source", "message"),
    [
        (break_tar, "a.tar: damaged tar"),
        (break_tfrecord, "a.tfrecord: damaged TFRecord"),
        (break_parquet, "a.parquet: damaged table"),
        (
            write_two_label_columns,
            "a.parquet: several label columns (label, class); pass --label_column",
        ),
        (
            write_two_kinds_of_files,
            "has files of several kinds: TFRecord (a.tfrecord), table (b.parquet)",
        ),
    ],
)
def test_a_damaged_or_ambiguous_source_gives_a_one_line_error(
    files, tmp_path, capsys, write_source, message
):
    folder = tmp_path / "data"
    folder.mkdir()
    write_source(folder, files[0][2])
    assert main(["pack", str(folder), f"--out={tmp_path}/packed"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
