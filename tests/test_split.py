"""The split is stratified by class, repeatable, and has identical files on one side.

A split that is written to split.csv is read back unchanged.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.data.catalog import Catalog, Fault, scan_folder
from seedtf.data.split import (
    Split,
    check_split,
    check_trainable,
    find_duplicates,
    join_catalogs,
    read_split_csv,
    split_catalog,
    write_split_csv,
)
from seedtf.errors import UserError


def make_catalog(counts: list[int], root: Path = Path("/data")) -> Catalog:
    """A catalog of ``counts[k]`` files in class ``c<k>``; no file exists."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    paths = tuple(f"c{label}/{index:03d}.png" for index, label in enumerate(labels))
    return Catalog(root, paths, labels, tuple(f"c{k}" for k in range(len(counts))))


def one_group_per_file(catalog: Catalog) -> np.ndarray:
    return np.arange(len(catalog), dtype=np.int64)


def expected_val_count(fraction: float, count: int) -> int:
    return min(max(round(fraction * count), 1), count - 1)


class_counts = st.lists(st.integers(2, 30), min_size=2, max_size=5)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**40)


@given(class_counts, fractions, seeds)
def test_without_duplicates_every_class_gives_its_exact_fraction(
    counts: list[int], fraction: float, seed: int
) -> None:
    catalog = make_catalog(counts)
    split = split_catalog(catalog, fraction, seed, one_group_per_file(catalog))
    indices = np.concatenate([split.train, split.val])
    assert np.array_equal(np.sort(indices), np.arange(len(catalog)))
    assert np.array_equal(split.train, np.sort(split.train))
    assert np.array_equal(split.val, np.sort(split.val))
    assert split.train.dtype == split.val.dtype == np.int64
    val_counts = np.bincount(catalog.labels[split.val], minlength=len(counts))
    assert val_counts.tolist() == [expected_val_count(fraction, count) for count in counts]


@given(class_counts, fractions, seeds, st.data())
def test_identical_files_stay_on_one_side(
    counts: list[int], fraction: float, seed: int, data: st.DataObject
) -> None:
    catalog = make_catalog(counts)
    num_files = len(catalog)
    lists = st.lists(st.integers(0, num_files), min_size=num_files, max_size=num_files)
    groups = np.array(data.draw(lists), np.int64)
    split = split_catalog(catalog, fraction, seed, groups)
    again = split_catalog(catalog, fraction, seed, groups)
    assert np.array_equal(split.val, again.val)
    assert np.array_equal(split.train, again.train)
    assert len(split.train) + len(split.val) == num_files
    assert not np.intersect1d(groups[split.train], groups[split.val]).size
    val_counts = np.bincount(catalog.labels[split.val], minlength=len(counts))
    for val_count, count in zip(val_counts, counts, strict=True):
        assert val_count <= expected_val_count(fraction, count)
    # Groups with two labels are used for training only.
    with_two_labels = {group for group in groups if len(set(catalog.labels[groups == group])) > 1}
    assert not with_two_labels & set(groups[split.val])


def test_another_seed_draws_another_split() -> None:
    catalog = make_catalog([30, 30])
    groups = one_group_per_file(catalog)
    splits = {tuple(split_catalog(catalog, 0.3, seed, groups).val) for seed in range(5)}
    assert len(splits) == 5


def test_a_new_class_does_not_change_the_split_of_the_other_classes() -> None:
    small, large = make_catalog([9, 9]), make_catalog([9, 9, 20])
    val = [split_catalog(c, 0.3, 1, one_group_per_file(c)).val for c in (small, large)]
    assert val[0].tolist() == [i for i in val[1].tolist() if i < 18]


def test_the_split_of_seed_seven_stays_the_same() -> None:
    """Runs of earlier versions can be resumed only if these numbers stay the same."""
    catalog = make_catalog([10, 12])
    split = split_catalog(catalog, 0.25, 7, one_group_per_file(catalog))
    assert split.val.tolist() == [0, 8, 13, 14, 18]


def test_duplicates_are_found_by_their_bytes(tmp_path: Path) -> None:
    contents = {"a/1.png": b"same", "a/2.png": b"diff", "b/1.png": b"same", "b/2.png": b"longer"}
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    catalog = scan_folder(tmp_path)
    groups = find_duplicates(catalog)
    assert groups.dtype == np.int64
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_files_that_cannot_be_read_are_not_duplicates() -> None:
    catalog = make_catalog([2, 2], Path("/no/such/folder"))
    assert len(set(find_duplicates(catalog).tolist())) == 4


def test_large_files_that_differ_only_at_their_ends_are_not_identical(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    start = bytes((1 << 20) + 10)
    for name, end in (("1", b"x"), ("2", b"y"), ("3", b"x")):
        (tmp_path / "a" / f"{name}.png").write_bytes(start + end)
    groups = find_duplicates(scan_folder(tmp_path))
    assert groups[0] == groups[2] != groups[1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5], "only one class ('c0'); a classifier needs at least two classes"),
        ([5, 1], "class 'c1' has 1 usable image; add images (at least two) or remove the class"),
        ([5, 0], "class 'c1' has 0 usable images; add images (at least two) or remove the class"),
    ],
)
def test_too_few_classes_or_images_to_train_are_refused(counts: list[int], message: str) -> None:
    catalog = make_catalog(counts)
    with pytest.raises(UserError) as error:
        check_trainable(catalog)
    assert str(error.value) == f"--data_dir=/data: {message}"
    with pytest.raises(UserError):
        split_catalog(catalog, 0.2, 0, one_group_per_file(catalog))


