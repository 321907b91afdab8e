"""Listing files and tables: which entries are images, faults or skipped, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.data.catalog import align_labels, scan_folder
from seedtf.data.label_table import read_label_table
from seedtf.data.string_array import NameFinder, StringArray
from seedtf.data.table_text import read_csv
from seedtf.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_table(root: Path, text: str | bytes) -> Path:
    path = root / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message of ``error``, which must have one line."""
    message = str(error.value)
    assert "\n" not in message
    return message


def test_paths_may_have_spaces_unicode_capitals_and_nested_folders(tmp_path: Path) -> None:
    files = ("two words/a b.jpg", "öland/é/deep/1.PNG", "zoo/x.JpEg", "zoo/y.webp", "Alder/z.gif")
    catalog = scan_folder(touch(tmp_path, *files))
    assert catalog.class_names == ("Alder", "two words", "zoo", "öland")
    assert catalog.paths == tuple(sorted(files))
    assert catalog.labels.dtype == np.int32
    by_path = dict(zip(catalog.paths, catalog.labels.tolist(), strict=True))
    assert all(catalog.class_names[by_path[f]] == f.split("/")[0] for f in files)
    assert catalog.faults == ()
    assert catalog.class_counts() == {"Alder": 1, "two words": 1, "zoo": 2, "öland": 1}
    assert all(Path(path).is_file() for path in catalog.absolute_paths())


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "png", "bmp", "gif", "webp", "tif", "heic"])
def test_a_file_with_an_image_suffix_in_any_case_is_an_image(tmp_path: Path, suffix: str) -> None:
    catalog = scan_folder(touch(tmp_path, f"c/low.{suffix}", f"c/HIGH.{suffix.upper()}"))
    assert len(catalog) == 2


def test_system_and_hidden_entries_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.jpg", ".DS_Store", "c/.DS_Store", "c/._1.jpg", "c/Thumbs.db")
    touch(tmp_path, "c/desktop.ini", "__MACOSX/c/1.jpg", ".git/x.jpg", "@eaDir/t.jpg")
    catalog = scan_folder(tmp_path)
    assert catalog.paths == ("c/1.jpg",)
    assert catalog.class_names == ("c",)
    assert catalog.faults == ()


def test_other_files_are_counted_and_a_stray_image_is_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.jpg", "c/README", "notes.txt", "c/b.TXT", "stray.png")
    catalog = scan_folder(tmp_path)
    assert catalog.paths == ("c/1.jpg",)
    assert catalog.others == {"no suffix": 1, ".txt": 2}
    assert [(fault.path, fault.fault) for fault in catalog.faults] == [
        ("stray.png", "no class folder")
    ]


