"""A packed folder has the order, bytes and split of its source, and trains to the same history.

A damaged pack gives a one-line error.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from pack_sources import labelled_files
from PIL import Image
from tiny_run import make_run

from seedtf.commands.main import main
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Fault
from seedtf.data.check.check import check_data
from seedtf.data.columns import Columns
from seedtf.data.dataset import load_dataset
from seedtf.data.listing import list_files
from seedtf.data.pack.sources import Source
from seedtf.data.pack.write import write_pack
from seedtf.data.packed import open_pack
from seedtf.data.paths import file_statuses, files_for_tensorflow, folder_at, open_file, read_file
from seedtf.data.related import find_related
from seedtf.errors import UserError
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.evaluation.predict import list_images
from seedtf.runs.open import load_run, open_labelled, open_validation
from seedtf.training.train import train_and_evaluate

pytest.importorskip("array_record")
SHARD_BYTES = 600  # so small that the few small files of these tests fill several shards


def pack(source: Path | str, out: Path, *flags: str) -> Path:
    assert main(["pack", str(source), f"--out={out}", *flags]) == 0
    return out


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory) -> Path:
    """Class folders with a copy, a truncated, an empty and a text file, and lost.png beside them."""
    root = Path(shutil.copytree(tiny_folder, tmp_path_factory.mktemp("pack") / "photos"))
    alder, other = root / "alder", root / "two words"
    (alder / "9.png").write_bytes((alder / "0.png").read_bytes())
    (alder / "cut.png").write_bytes((alder / "0.png").read_bytes()[:-30])
    (other / "Ä, empty.jpg").touch()
    (other / "notes.txt").write_text("no image")
    Image.radial_gradient("L").rotate(90).save(root / "lost.png")
    Image.radial_gradient("L").save(other / "deep.png")
    return root


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "p"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seedtf.commands.pack.MEGABYTE", SHARD_BYTES)
        return pack(folder, out, "--shard_mb=1")


@pytest.fixture
def copy(packed, tmp_path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def test_names_order_and_bytes_are_those_of_the_source(folder, packed):
    files = [
        file for file in labelled_files(folder) if "/" in file[0] and not file[0].endswith(".txt")
    ]
    opened = open_pack(str(packed))
    assert list(opened.names) == [path for path, *_ in files]
    assert [opened.class_names[label] for label in opened.labels] == [name for _, name, _ in files]
    order = list(range(len(files)))
    random.Random(0).shuffle(order)
    assert [opened.read(index) for index in order] == [files[index][2] for index in order]
    assert len(list(packed.glob("*.array_record"))) > 3
    assert opened.left_out == [("lost.png", "no class folder", "lies beside the class folders")]
    assert json.loads((packed / "pack.json").read_text())["left_out"] == {"no class folder": 1}
    # A file in a pack is read by the path that it would have if the pack were a folder.
    path = os.path.join(packed, files[0][0])
    assert read_file(path, 1 << 20) == open_file(path).read() == files[0][2]
    with pytest.raises(FileNotFoundError):
        read_file(os.path.join(packed, "alder/none.png"), 1 << 20)


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_the_dataset_of_a_pack_is_that_of_its_folder(folder, packed, tmp_path, cache):
    options = {"image_size": 8, "cache": cache, "cache_dir": tmp_path / "cache", "seed": 3}
    of_folder, of_pack = (load_dataset(str(root), **options) for root in (folder, packed))
    catalogs = of_folder.store.catalog, of_pack.store.catalog
    assert catalogs[0].paths == catalogs[1].paths
    assert catalogs[0].class_names == catalogs[1].class_names
    assert sorted(catalogs[0].faults, key=str) == sorted(catalogs[1].faults, key=str)
    assert len(catalogs[1].faults) == 3
    for side in ("train", "val", "test"):
        assert np.array_equal(getattr(of_folder.split, side), getattr(of_pack.split, side))
    assert of_folder.duplicates == of_pack.duplicates == 1
    every_index = tf.range(len(catalogs[0]), dtype=tf.int64)
    assert np.array_equal(of_folder.store.read(every_index), of_pack.store.read(every_index))


def test_a_pack_trains_to_the_same_history(folder, packed, tmp_path, without_figures):
    for name, root in (("folder", folder), ("pack", packed)):
        config = TrainConfig(
            data_dir=str(root),
            run_dir=str(tmp_path / name),
            model="tiny",
            weights="none",
            image_size=16,
            epochs=1,
            batch_size=8,
            cache="off",
        )
        train_and_evaluate(config)
    for file in ("history.csv", "split.csv", "data_report.csv", "classes.txt"):
        assert (tmp_path / "folder" / file).read_bytes() == (tmp_path / "pack" / file).read_bytes()


def test_evaluate_predict_and_check_read_a_pack(folder, packed, tmp_path, capsys):
    run_dir = make_run(tmp_path / "run", folder)
    settings = json.loads((run_dir / "config.json").read_text())
    settings["resolved"]["data_root"] = str(packed)  # as if the run had trained on the pack
    (run_dir / "config.json").write_text(json.dumps(settings))
    result = evaluate_run(str(run_dir))
    assert result.report.predictions.paths == tuple(sorted(result.report.predictions.paths))
    page = (run_dir / "report" / "index.html").read_text()
    assert "data:image/jpeg" in page  # thumbnails come from the pack
    store, records = open_labelled(load_run(run_dir), str(packed))
    assert len(records) == len(store.catalog) == 20
    out, maps = tmp_path / "p.csv", tmp_path / "maps"
    flags = [f"--out={out}", f"--heatmaps={maps}"]
    assert main(["predict", str(run_dir), str(packed), *flags]) == 3
    assert len(list(maps.iterdir())) == len(records)
    assert f"{packed}/alder/cut.png,truncated" in out.read_text()
    assert len(list(list_images([f"{packed}/alder/0.png"]))) == 1
    check = check_data(str(packed))
    expected = check_data(str(folder))
    # notes.txt is not in the pack.
    assert list(check.findings) == [
        finding for finding in expected.findings if not finding.path.endswith("notes.txt")
    ]
    paths = open_validation(load_run(run_dir))[0].catalog.absolute_paths()
    with files_for_tensorflow(list(paths)) as files:
        assert [Path(file).read_bytes() for file in files] == [
            (folder / os.path.relpath(path, packed)).read_bytes() for path in paths
        ]


def test_a_pack_keeps_the_split_and_the_label_table_of_its_source(tiny_folder, tmp_path):
    root = tmp_path / "split"
    for side in ("train", "valid", "test"):
        shutil.copytree(tiny_folder, root / side)
    catalog, split = list_files(str(root))
    packed_catalog, packed_split = list_files(str(pack(root, tmp_path / "p1")))
    assert catalog.paths == packed_catalog.paths
    assert catalog.labels.tolist() == packed_catalog.labels.tolist()
    for side, indices in split.sides.items():
        assert np.array_equal(indices, packed_split.sides[side])
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{i}.png,{10 - i}\n" for i in range(6)))
    folder = str(tiny_folder / "alder")
    catalog, _ = list_files(folder, str(table), Columns(), min_images=1)
    packed = pack(folder, tmp_path / "p2", f"--labels_csv={table}")
    packed_catalog, _ = list_files(str(packed), min_images=1)
    assert catalog.class_names == packed_catalog.class_names == ("5", "6", "7", "8", "9", "10")
    # A table of labels can replace the labels in a pack.
    table.write_text("file,label\nalder/0,a\nalder/1.png,a\ntwo words/0.png,b\ntwo words/1,b\n")
    relabelled, _ = list_files(str(pack(tiny_folder, tmp_path / "p3")), str(table))
    assert list(relabelled.paths) == [
        "alder/0.png",
        "alder/1.png",
        "two words/0.png",
        "two words/1.png",
    ]


def test_a_replaced_pack_is_read_again(tiny_folder, packed, copy):
    before = list(file_statuses(list_files(str(copy))[0].absolute_paths()))
    shutil.rmtree(copy)
    pack(tiny_folder, copy)
    catalog, _ = list_files(str(copy))
    assert len(catalog) == 18
    assert next(iter(file_statuses(catalog.absolute_paths()))) != before[0]


def flip_middle_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_flipped_bit_in_an_image_gives_a_one_line_error(tiny_folder, tmp_path, capsys):
    out = pack(tiny_folder, tmp_path / "p")
    [shard] = out.glob("*.array_record")
    data = bytearray(shard.read_bytes())
    image = (tiny_folder / "two words" / "3.png").read_bytes()
    data[data.index(image) + 20] ^= 1
    shard.write_bytes(data)
    flags = ["--model=tiny", "--weights=none", "--image_size=16", "--epochs=1", "--cache=ram"]
    capsys.readouterr()
    assert main(["train", f"--data_dir={out}", f"--run_dir={tmp_path}/run", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{shard}: the pack is damaged" in error


def name_a_shard_outside(root):
    meta = json.loads((root / "pack.json").read_text())
    meta["shards"][0]["file"] = f"../{root.name}/{meta['shards'][0]['file']}"
    (root / "pack.json").write_text(json.dumps(meta))


def repeat_a_name(root):
    index, meta = root / "index.csv", json.loads((root / "pack.json").read_text())
    index.write_text(index.read_text().replace("alder/1.png", "alder/0.png"))
    meta["index_sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
    (root / "pack.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: flip_middle_byte(p / "index.csv"), "its checksum is not the one in pack.json"),
        (lambda p: (p / "index.csv").unlink(), "No such file"),
        (lambda p: flip_middle_byte(p / "left_out.csv"), "its checksum is not the one"),
        (lambda p: (p / "images-00001.array_record").unlink(), "No such file"),
        (
            lambda p: os.truncate(p / "images-00001.array_record", 99),
            "99 bytes, and pack.json says",
        ),
        (lambda p: (p / "pack.json").write_text("{"), "the pack is damaged"),
        (name_a_shard_outside, "lies outside the pack"),
        (repeat_a_name, "the pack is damaged (two images are called 'alder/0.png')"),
        (lambda p: (p / "pack.json").write_text('{"format": 1}'), "there is no 'classes'"),
        (
            lambda p: (p / "pack.json").write_text('{"format": 1, "classes": 5}'),
            "the pack is damaged ('int' object is not iterable)",
        ),
        (
            lambda p: (p / "pack.json").write_text('{"format": 2}'),
            "format 2, and this seedtf reads",
        ),
    ],
)
def test_a_damaged_pack_gives_a_one_line_error(copy, damage, message, capsys):
    damage(copy)
    assert main(["train", f"--data_dir={copy}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert str(copy) in error


def test_interrupted_packing_leaves_nothing_and_can_start_again(tiny_folder, tmp_path):
    def interrupted():
        yield Fault("a", "no label", "")
        raise KeyboardInterrupt

    out = tmp_path / "out" / "p"
    out.parent.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_pack(Source("a source", interrupted), out, shard_bytes=9)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(UserError, match="a source: no usable image; no label: 1"):
        write_pack(
            Source("a source", lambda: iter([Fault("a", "no label", "")])), out, shard_bytes=9
        )
    unfinished = out.parent / ".p.packing"  # a killed process leaves this folder
    unfinished.mkdir()
    (unfinished / "images-00007.array_record").write_bytes(b"half")
    descriptor = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process is writing it"):
        write_pack(Source("a source", interrupted), out, shard_bytes=9)
    os.close(descriptor)
    pack(tiny_folder, out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["p"]
    assert not list(out.glob("images-00007*"))


def test_a_full_disk_gives_a_one_line_error_and_leaves_nothing(folder, tmp_path):
    # The size of each file is limited to 40 KiB, because a test cannot fill the disk.
    script = "ulimit -f 40; exec $0 -m seedtf pack $1 --out=$2"
    command = ["bash", "-c", script, sys.executable, str(folder), str(tmp_path / "p")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"--out={tmp_path}/p: " in done.stderr
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["{folder}", "--out={folder}"], "already exists; pass a new folder"),
        (["{folder}", "--out={folder}/no/p"], "no folder"),
        (["{folder}/two words/notes.txt"], "not an archive of images, a WebDataset tar (with .cls"),
        (["{packed}", "--layout=flat"], "is packed with its labels"),
        (["{folder}", "--shard_mb=0"], "--shard_mb=0: out of range"),
    ],
)
def test_wrong_arguments_give_a_one_line_error(folder, packed, capsys, arguments, message):
    filled = [text.format(folder=folder, packed=packed) for text in arguments]
    filled += [] if any("--out" in text for text in filled) else [f"--out={packed.parent}/new"]
    assert main(["pack", *filled]) == 2
    error = capsys.readouterr().err
    assert not (packed.parent / "new").exists()
    assert error.count("\n") == 1
    assert message in error


def test_without_array_record_one_line_says_what_to_install(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    assert main(["pack", str(folder), f"--out={tmp_path}/p"]) == 2
    assert "needs array-record; run: pip install 'seedtf[pack]'" in capsys.readouterr().err


def test_a_pack_without_a_cache_is_refused_for_a_data_service(packed, tmp_path):
    from seedtf.data.service import portable_reader

    dataset = load_dataset(str(packed), image_size=8, cache="off", cache_dir=tmp_path)
    with pytest.raises(UserError, match="--data_service: its workers cannot open"):
        portable_reader(dataset.store)


def test_near_duplicates_are_found_in_a_pack(tiny_folder, tmp_path):
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "photos"))
    image = Image.radial_gradient("L")
    image.save(folder / "alder" / "large.png")
    image.resize((160, 160)).save(folder / "alder" / "small.png")
    packed = pack(folder, tmp_path / "p")
    from_folder, from_pack = (
        find_related(
            list_files(str(root))[0],
            all_opened=True,
            twins="together",
            user_groups=None,
            cache_dir=tmp_path / f"cache of {root.name}",
            max_pixels=1 << 20,
        )
        for root in (folder, packed)
    )
    assert from_folder.num_near_duplicates == from_pack.num_near_duplicates == 1
    assert from_folder.together.tolist() == from_pack.together.tolist()
    assert folder_at(packed).is_dir()
