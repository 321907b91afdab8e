"""Tables as Hugging Face, Label Studio, Roboflow and Kaggle write them, and the folders around them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from seedtf.commands.main import main
from seedtf.data.columns import ANY_COLUMNS, Columns, find_columns
from seedtf.data.label_table import read_label_table
from seedtf.data.layouts import find_layout, find_unsplit_layout
from seedtf.data.listing import list_files, list_known_classes
from seedtf.errors import UserError

Write = Callable[..., Path]
FLAT_FILES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
LABELS = {"1.jpg": "cat", "2.jpg": "cat", "3.jpg": "dog", "4.jpg": "dog"}
METADATA = "file_name,label\n" + "".join(f"{name},{label}\n" for name, label in LABELS.items())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes files below the folder ``data`` and returns this folder.

    Its positional arguments are the paths of empty files. Its keyword arguments are the texts of other
    files: in a keyword, ``__`` stands for a slash, and ``_csv``, ``_json`` and ``_jsonl`` for a suffix.
    """

    def create(*names: str, **texts: str) -> Path:
        root = tmp_path / "data"
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        for name, text in texts.items():
            path = root / name.replace("__", "/").replace("_csv", ".csv").replace("_json", ".json")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return create


def labels_of(root: Path, **options: object) -> dict[str, str]:
    """The class of each file that a training on ``root`` lists."""
    catalog, _ = list_files(str(root), **options)  # type: ignore[arg-type]
    names = [catalog.class_names[label] for label in catalog.labels]
    return dict(zip(catalog.paths, names, strict=True))


def sides_of(root: Path) -> dict[str, list[str]]:
    """The training and validation files of the split that the data gives."""
    catalog, split = list_files(str(root))
    assert split is not None
    return {
        "train": [catalog.paths[index] for index in split.train],
        "val": [catalog.paths[index] for index in split.val],
    }


