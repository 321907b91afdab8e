"""Folders and tables of users: each is read correctly, or refused in one line."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.data.catalog import align_labels, scan_folder
from seedtf.data.check.check import check_data
from seedtf.data.columns import ANY_COLUMNS, Columns
from seedtf.data.label_table import read_label_table
from seedtf.data.layouts import find_layout
from seedtf.data.listing import list_files
from seedtf.data.split import classes_without_validation, read_split_csv
from seedtf.errors import UserError
from seedtf.runs.folder import format_class_names, read_class_names
from seedtf.runs.paths import RunPaths

FILES = ("cat/1.jpg", "cat/2.jpg", "dog/3.png", "dog/4.png")
IDS = ("00a.jpg", "00b.jpg", "00c.jpg", "00d.jpg")
LABELS = ("cat", "cat", "dog", "dog")

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """A function that creates empty files below the folder ``root`` and returns this folder."""

    def create(*names: str, root: str = "data") -> Path:
        for name in names:
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / root

    return create


def read(
    root: Path, text: str | bytes, columns: Columns = ANY_COLUMNS
) -> tuple[dict[str, str], str]:
    """The label that a table gives to each file below ``root``, and the detected format."""
    path = root.parent / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = read_label_table(path, root, columns=columns)
    names = [table.catalog.class_names[label] for label in table.catalog.labels]
    return dict(zip(table.catalog.paths, names, strict=True)), table.description


def refusal(root: Path, text: str | bytes, columns: Columns = ANY_COLUMNS) -> str:
    """Why a table is refused: the message after the path of the table, if the message has this path."""
    with pytest.raises(UserError) as error:
        read(root, text, columns)
    message = str(error.value)
    assert "\n" not in message
    return message.partition("labels.csv: ")[2] or message


def table_text(separator: str = ",", header: str = "", files: tuple[str, ...] = FILES) -> str:
    """A table with a row for each of ``files``; the labels are ``LABELS``."""
    lines = [separator.join(pair) for pair in zip(files, LABELS, strict=True)]
    return "\n".join([header, *lines] if header else lines) + "\n"


EXPECTED = dict(zip(FILES, LABELS, strict=True))


@pytest.mark.parametrize(
    "header",
    [
        "File,Label",
        "image,category",
        "File , Label",
        "Image_ID,Target",
        "filename,class",
        "path,species",
        "image_name,breed",
        "Image,Id",
        "img path,Variety",
        "id,diagnosis",
        "photo,disease",
    ],
)
def test_the_header_names_that_people_use_are_known(touch: Touch, header: str) -> None:
    labels, description = read(touch(*FILES), table_text(header=header))
    assert labels == EXPECTED
    file_name, label_name = header.split(",")
    assert description.startswith(
        f"file = `{file_name.strip()}`, label = `{label_name.strip()}`, separator"
    )


@pytest.mark.parametrize(("separator", "name"), [(";", "`;`"), ("\t", "tab"), ("|", "`|`")])
def test_the_separator_is_recognised_and_printed(touch: Touch, separator: str, name: str) -> None:
    labels, description = read(touch(*FILES), table_text(separator, f"file{separator}label"))
    assert labels == EXPECTED
    assert description == f"file = `file`, label = `label`, separator {name}"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_the_encodings_of_excel_are_read(touch: Touch, encoding: str) -> None:
    root = touch("müsli/1.jpg", "ä.png")
    labels, description = read(root, "file,label\nmüsli/1.jpg,Weiß\nä.png,Schön\n".encode(encoding))
    assert labels == {"müsli/1.jpg": "Weiß", "ä.png": "Schön"}
    assert ("encoding" in description) == (encoding != "utf-8-sig")


def test_a_spreadsheet_is_refused_as_a_spreadsheet(touch: Touch) -> None:
    assert refusal(touch(*FILES), b"PK\x03\x04rest").startswith(
        "is a spreadsheet or a ZIP archive; save"
    )


def test_a_table_may_lack_a_header(touch: Touch) -> None:
    labels, description = read(touch(*FILES), table_text(";"))
    assert labels == EXPECTED
    assert description == "file = column 1, label = column 2, no header, separator `;`"


def test_columns_without_header_may_be_given_by_number(touch: Touch) -> None:
    text = "x,cat,cat/1.jpg\nx,dog,dog/3.png\n"
    assert "label may be in the columns 1, 2; pass --label_column" in refusal(touch(*FILES), text)
    labels, _ = read(touch(*FILES), text, Columns(label="2"))
    assert labels == {"cat/1.jpg": "cat", "dog/3.png": "dog"}


def test_ids_without_suffix_are_found(touch: Touch) -> None:
    ids = tuple(name[:-4] for name in IDS)
    labels, description = read(touch(*IDS), table_text(header="id,breed", files=ids))
    assert labels == dict(zip(IDS, LABELS, strict=True))
    assert description == "file = `id` + `.jpg`, label = `breed`, separator comma"


def test_ids_are_found_in_sub_folders(touch: Touch) -> None:
    root = touch(*(f"train/images/{name}" for name in IDS))
    labels, description = read(
        root, table_text(header="id,breed", files=tuple(n[:-4] for n in IDS))
    )
    assert list(labels) == [f"train/images/{name}" for name in IDS]
    assert "found in sub-folders" in description


def test_an_image_without_suffix_is_found_in_a_sub_folder(touch: Touch) -> None:
    root = touch("a/7")
    (root / "a/7").write_bytes(b"GIF89a")
    assert list(read(root, "id,breed\n7,x\n")[0]) == ["a/7"]


def test_an_id_that_fits_two_files_is_refused(touch: Touch) -> None:
    root = touch("a/7.jpg", "b/7.jpg")
    assert "are called '7'" in refusal(root, "id,breed\n7,x\n")


@pytest.mark.parametrize(
    "form",
    ["./{}", "cat/../{}", "data/{}", "{root}/{}", "/old/machine/data/{}", "C:\\me\\data\\{}"],
)
def test_paths_in_any_spelling_are_found(touch: Touch, form: str) -> None:
    root = touch(*FILES)
    files = tuple(form.format(name, root=root) for name in FILES)
    if "\\" in form:
        files = tuple(name.replace("/", "\\") for name in files)
    labels, _ = read(root, table_text(header="file,label", files=files))
    assert labels == EXPECTED


def test_leading_folders_must_be_the_same_in_every_row(touch: Touch) -> None:
    root = touch("1.jpg", "2.jpg")
    message = refusal(root, "file,label\nsiteA/1.jpg,a\nsiteB/1.jpg,a\nsiteB/2.jpg,b\n")
    assert message.startswith("2 of 3 files are not in")


def test_two_spellings_of_a_path_are_one_file(touch: Touch) -> None:
    labels, _ = read(touch(*FILES), "file,label\ncat/1.jpg,a\ncat/../cat/1.jpg,a\ndog/3.png,b\n")
    assert labels == {"cat/1.jpg": "a", "dog/3.png": "b"}


def test_a_table_with_the_header_of_seedtf_has_no_description(touch: Touch) -> None:
    assert read(touch(*FILES), table_text(header="file,label")) == (EXPECTED, "")


def test_further_columns_are_ignored(touch: Touch) -> None:
    text = "n,id,image,breed,url\n" + "".join(
        f"{n},{n},{name},{label},http://x\n" for n, (name, label) in enumerate(EXPECTED.items())
    )
    assert read(touch(*FILES), text)[0] == EXPECTED


def test_of_two_file_columns_the_one_whose_files_exist_is_taken(touch: Touch) -> None:
    text = "path,filename,label\nold/x.jpg,cat/1.jpg,a\nold/y.jpg,dog/3.png,b\n"
    assert read(touch(*FILES), text)[0] == {"cat/1.jpg": "a", "dog/3.png": "b"}


def test_an_ambiguous_column_is_refused_with_the_candidates(touch: Touch) -> None:
    text = "file,species,breed\ncat/1.jpg,cat,tabby\ndog/3.png,dog,pug\n"
    message = refusal(touch(*FILES), text)
    assert message.startswith("the label may be in the columns species, breed; pass --label_column")
    labels, _ = read(touch(*FILES), text, Columns(label="Breed"))
    assert labels == {"cat/1.jpg": "tabby", "dog/3.png": "pug"}


def test_a_name_is_preferred_to_the_number_of_a_class(touch: Touch) -> None:
    text = "file,class_id,class_name\ncat/1.jpg,0,cat\ndog/3.png,1,dog\n"
    assert read(touch(*FILES), text)[0] == {"cat/1.jpg": "cat", "dog/3.png": "dog"}


def test_a_column_that_does_not_exist_is_refused(touch: Touch) -> None:
    message = refusal(touch(*FILES), table_text(header="file,label"), Columns(file="image"))
    assert message.startswith("--file_column=image: no such column in ")


def test_integer_labels_sort_as_numbers(touch: Touch, tmp_path: Path) -> None:
    root = touch(*(f"{n}.jpg" for n in range(12)))
    (tmp_path / "t.csv").write_text("id,label\n" + "".join(f"{n},{n}\n" for n in range(12)))
    assert read_label_table(tmp_path / "t.csv", root).catalog.class_names == tuple(
        map(str, range(12))
    )


def test_several_labels_in_a_cell_are_refused(touch: Touch) -> None:
    text = 'file,label\ncat/1.jpg,cat\ncat/2.jpg,"cat,dog"\ndog/3.png,dog\n'
    assert refusal(touch(*FILES), text).startswith(
        "a row has several labels ('cat,dog'), and seedtf"
    )


def test_a_label_of_several_words_is_one_label(touch: Touch) -> None:
    text = 'file,label\ncat/1.jpg,"Maize, young"\ndog/3.png,"Maize, old"\ndog/4.png,Fat Hen\n'
    assert set(read(touch(*FILES), text)[0].values()) == {"Maize, young", "Maize, old", "Fat Hen"}


SPLIT_ROWS = "".join(
    f"{label}/{side}{n}.jpg,{label},{side}\n"
    for label in ("cat", "dog")
    for side in ("train", "valid", "test")
    for n in range(2)
)
SPLIT_FILES = tuple(row.split(",")[0] for row in SPLIT_ROWS.splitlines())


def test_a_split_column_gives_the_split_and_test_rows_are_kept_for_the_end(
    touch: Touch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch(*SPLIT_FILES)
    (tmp_path / "t.csv").write_text("image,label,split\n" + SPLIT_ROWS)
    catalog, split = list_files(str(root), str(tmp_path / "t.csv"))
    assert split is not None
    assert all("/train" in catalog.paths[index] for index in split.train)
    assert all("/valid" in catalog.paths[index] for index in split.val)
    assert (len(catalog), *(len(side) for side in split.sides.values())) == (12, 4, 4, 4)
    printed = capsys.readouterr().out
    assert "split = `split`" in printed
    assert "4 images kept for the end" in printed


def test_the_split_in_a_split_csv_without_test_rows_is_used_only_with_split_column(
    touch: Touch, tmp_path: Path
) -> None:
    root = touch(*SPLIT_FILES)
    text = "file,label,split\n" + SPLIT_ROWS.replace("valid\n", "val\n").replace(
        ",test\n", ",val\n"
    )
    (tmp_path / "t.csv").write_text(text)
    assert list_files(str(root), str(tmp_path / "t.csv"))[1] is None
    assert list_files(str(root), str(tmp_path / "t.csv"), Columns(split="split"))[1] is not None


def test_a_split_column_with_an_unknown_word_is_refused(touch: Touch, tmp_path: Path) -> None:
    message = refusal(touch(*FILES), "file,label,s\ncat/1.jpg,a,x\n", Columns(split="s"))
    assert message == "row 2: split 'x'; use train, val or test"


@pytest.mark.parametrize(
    ("cell", "before", "after"),
    [("", 30, 0), ("", 5, 5), ("extra", 30, 5), ("extra", 5, 5)],
    ids=str,
)
def test_a_split_cell_without_train_val_or_test_is_refused_if_the_table_gives_the_split(
    touch: Touch, tmp_path: Path, cell: str, before: int, after: int
) -> None:
    names = [f"{n}.jpg" for n in range(before + 1 + after)]
    sides = ["train", "test"] * (before // 2) + ["val"] * (before % 2) + [cell] + ["val"] * after
    lines = [f"{name},{name[0]},{side}" for name, side in zip(names, sides, strict=True)]
    root = touch(*names)
    for header in ("image,breed,split", "file,label,set"):
        text = "\n".join([header, *lines, ""])
        assert refusal(root, text) == (
            f"row {before + 2}: split {cell!r}; use train, val or test, or pass --split_column=none "
            f"if `{header.rpartition(',')[2]}` is no split"
        )
        labels, description = read(root, text, Columns(split="none"))
        assert len(labels) == len(names)
        assert "split =" not in description
        table = str(tmp_path / "labels.csv")
        assert list_files(str(root), table, Columns(split="none"), min_images=1)[1] is None


def test_an_empty_split_cell_is_refused_beside_class_folders_too(touch: Touch) -> None:
    names = [f"h{n % 2}/{n}.jpg" for n in range(8)]
    root = touch(*names)
    sides = ["train", "test", "train", "val", "train", "test", "train", ""]
    for label in ("x", "h"):  # labels that differ from the class folders, then equal labels
        rows = [f"{name},{label}{name[1]},{side}" for name, side in zip(names, sides, strict=True)]
        (root / "metadata.csv").write_text("\n".join(["file_name,label,split", *rows[::-1], ""]))
        with pytest.raises(UserError, match=r"split ''; use train, val or test"):
            list_files(str(root), min_images=1)
        catalog, split = list_files(str(root), layout="folders", min_images=1)
        assert (catalog.class_names, split) == (("h0", "h1"), None)


def test_an_empty_split_cell_is_allowed_if_a_new_split_is_drawn(
    touch: Touch, tmp_path: Path
) -> None:
    root = touch(*FILES)
    text = "file,label,split\n" + "".join(f"{path},{path[:3]},train\n" for path in FILES)
    labels, _ = read(root, text.replace("4.png,dog,train", "4.png,dog,"))
    assert labels == EXPECTED
    assert list_files(str(root), str(tmp_path / "labels.csv"))[1] is None


def test_the_test_rows_of_a_split_csv_are_neither_trained_nor_validated_on(
    touch: Touch, tmp_path: Path
) -> None:
    root = touch(*SPLIT_FILES)
    text = "file,label,split\n" + SPLIT_ROWS.replace("valid\n", "val\n")
    (tmp_path / "t.csv").write_text(text)
    catalog, _ = list_files(str(root))
    split = read_split_csv(tmp_path / "t.csv", catalog)
    used = {catalog.paths[index] for index in np.concatenate([split.train, split.val])}
    assert (len(catalog), len(used), len(split.test)) == (12, 8, 4)
    assert not any("/test" in path for path in used)


@pytest.mark.parametrize(
    "folder",
    ["$RECYCLE.BIN", "lost+found", "System Volume Information", "#recycle", "__MACOSX", "@eaDir"],
)
def test_system_folders_are_no_classes_and_are_printed(
    touch: Touch, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    catalog = scan_folder(touch(*FILES, f"{folder}/S-1/1.jpg"))
    assert catalog.class_names == ("cat", "dog")
    assert catalog.faults == ()
    expected = f"left out  {folder}: written by the system or by seedtf, not classes\n"
    assert capsys.readouterr().out == expected


def test_hidden_folders_are_no_classes(touch: Touch, capsys: pytest.CaptureFixture[str]) -> None:
    assert scan_folder(touch(*FILES, ".ipynb_checkpoints/1.jpg")).class_names == ("cat", "dog")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "output",
    [
        ("runs/1/curves.png", "runs/1/state/lock", "runs/1/checkpoints/best.keras"),
        ("runs/2-lr_find/lr_find.png", "runs/2-lr_find/lr_find.csv"),
        ("search/trials.csv", "search/importance.png", "search/trial-0001/state/lock"),
        ("five/folds.csv", "five/folds.json", "five/report/confusion_matrix.png"),
        ("cache/sample/.seedtf-sample.json", "cache/sample/Maize/0000.png"),
    ],
)
def test_what_seedtf_wrote_is_no_class(
    touch: Touch, capsys: pytest.CaptureFixture[str], output: tuple[str, ...]
) -> None:
    root = touch(*FILES, *output)
    assert scan_folder(root).class_names == ("cat", "dog")
    assert "written by the system or by seedtf" in capsys.readouterr().out


def test_the_folder_of_the_sample_data_can_be_listed(touch: Touch) -> None:
    assert scan_folder(touch(".seedtf-sample.json", *FILES)).class_names == ("cat", "dog")


COMPOSED, SEPARATE = "S\u00e9n\u00e9", "Se\u0301ne\u0301"  # the same name in the forms NFC and NFD


def test_composed_accents_in_train_and_separate_ones_in_val_name_one_class(touch: Touch) -> None:
    train = scan_folder(touch(f"{COMPOSED}/1.jpg", "Mais/2.jpg", root="train"))
    val = scan_folder(touch(f"{SEPARATE}/3.jpg", "Mais/4.jpg", root="val"))
    aligned = align_labels(val, train.class_names, "--val_dir")
    assert aligned.class_names == ("Mais", COMPOSED)
    assert [aligned.class_names[label] for label in aligned.labels] == ["Mais", COMPOSED]


def test_class_folders_with_composed_and_separate_accents_are_one_class(touch: Touch) -> None:
    catalog = scan_folder(touch(f"{COMPOSED}/1.jpg", f"{SEPARATE}/2.jpg"))
    assert catalog.class_names == (COMPOSED,)
    assert len(catalog) == 2


def test_a_class_name_with_separate_accents_is_kept(touch: Touch) -> None:
    assert scan_folder(touch(f"{SEPARATE}/2.jpg")).class_names == (SEPARATE,)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(st.lists(NAMES | st.sampled_from(['"a"', '"a\\nb"', "a\u2028b", "a\vb", "a\x85", "a\r"])))
def test_any_class_name_can_be_written_and_read_back(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        RunPaths.of(folder).classes.write_bytes(format_class_names(names).encode())
        assert read_class_names(folder) == tuple(names or [""])  # an empty file has one empty name


def test_files_of_class_names_from_earlier_versions_are_read(tmp_path: Path) -> None:
    names = ("Maize", '"quoted"', 'a "b"', "Fat\u2028Hen", "back\\slash")
    RunPaths(tmp_path).classes.write_text("".join(f"{name}\n" for name in names))
    assert read_class_names(tmp_path) == names


def test_class_names_that_are_not_utf_8_are_a_user_error(tmp_path: Path) -> None:
    RunPaths(tmp_path).classes.write_bytes("Möhre\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"classes\.txt is damaged \('utf-8' codec .*; restore it"):
        read_class_names(tmp_path)


def split_names(*sides: str) -> tuple[str, ...]:
    """The paths of two images of each of two classes in each folder of a split."""
    return tuple(
        f"{side}/{c}/{side}{n}.jpg" for side in sides for c in ("cat", "dog") for n in "12"
    )


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("training", "validation", "testing"),
        ("train", "valid", ""),
    ],
)
def test_split_folders_are_the_split(
    touch: Touch, capsys: pytest.CaptureFixture[str], train: str, val: str, test: str
) -> None:
    root = touch(*split_names(*filter(None, (train, val, test))), "README.txt")
    catalog, split = list_files(str(root))
    assert catalog.class_names == ("cat", "dog")
    assert split is not None
    assert {catalog.paths[index].split("/")[0] for index in split.train} == {train}
    assert {catalog.paths[index].split("/")[0] for index in split.val} == {val}
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"layout    folders of a split in {root}: {train} (train), {val} (val)")
    assert [line.startswith(f"test      {root / test} is kept") for line in others] == [
        True
    ] * bool(test)


def test_a_test_folder_without_a_validation_folder_is_kept_for_the_end(touch: Touch) -> None:
    catalog, split = list_files(str(touch(*split_names("train", "test"))))
    assert split is not None
    assert len(split.val) == 0  # later, validation images are drawn from the training images
    assert all(catalog.paths[index].startswith("test/") for index in split.test)
    assert (len(split.train), len(split.test)) == (4, 4)


def test_a_test_folder_without_the_class_folders_is_not_used(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch(*split_names("train", "val"), "test/unknown/1.jpg")
    _, split = list_files(str(root))
    assert split is not None
    assert not len(split.test)
    assert f"{root / 'test'} is not used" in capsys.readouterr().out


def test_with_layout_folders_split_folders_are_classes(touch: Touch) -> None:
    catalog, split = list_files(str(touch(*split_names("train", "val"))), layout="folders")
    assert (catalog.class_names, split) == (("train", "val"), None)


def test_classes_that_are_called_train_and_bus_are_classes(touch: Touch) -> None:
    root = touch("train/1.jpg", "train/2.jpg", "bus/1.jpg", "bus/2.jpg", "test/1.jpg", "test/2.jpg")
    assert list_files(str(root))[0].class_names == ("bus", "test", "train")


def test_split_folders_beside_a_class_are_ambiguous(touch: Touch) -> None:
    root = touch(*split_names("train", "val"), "bus/1.jpg")
    with pytest.raises(UserError, match="holds train, val beside bus; pass --layout=folders"):
        list_files(str(root))
    assert list_files(str(root), layout="split_folders")[0].class_names == ("cat", "dog")


def test_two_validation_folders_are_ambiguous(touch: Touch) -> None:
    with pytest.raises(UserError, match="holds both val and valid; pass --layout=folders"):
        list_files(str(touch(*split_names("train", "val", "valid"))))


def test_split_folders_without_class_folders_need_a_table(touch: Touch) -> None:
    with pytest.raises(
        UserError, match="train, test hold images without class folders; pass --lab"
    ):
        list_files(str(touch("train/1.jpg", "test/2.jpg")))


def test_split_folders_that_do_not_exist_are_refused(touch: Touch) -> None:
    with pytest.raises(UserError, match="no folder train with class folders; leave --layout out"):
        list_files(str(touch(*FILES)), layout="split_folders")


@pytest.mark.parametrize("wrapper", ["archive", "archive/PlantSeedlings", "a/b/c"])
def test_one_wrapping_folder_is_entered_and_printed(
    touch: Touch, capsys: pytest.CaptureFixture[str], wrapper: str
) -> None:
    root = touch(*(f"{wrapper}/{name}" for name in FILES), "readme.md", "docs/x.txt")
    catalog, _ = list_files(str(root))
    assert catalog.class_names == ("cat", "dog")
    assert catalog.root == root / wrapper
    assert capsys.readouterr().out.startswith(
        f"layout    class folders in {root / wrapper}, the only"
    )


def test_split_folders_are_found_in_a_wrapping_folder(touch: Touch) -> None:
    root = touch(*(f"data/{name}" for name in split_names("train", "val")))
    catalog, split = list_files(str(root))
    assert (catalog.class_names, split is not None) == (("cat", "dog"), True)


def test_a_single_class_folder_is_no_wrapping_folder(touch: Touch) -> None:
    with pytest.raises(UserError, match=r"only one class \('cat'\)"):
        list_files(str(touch("cat/1.jpg", "cat/2.jpg", "cat/old/3.jpg", "cat/new/4.jpg")))


def test_the_folder_of_a_known_class_is_no_wrapping_folder(touch: Touch) -> None:
    root = touch("cat/old/3.jpg", "cat/new/4.jpg")
    assert find_layout(root, class_names=("cat", "dog")).root == root
    assert find_layout(root).root == root / "cat"


def test_a_flat_folder_is_refused_with_the_flags_that_read_it(touch: Touch) -> None:
    root = touch("cat.1.jpg", "cat.2.jpg", "Black-grass_1.png", "Black-grass_2.png")
    with pytest.raises(
        UserError, match="images lie directly in it, without class folders; pass --la"
    ):
        list_files(str(root))
    catalog, _ = list_files(str(root), layout="flat")
    assert catalog.class_names == ("Black-grass", "cat")
    assert catalog.labels.tolist() == [0, 0, 1, 1]


def test_a_check_reads_every_folder_of_a_split(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted(folder.name for folder in tiny_folder.iterdir())[:2]
    for side, number in (("train", 0), ("val", 1), ("test", 2)):
        for name in (first, second):
            (tmp_path / side / name).mkdir(parents=True)
            image = sorted((tiny_folder / name).iterdir())[number]
            shutil.copy(image, tmp_path / side / name)
    result = check_data(str(tmp_path))
    assert result.catalog.class_counts() == {first: 3, second: 3}
    assert not any(finding.fault == "empty class" for finding in result.findings)
    assert capsys.readouterr().out.startswith("layout    folders of a split")


def test_one_training_image_of_a_class_is_enough_where_the_split_is_given(touch: Touch) -> None:
    root = touch("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg")
    catalog, split = list_files(str(root))
    assert split is not None
    assert classes_without_validation(catalog, split) == ["dog"]
    with pytest.raises(
        UserError, match=r"class 'cat' has 1 usable image; add images .at least two"
    ):
        list_files(str(root / "train"))
    assert len(list_files(str(root / "train"), min_images=1)[0]) == 2


PNG = b"\x89PNG\r\n\x1a\n"
FIRST_BYTES = {
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "png": PNG,
    "gif": b"GIF89a",
    "bmp": b"BM" + bytes(12) + b"\x28\0\0\0",
    "webp": b"RIFF\x1a\0\0\0WEBPVP8 ",
    "tiff": b"MM\0*\0\0\0\x08",
    "avif": b"\0\0\0\x1cftypavif",
    "heic": b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic",
    "pnm": b"P6\n2 2\n255\n",
}


@pytest.mark.parametrize("kind", FIRST_BYTES)
@pytest.mark.parametrize("name", ["photo", "photo.JPG_large", "photo.dat", "photo.txt"])
def test_an_image_is_found_by_its_first_bytes_whatever_its_name(
    tmp_path: Path, kind: str, name: str
) -> None:
    for folder in ("cat", "dog"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(FIRST_BYTES[kind] + bytes(60))
        (tmp_path / folder / "notes").write_text("BMW is a car, and P6 and GIF are words\n")
    catalog, _ = list_files(str(tmp_path), min_images=1)
    assert catalog.paths == (f"cat/{name}", f"dog/{name}")
    assert catalog.others == {"no suffix": 2}
    assert catalog.faults == ()


@pytest.mark.parametrize("layout", ["wrapped", "split", "flat", "metadata", "ids"])
def test_every_layout_finds_images_without_a_suffix(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "data"
    names = {
        "wrapped": ["archive/cat/1", "archive/cat/2", "archive/dog/3", "archive/dog/4"],
        "split": ["train/cat/1", "train/dog/2", "valid/cat/3", "valid/dog/4"],
        "flat": ["cat.1", "cat.2", "dog.3", "dog.4"],
    }.get(layout, ["1", "2", "3", "4"])
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)
    rows = "".join(f"{name},{'cat' if name in '12' else 'dog'}\n" for name in names)
    if layout == "metadata":
        (root / "metadata.csv").write_text(f"file_name,label\n{rows}")
    if layout == "ids":
        (tmp_path / "labels.csv").write_text(f"id,breed\n{rows}")
    labels = str(tmp_path / "labels.csv") if layout == "ids" else ""
    forced = "flat" if layout == "flat" else "auto"
    catalog, split = list_files(str(root), labels, layout=forced, min_images=1)
    assert catalog.class_names == ("cat", "dog")
    assert len(catalog) == 4
    assert catalog.class_counts() == {"cat": 2, "dog": 2}
    assert (split is not None) == (layout == "split")


def test_a_folder_without_an_image_is_printed_as_no_class(
    touch: Touch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = touch(*FILES, "bird/a.xyz", "bird/b.xyz", "bird/c")
    catalog, _ = list_files(str(root))
    assert catalog.class_names == ("cat", "dog")
    printed = capsys.readouterr()
    line = "folder 'bird' is not a class: 3 files (2 .xyz, 1 no suffix), none an image"
    assert line in printed.out + printed.err