def test_a_folder_without_images_is_not_a_class(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert scan_folder(touch(tmp_path, "c/1.jpg", "docs/a.txt")).class_names == ("c",)


def test_a_name_that_is_not_utf_8_is_a_fault_with_an_escaped_path(tmp_path: Path) -> None:
    touch(tmp_path, "c/1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/c/bad\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    catalog = scan_folder(tmp_path)
    assert catalog.paths == ("c/1.jpg",)
    assert [(f.path, f.fault) for f in catalog.faults] == [("c/bad\\xff.jpg", "unreadable name")]
    catalog.faults[0].detail.encode("utf-8")  # raises an error if the name is not escaped


def test_a_link_is_followed_and_a_loop_ends(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "1.jpg", "sub/2.jpg")
    root = touch(tmp_path / "data", "c/0.jpg")
    (root / "linked").symlink_to(outside, target_is_directory=True)
    (root / "c" / "up").symlink_to(root, target_is_directory=True)
    (root / "c" / "here").symlink_to(root / "c", target_is_directory=True)
    (outside / "sub" / "back").symlink_to(outside, target_is_directory=True)
    assert scan_folder(root).paths == ("c/0.jpg", "linked/1.jpg", "linked/sub/2.jpg")


def test_the_error_of_a_missing_folder_names_the_flag(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(UserError) as error:
        scan_folder(missing)
    assert one_line(error) == (
        f"--data_dir={missing}: no such folder; pass a folder with one sub-folder per class"
    )


def test_the_error_of_a_file_in_place_of_a_folder_names_the_flag(tmp_path: Path) -> None:
    file = touch(tmp_path, "photos.zip") / "photos.zip"
    with pytest.raises(UserError) as error:
        scan_folder(file, "--val_dir")
    assert one_line(error) == (
        f"--val_dir={file}: a file; pass a folder with one sub-folder per class"
    )


def test_the_error_of_a_folder_without_images_shows_the_expected_layout(tmp_path: Path) -> None:
    touch(tmp_path, "stray.png", "c/notes.txt")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path)
    assert one_line(error) == (
        f"--data_dir={tmp_path}: no images in class folders (2 other files); expected "
        f"{tmp_path}/<class>/<image>, in any common format"
    )


def test_the_error_of_a_flat_folder_without_images_shows_no_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt", "c/more.txt")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path, flat=True)
    assert one_line(error) == (
        f"--data_dir={tmp_path}: no images in it (2 other files); expected {tmp_path}/<class>.1.jpg, "
        "in any common format"
    )


def test_a_stray_image_in_a_split_folder_is_reported_as_beside_the_class_folders(
    tmp_path: Path,
) -> None:
    root = touch(tmp_path, "train/c/1.jpg", "train/stray.png", "stray.png")
    found = scan_folder(root, split_folders=True).faults
    assert sorted((fault.path, fault.detail) for fault in found) == [
        ("stray.png", "lies beside the class folders"),
        ("train/stray.png", "lies beside the class folders"),
    ]


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    touch(tmp_path, "c/1.jpg")
    monkeypatch.setattr("seedtf.data.walk.os.scandir", denied)
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path)
    assert one_line(error) == f"--data_dir: cannot list {tmp_path}: Permission denied"


names = st.text("abü 1_", min_size=1, max_size=4).filter(lambda name: name.strip() == name)
suffixes = st.sampled_from([".jpg", ".PNG", ".txt", ""])
trees = st.sets(
    st.tuples(
        st.lists(names.map(lambda n: f"d{n}"), max_size=2),
        st.tuples(st.sampled_from(["", "", "."]), names, suffixes).map("".join),
    ).map(lambda t: "/".join([*t[0], t[1]])),
    min_size=1,
    max_size=12,
)


@given(trees)
def test_every_visible_image_is_a_record_or_a_fault(tree: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = touch(Path(folder), *tree, "d/always.png")
        catalog, second = scan_folder(root), scan_folder(root)
    visible = {name for name in {*tree, "d/always.png"} if not name.split("/")[-1].startswith(".")}
    images = {name for name in visible if name.lower().endswith((".jpg", ".png"))}
    listed = [*catalog.paths, *(fault.path for fault in catalog.faults)]
    assert sorted(listed) == sorted(images)
    assert sum(catalog.others.values()) == len(visible - images)
    assert list(catalog.paths) == sorted(catalog.paths)
    assert list(catalog.class_names) == sorted({path.split("/")[0] for path in catalog.paths})
    assert sum(catalog.class_counts().values()) == len(catalog) == len(catalog.labels)
    assert (second.paths, second.class_names, second.faults) == (
        catalog.paths,
        catalog.class_names,
        catalog.faults,
    )


def test_take_selects_records_in_the_given_order(tiny_folder: Path) -> None:
    catalog = scan_folder(tiny_folder)
    part = catalog.take(np.array([17, 0, 6]))
    assert part.paths == (catalog.paths[17], catalog.paths[0], catalog.paths[6])
    assert part.labels.tolist() == [2, 0, 1]
    assert part.class_names == catalog.class_names


def test_paths_are_sorted_even_if_file_names_begin_with_the_name_of_a_folder(
    tmp_path: Path,
) -> None:
    files = ("c/a/1.jpg", "c/a.jpg", "c/a-b/1.jpg", "c-d/1.jpg", "c/a0.jpg")
    assert scan_folder(touch(tmp_path, *files)).paths == tuple(sorted(files))


any_names = st.lists(st.text(max_size=5) | st.just("bad\udcff.jpg"), max_size=12)


@given(any_names, st.data())
def test_a_string_array_behaves_like_a_list(names: list[str], data: st.DataObject) -> None:
    array = StringArray(names)
    assert list(array) == names == array
    assert array != [*names, "more"]
    assert (array != names[1:]) == bool(names)
    for index in range(-len(names), len(names)):
        assert array[index] == names[index]
        assert array.with_prefix("/top/")[index] == f"/top/{names[index]}"
    with pytest.raises(IndexError):
        array[len(names)]
    indices = st.lists(st.integers(0, max(len(names) - 1, 0)), max_size=9 if names else 0)
    drawn = data.draw(indices)
    assert array.take(np.array(drawn, np.int64)) == [names[index] for index in drawn]
    assert array[1:-1] == names[1:-1]


@given(any_names)
def test_a_name_is_found_at_its_first_index(names: list[str]) -> None:
    finder = NameFinder(StringArray(names))
    assert [finder.find(name) for name in names] == [names.index(name) for name in names]
    assert finder.find("nowhere at all") == -1
    repeated = finder.find_repeated()
    assert (repeated >= 0) == (len(set(names)) < len(names))
    assert repeated < 0 or names[repeated] in names[:repeated]


def test_names_with_the_same_hash_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedtf.data.string_array.hash", lambda name: 7, raising=False)
    finder = NameFinder(StringArray(["b", "a", "b"]))
    assert [finder.find(name) for name in "abc"] == [1, 0, -1]
    assert finder.find_repeated() == 2
    assert NameFinder(StringArray(["b", "a", "c"])).find_repeated() == -1


def test_labels_are_indices_of_the_classes_of_training(tmp_path: Path) -> None:
    catalog = scan_folder(touch(tmp_path, "b/1.jpg", "d/2.jpg"))
    aligned = align_labels(catalog, ("a", "b", "c", "d"), "--val_dir")
    assert aligned.labels.tolist() == [1, 3]
    assert aligned.labels.dtype == np.int32
    assert aligned.class_names == ("a", "b", "c", "d")
    with pytest.raises(UserError) as error:
        align_labels(catalog, ("a", "b"), "--val_dir")
    assert one_line(error) == (
        f"--val_dir={tmp_path}: class 'd' has no training images; "
        "leave its images out, or add training images"
    )


def test_a_table_may_have_a_bom_quotes_and_more_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a, b.jpg", "sub/ü.png", "x.jpg")
    text = '\ufefflabel,file,who\n"two, words","a, b.jpg",me\n\nrye, ./sub/ü.png ,\nrye,x.jpg,you\n'
    catalog = read_label_table(write_table(tmp_path, text), tmp_path).catalog
    assert catalog.paths == ("a, b.jpg", "sub/ü.png", "x.jpg")
    assert catalog.class_names == ("rye", "two, words")
    assert catalog.labels.tolist() == [1, 0, 0]


def test_a_repeated_row_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg", "y.jpg")
    text = "file,label\nx.jpg,a\n./x.jpg,a\ny.jpg,b\n"
    assert read_label_table(write_table(tmp_path, text), tmp_path).catalog.paths == (
        "x.jpg",
        "y.jpg",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx.jpg,a\n", "no column 'file', found name, label; name the columns"),
        ("", "no column 'file', found none; name the columns file and label in"),
        ("file,label\nx.jpg,a\n,\n", "row 3 is incomplete; give a file and a label"),
        ("file,label\nx.jpg\n", "row 2 is incomplete; give a file and a label"),
        (
            "file,label\nx.jpg,a\nx.jpg,b\n",
            "row 3 labels 'x.jpg' as 'b', an earlier row as 'a'; keep one",
        ),
        ("file,label\nx.jpg,a\ngone.jpg,b\n", "1 of 2 files are not in {root}, first 'gone.jpg'"),
        ("file,label\n", "no rows; give one line per image"),
        (b"file,label\n\xff\xfe,a\n", "is not a UTF-8 CSV file"),
    ],
)
def test_an_unusable_table_is_refused_in_one_line(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    path = write_table(touch(tmp_path, "x.jpg"), text)
    with pytest.raises(UserError) as error:
        read_label_table(path, tmp_path)
    start = f"--labels_csv={path}: {message.format(root=tmp_path)}"
    assert one_line(error).startswith(start)


def test_the_error_of_a_missing_table_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        list(read_csv(tmp_path / "no.csv", ("file",), "--split_csv"))
    path = tmp_path / "no.csv"
    assert one_line(error) == f"--split_csv={path}: no such file; pass a CSV table"


def test_listing_needs_no_tensorflow(tiny_folder: Path) -> None:
    code = (
        "import sys; from seedtf.data import catalog, split\n"
        "print(len(catalog.scan_folder(sys.argv[1])), 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tiny_folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["18", "False"]