def refusal(root: Path, **options: object) -> str:
    """The one-line error of a training on ``root``."""
    with pytest.raises(UserError) as error:
        labels_of(root, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_metadata_csv_beside_the_images_gives_the_labels(write: Write, capsys) -> None:
    root = write(*FLAT_FILES, metadata_csv=METADATA)
    assert labels_of(root) == LABELS
    assert capsys.readouterr().out.splitlines() == [
        f"layout    images in {root} with the labels of {root}/metadata.csv",
        "table     file = `file_name`, label = `label`, separator comma",
    ]


def test_metadata_jsonl_gives_the_labels(write: Write, capsys) -> None:
    rows = [{"file_name": name, "label": label, "n": 1} for name, label in LABELS.items()]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    root = write(*FLAT_FILES, metadata_jsonl=text)
    assert labels_of(root) == LABELS
    assert "label = `label`, JSON Lines" in capsys.readouterr().out


def test_a_line_that_is_no_json_object_is_refused(write: Write) -> None:
    root = write(*FLAT_FILES, metadata_jsonl='{"file_name": "1.jpg", "label": "a"}\n[1]\n')
    assert refusal(root) == f"{root}/metadata.jsonl: a line is no JSON object: '[1]'; correct it"


def test_json_labels_that_are_numbers_sort_as_numbers(write: Write) -> None:
    rows = [{"file_name": f"{n}.jpg", "label": n // 2} for n in range(24)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    catalog, _ = list_files(str(write(*(f"{n}.jpg" for n in range(24)), metadata_jsonl=text)))
    assert catalog.class_names == tuple(map(str, range(12)))


def test_metadata_in_every_folder_of_a_split_gives_the_split(write: Write, capsys) -> None:
    parts = ("train", "validation", "test")
    root = write(
        *(f"{part}/{name}" for part in parts for name in FLAT_FILES),
        **{f"{part}__metadata_csv": METADATA for part in parts},
    )
    assert sides_of(root) == {
        "train": [f"train/{name}" for name in FLAT_FILES],
        "val": [f"validation/{name}" for name in FLAT_FILES],
    }
    assert "4 images kept for the end" in capsys.readouterr().out
    assert labels_of(root / "test") == LABELS


def test_one_table_for_the_folders_of_a_split_gives_the_split(write: Write) -> None:
    rows = "".join(f"{part}/{n}.jpg,{c}\n" for part in ("train", "val") for n, c in enumerate("ab"))
    root = write(
        *(line.split(",")[0] for line in rows.split()), metadata_csv=f"image,label\n{rows}"
    )
    assert sides_of(root) == {
        "train": ["train/0.jpg", "train/1.jpg"],
        "val": ["val/0.jpg", "val/1.jpg"],
    }


ONE_HOT = "filename, cat, dog\n1.jpg, 1, 0\n2.jpg, 1, 0\n3.jpg, 0, 1\n4.jpg, 0, 1\n"


def test_roboflows_table_has_one_column_for_each_class(write: Write, capsys) -> None:
    root = write(
        *(f"{part}/{name}" for part in ("train", "valid") for name in FLAT_FILES),
        train___classes_csv=ONE_HOT,
        valid___classes_csv=ONE_HOT,
    )
    assert sides_of(root)["val"] == [f"valid/{name}" for name in FLAT_FILES]
    assert set(labels_of(root).values()) == {"cat", "dog"}
    assert "one column for each of 2 classes, `cat` to `dog`" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        "image_id,healthy,rust\n1,1,0\n2,0,1\n",
        "image,healthy,rust\n1,1.0,0.0\n2,0.0,1.0\n",
        ",image,healthy,rust\n0,1,TRUE,FALSE\n1,2,FALSE,TRUE\n",
        "image,healthy,rust,split\n1,1,,train\n2,,1,train\n",
    ],
)
def test_one_hot_columns_are_classes(write: Write, tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    catalog = read_label_table(tmp_path / "t.csv", write(*FLAT_FILES)).catalog
    assert catalog.class_names == ("healthy", "rust")
    assert (list(catalog.paths), catalog.labels.tolist()) == (["1.jpg", "2.jpg"], [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "image,cat,dog\n1,1,0\n2,1,1\n",
            "row 3 has 2 labels (cat, dog), and seedtf trains on one",
        ),
        ("image,cat,dog\n1,1,0\n2,0,0\n", "row 3 has no label, and seedtf trains on one label"),
        ("image,kind,blurred,dark\n1,cat,1,0\n2,dog,0,1\n", "no column 'label', found image, kind"),
        ("file_name,text\n1,a cat\n2,a dog\n", "no column 'label', found file_name, text;"),
        (
            "image,cat,dog\n" + "1,1,0\n" * 20 + "2,0.5,0.5\n",
            "row 22: '0.5' in the column cat; use 0 or 1, or pass --label_column",
        ),
    ],
)
def test_columns_that_do_not_give_one_label_are_refused(
    write: Write, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError) as error:
        read_label_table(tmp_path / "t.csv", write(*FLAT_FILES))
    assert str(error.value).partition("t.csv: ")[2].startswith(message)


def test_a_label_column_is_preferred_to_one_hot_columns(write: Write, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,label,blurred\n1,0,1\n2,1,0\n")
    assert read_label_table(tmp_path / "t.csv", write(*FLAT_FILES)).catalog.class_names == (
        "0",
        "1",
    )


@pytest.mark.parametrize("names", [("split", "subset", "fold"), ("partition", "set"), ("fold",)])
@pytest.mark.parametrize("in_order", [True, False])
def test_among_several_split_columns_the_one_with_the_plainest_name_is_used(
    names: tuple[str, ...], in_order: bool
) -> None:
    header = ("image", "label", *(names if in_order else names[::-1]))
    rows = [("1.jpg", "cat", *("train" for _ in names))]
    found = find_columns("t.csv", header, rows, ANY_COLUMNS, lambda cell: False)
    assert found.split is not None
    assert header[found.split] == names[0]
    # A column of numbers, for example the numbers of folds, is no split.
    rows = [("1.jpg", "cat", *("1" for _ in names))]
    found = find_columns("t.csv", header, rows, ANY_COLUMNS, lambda cell: False)
    assert found.split is None


LABEL_STUDIO = "image,id,choice,annotator,annotation_id\n"


@pytest.mark.parametrize(
    "path",
    [
        "/data/upload/1/0a1b2c3d-{}",
        "http://localhost:8080/data/upload/12/0a1b2c3d-{}",
        "/data/local-files/?d=photos/{}",
        "/data/local-files/?d=photos%2F{}",
    ],
)
@pytest.mark.parametrize("folder", ["", "photos/"])
def test_the_paths_of_label_studio_are_found(
    write: Write, tmp_path, path: str, folder: str
) -> None:
    root = write(*(f"{folder}a {name}" for name in FLAT_FILES))
    rows = "".join(
        f"{path.format(f'a%20{name}')},{n},{LABELS[name]},1,{n}\n"
        for n, name in enumerate(FLAT_FILES)
    )
    (tmp_path / "export.csv").write_text(LABEL_STUDIO + rows)
    table = read_label_table(tmp_path / "export.csv", root)
    assert list(table.catalog.paths) == [f"{folder}a {name}" for name in FLAT_FILES]
    assert "file = `image`" in table.description
    assert "label = `choice`" in table.description


def test_several_choices_of_label_studio_are_refused(write: Write, tmp_path: Path) -> None:
    choices = '"{""choices"":[""cat"",""dog""]}"'
    text = f"{LABEL_STUDIO}/data/upload/1/0a1b2c3d-1.jpg,1,{choices},1,1\n"
    (tmp_path / "export.csv").write_text(text)
    with pytest.raises(UserError, match="a row has several labels"):
        read_label_table(tmp_path / "export.csv", write(*FLAT_FILES))


def test_images_that_are_not_in_the_table_are_counted(write: Write, capsys) -> None:
    root = write(*FLAT_FILES, "5.jpg", "sub/6.jpg", metadata_csv=METADATA)
    assert labels_of(root) == LABELS
    assert "2 of 6 images are not listed there and not used" in capsys.readouterr().out


IN_FOLDERS = ("cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "dog/4.jpg")


def test_a_table_with_the_labels_of_the_class_folders_is_not_needed(write: Write) -> None:
    rows = "".join(f"{path},{path[:3]}\n" for path in IN_FOLDERS)
    root = write(*IN_FOLDERS, metadata_csv=f"file_name,label\n{rows}")
    assert find_layout(root).kind == "folders"


def test_a_table_that_contradicts_the_class_folders_is_refused(write: Write) -> None:
    rows = "".join(f"{path},{path[4]}\n" for path in IN_FOLDERS)
    root = write(*IN_FOLDERS, metadata_csv=f"file_name,label\n{rows}")
    message = refusal(root)
    assert "labels 'cat/1.jpg' as '1', but class folders beside the table say otherwise" in message
    assert "; pass --layout=table or --layout=folders" in message
    assert set(labels_of(root, layout="folders").values()) == {"cat", "dog"}
    assert set(labels_of(root, layout="table", min_images=1).values()) == set("1234")


def test_a_table_whose_split_contradicts_the_folders_is_refused(write: Write) -> None:
    paths = [f"{side}/{path}" for side in ("train", "val") for path in IN_FOLDERS]
    sides = {path: path.partition("/")[0] for path in paths}
    header = "file_name,label,split\n"

    def table(sides: dict[str, str]) -> str:
        return header + "".join(f"{path},{path.split('/')[1]},{sides[path]}\n" for path in paths)

    root = write(*paths, metadata_csv=table(sides))
    assert find_layout(root).kind == "split_folders"
    expected = {side: [path for path in paths if path.startswith(side)] for side in sides.values()}
    assert sides_of(root) == expected
    (root / "metadata.csv").write_text(table({**sides, "train/cat/1.jpg": "test"}))
    message = refusal(root)
    assert "says that 'train/cat/1.jpg' is for test, but it lies in the folder train; " in message
    assert message.endswith("pass --layout=table or --layout=split_folders")
    by_folders = find_layout(root, choice="split_folders")
    assert (by_folders.kind, by_folders.table) == ("split_folders", None)
    by_table = find_layout(root, choice="table").table
    assert by_table.sides.tolist() == ["test"] + ["train"] * 3 + ["val"] * 4


def test_a_table_of_some_images_of_the_class_folders_is_refused(write: Write) -> None:
    text = "file_name,label\ncat/1.jpg,cat\ncat/2.jpg,cat\ndog/3.jpg,dog\n"
    root = write(*IN_FOLDERS, metadata_csv=text)
    assert "lists 3 of the 4 images in class folders beside it; pass --layout=table" in refusal(
        root
    )


def test_a_table_without_labels_is_named_and_the_class_folders_are_used(
    write: Write, capsys
) -> None:
    text = "file_name,text\n" + "".join(f"{path},a photo\n" for path in IN_FOLDERS)
    root = write(*IN_FOLDERS, metadata_csv=text)
    assert set(labels_of(root).values()) == {"cat", "dog"}
    assert f"not used: {root}/metadata.csv: no column 'label'" in capsys.readouterr().out


def test_a_table_without_labels_is_refused_if_there_are_no_class_folders(write: Write) -> None:
    root = write(*FLAT_FILES, metadata_csv="file_name,text\n1.jpg,a photo\n")
    assert refusal(root).startswith(
        f"{root}/metadata.csv: no column 'label', found file_name, text"
    )


def test_a_column_flag_applies_to_a_table_that_was_found(write: Write) -> None:
    root = write(*FLAT_FILES, metadata_csv=METADATA.replace("label", "text"))
    assert labels_of(root, columns=Columns(label="text")) == LABELS


@pytest.mark.parametrize(
    "names", [FLAT_FILES, tuple(f"images/{name}" for name in FLAT_FILES)], ids=["flat", "folder"]
)
def test_the_error_proposes_a_table_of_another_name(write: Write, names: tuple[str, ...]) -> None:
    root = write(*names, train_csv=METADATA)
    assert f"pass --labels_csv={root}/train.csv" in refusal(root)
    assert labels_of(root, labels_csv=str(root / "train.csv")).keys() == set(names)


def test_a_table_in_a_wrapping_folder_is_found(write: Write) -> None:
    root = write(*(f"archive/{name}" for name in FLAT_FILES), archive__metadata_csv=METADATA)
    assert labels_of(root) == LABELS
    assert list_files(str(root))[0].root == root / "archive"


def test_layout_table_without_a_table_is_refused(write: Write) -> None:
    message = refusal(write(*IN_FOLDERS), layout="table")
    assert message.endswith(
        "no table of labels in it; pass --labels_csv with a table of their labels"
    )


def test_folders_that_all_have_the_same_subfolders_are_no_classes(write: Write) -> None:
    root = write(*(f"fold{k}/{path}" for k in "12345" for path in IN_FOLDERS))
    message = refusal(root)
    assert "fold1, fold2, … have the same folders (cat, dog); pass one of them, or --lay" in message
    assert len(set(labels_of(root, layout="folders").values())) == 5


def test_class_folders_with_different_sub_folders_are_classes(write: Write) -> None:
    root = write("oak/2019/1.jpg", "oak/2020/2.jpg", "elm/2019/3.jpg", "elm/2021/4.jpg")
    assert set(labels_of(root).values()) == {"elm", "oak"}


@pytest.mark.parametrize("folders", [("images", "masks"), ("JPEGImages", "SegmentationClass")])
def test_images_and_masks_are_no_classes(write: Write, folders: tuple[str, str]) -> None:
    root = write(*(f"{folder}/{name}" for folder in folders for name in FLAT_FILES))
    assert "are no classes by their names; pass --labels_csv" in refusal(root)


@pytest.mark.parametrize("form", ["{}_images", "images-{}", "{} set"])
def test_names_of_split_folders_may_contain_images_or_set(write: Write, form: str) -> None:
    sides = [form.format(side) for side in ("train", "val", "test")]
    root = write(*(f"{side}/{path}" for side in sides for path in IN_FOLDERS))
    assert sides_of(root)["val"] == sorted(f"{sides[1]}/{path}" for path in IN_FOLDERS)
    flat = write(*(f"flat/{side}/{name}" for side in sides for name in FLAT_FILES)) / "flat"
    assert "hold images without class folders; pass --labels_csv" in refusal(flat)


def test_the_test_rows_of_a_table_are_evaluated(write: Write, tmp_path: Path, capsys) -> None:
    rows = "1.jpg,cat,train\n2.jpg,cat,test\n3.jpg,dog,test\n4.jpg,dog,val\n"
    (tmp_path / "t.csv").write_text(f"image,kind,part\n{rows}")
    root, columns = str(write(*FLAT_FILES)), Columns(label="kind", split="part")
    catalog = list_known_classes(
        root, ("cat", "dog"), labels_csv=str(tmp_path / "t.csv"), columns=columns
    )
    assert list(catalog.paths) == ["2.jpg", "3.jpg"]
    assert "the 2 test rows of the 4 rows of the table" in capsys.readouterr().out


def test_a_validation_folder_may_lie_in_another_folder(write: Write, capsys) -> None:
    root = write(*(f"archive/{path}" for path in IN_FOLDERS))
    catalog = list_known_classes(str(root), ("cat", "dog"), "--val_dir")
    assert catalog.root == root / "archive"
    assert "the only folder of images in" in capsys.readouterr().out


def test_a_validation_folder_with_a_split_is_refused(write: Write) -> None:
    root = write(*(f"{side}/{path}" for side in ("train", "val") for path in IN_FOLDERS))
    with pytest.raises(UserError, match=r"^--val_dir=.*: has the folders of a split; pass .*/val$"):
        find_unsplit_layout(root, "--val_dir", ("cat", "dog"))


def test_a_check_shows_the_layout_and_the_command_that_trains(
    tiny_folder, tmp_path, capsys
) -> None:
    assert main(["check", str(tiny_folder), f"--out={tmp_path / 'r.csv'}"]) == 1  # tiny images
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"layout    class folders in {tiny_folder}"
    assert lines[-1] == f"train     seedtf train --data_dir={tiny_folder}"


def test_a_check_says_why_a_training_would_be_refused(tiny_folder, tmp_path, capsys) -> None:
    table, folder = tmp_path / "my table.csv", tiny_folder / "alder"
    flags = [f"--labels_csv={table}", "--label_column=kind"]
    line = ["check", str(folder), *flags, f"--out={tmp_path / 'r.csv'}"]
    table.write_text("id,kind,n\n" + "".join(f"{n},oak,{n}\n" for n in range(6)))
    assert main(line) == 1
    assert f"train     would be refused: --data_dir={folder}: only one" in capsys.readouterr().out
    table.write_text(
        "id,kind,n\n" + "".join(f"{n},{'oak' if n < 3 else 'elm'},{n}\n" for n in range(6))
    )
    assert main(line) == 1
    command = shlex.join(["seedtf", "train", f"--data_dir={folder}", *flags])
    assert capsys.readouterr().out.splitlines()[-1] == f"train     {command}"


def test_a_check_with_max_pixels_shows_a_command_with_max_pixels(
    tiny_folder, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_report.csv").mkdir()  # so that no table can be written under this name
    assert main(["check", str(tiny_folder), "--max_pixels=1024"]) == 1
    *_, report, train = capsys.readouterr().out.splitlines()
    assert report == "report    not written; --out=data_report.csv: Is a directory"
    assert train == f"train     seedtf train --data_dir={tiny_folder} --max_pixels=1024"
    assert main(["check", str(tiny_folder), "--out=data_report.csv"]) == 2
    error = "seedtf check: --out=data_report.csv: Is a directory; pass another path\n"
    assert capsys.readouterr().err == error


def test_a_check_of_the_working_folder_shows_its_findings(tiny_copy, monkeypatch, capsys) -> None:
    (tiny_copy / "alder" / "empty.jpg").touch()
    monkeypatch.chdir(tiny_copy)
    assert main(["check", "."]) == 1
    shown = capsys.readouterr().out
    assert "alder/empty.jpg: empty file" in shown
    assert "report    not written; --out=data_report.csv: is in the data folder" in shown
    assert sorted(path.name for path in tiny_copy.iterdir()) == ["alder", "two words", "öland rye"]


@pytest.mark.parametrize(("first", "shown"), [(0, "0 = oak"), (1, "1 = oak")])
def test_numbers_get_the_names_in_a_file_beside_the_table(
    write: Write, first: int, shown: str, capsys
) -> None:
    rows = "".join(f"{n}.jpg,{(n + 1) // 2 - 1 + first}\n" for n in range(1, 5))
    root = write(*FLAT_FILES, metadata_csv=f"file_name,label\n{rows}")
    (root / "names.txt").write_text("oak\nFat Hen\n")
    catalog, _ = list_files(str(root))
    assert catalog.class_names == ("oak", "Fat Hen")
    assert catalog.labels.tolist() == [0, 0, 1, 1]
    assert f"names from {root}/names.txt ({shown})" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["oak\n", "oak\noak\n", ""])
def test_a_file_of_too_few_names_is_refused(write: Write, names: str) -> None:
    rows = "".join(f"{n}.jpg,{n % 2}\n" for n in range(1, 5))
    root = write(*FLAT_FILES, metadata_csv=f"file_name,label\n{rows}")
    (root / "class_names.txt").write_text(names)
    with pytest.raises(UserError, match=r"different names, and .* has labels up to 1; give each"):
        read_label_table(root / "metadata.csv", root)


def test_the_layout_of_images_to_evaluate_may_be_given(write: Write) -> None:
    rows = "".join(f"{path},{'dog' if path[0] == 'c' else 'cat'}\n" for path in IN_FOLDERS)
    root, names = str(write(*IN_FOLDERS, metadata_csv=f"file_name,label\n{rows}")), ("cat", "dog")
    with pytest.raises(UserError, match="pass --layout=table or --layout=folders"):
        list_known_classes(root, names)
    assert list_known_classes(root, names, layout="folders").labels.tolist() == [0, 0, 1, 1]
    assert list_known_classes(root, names, layout="table").labels.tolist() == [1, 1, 0, 0]
    flat = str(write("flat/cat.1.jpg", "flat/dog.2.jpg") / "flat")
    assert list_known_classes(flat, names, "--val_dir", layout="flat").labels.tolist() == [0, 1]