class_names = st.lists(
    st.text("a, \"ü'", min_size=1, max_size=4).filter(lambda n: n not in (".", "..")),
    min_size=2,
    max_size=4,
    unique=True,
)


@given(class_names, seeds)
def test_a_written_split_is_read_back_with_any_class_names(names: list[str], seed: int) -> None:
    plain = make_catalog([4] * len(names))
    paths = tuple(
        f"{names[label]}/{path}" for path, label in zip(plain.paths, plain.labels, strict=True)
    )
    catalog = Catalog(plain.root, paths, plain.labels, tuple(names))
    split = split_catalog(catalog, 0.4, seed, one_group_per_file(catalog))
    with tempfile.TemporaryDirectory() as folder:
        write_split_csv(Path(folder) / "split.csv", catalog, split)
        back = read_split_csv(Path(folder) / "split.csv", catalog)
    assert back.train.tolist() == split.train.tolist()
    assert back.val.tolist() == split.val.tolist()


def test_a_written_split_is_a_plain_table(tmp_path: Path) -> None:
    catalog = make_catalog([2, 2])
    split = Split(np.array([0, 3]), np.array([1]))
    write_split_csv(tmp_path / "split.csv", catalog, split)
    lines = (tmp_path / "split.csv").read_text().splitlines()
    assert lines == [
        "file,label,split",
        "c0/000.png,c0,train",
        "c0/001.png,c0,val",
        "c1/003.png,c1,train",
    ]


TABLE = "c0/000.png,c0,train\nc0/001.png,c0,val\nc1/002.png,c1,train\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TABLE + "c9/7.png,c0,train\n", "'c9/7.png' is not in /data"),
        (TABLE + "c1/003.png,c0,val\n", "'c1/003.png' has the label 'c0', but 'c1' in the data"),
        (TABLE + "c1/003.png,c1,tset\n", "split 'tset' of 'c1/003.png'; use train, val or test"),
        (TABLE + "c0/001.png,c0,train\n", "'c0/001.png' is on two sides; keep it on one"),
        ("c0/000.png,c0,train\nc0/001.png,c0,val\n", "class 'c1' has no training images"),
        (
            "c0/000.png,c0,train\nc1/002.png,c1,train\n",
            "no val images; train and val need at least one each",
        ),
        ("c0/000.png,c0,val\n", "no train images; train and val need at least one each"),
    ],
)
def test_an_unusable_split_table_is_refused(tmp_path: Path, rows: str, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text("file,label,split\n" + rows)
    with pytest.raises(UserError) as error:
        read_split_csv(path, make_catalog([2, 2]))
    assert str(error.value).startswith(f"--split_csv={path}: {message}")
    assert "\n" not in str(error.value)


def test_a_split_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("file,label\nc0/000.png,c0\n")
    with pytest.raises(UserError, match="no column 'split', found file, label"):
        read_split_csv(tmp_path / "split.csv", make_catalog([2, 2]))


def test_a_split_table_can_contain_a_file_that_was_refused(tmp_path: Path) -> None:
    plain = make_catalog([2, 2])
    faults = (Fault("c1/bad.png", "corrupt", ""),)
    catalog = Catalog(plain.root, plain.paths, plain.labels, plain.class_names, faults)
    (tmp_path / "split.csv").write_text("file,label,split\n" + TABLE + "c1/bad.png,c1,val\n")
    split = read_split_csv(tmp_path / "split.csv", catalog)
    assert (split.train.tolist(), split.val.tolist()) == ([0, 2], [1])


def test_two_folders_are_joined_under_their_parent(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "train")
    shutil.copytree(tiny_folder / "two words", tmp_path / "held out" / "two words")
    (tmp_path / "held out" / "x.jpg").touch()
    (tmp_path / "held out" / "x.txt").touch()
    train, val = scan_folder(tmp_path / "train"), scan_folder(tmp_path / "held out")
    labels = val.labels + 1  # "two words" is class 1 of the training folder.
    val = Catalog(val.root, val.paths, labels, train.class_names, val.faults, val.others)
    joined, split = join_catalogs(train, val)
    assert all(Path(path).is_file() for path in joined.absolute_paths())
    assert joined.root == tmp_path.resolve()
    assert split.train.tolist() == list(range(18))
    assert split.val.tolist() == list(range(18, 24))
    assert Counter(joined.labels[split.val].tolist()) == {1: 6}
    assert joined.paths[18] == "held out/two words/0.png"
    assert [fault.path for fault in joined.faults] == ["held out/x.jpg"]
    assert joined.others == {".txt": 1}
    check_split(joined, split, "--val_dir")


def test_a_folder_and_its_parent_can_be_joined(tiny_copy: Path) -> None:
    train = scan_folder(tiny_copy)
    joined, _ = join_catalogs(train, scan_folder(tiny_copy.parent))
    assert all(Path(path).is_file() for path in joined.absolute_paths())
