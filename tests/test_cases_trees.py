"""Generated folders of every layout except ``flat`` are read in their own layout, or refused.

The library Hypothesis draws the classes, the sides of a split, the names and the other files. The
images are empty files, because only their paths matter.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedtf.data.archives import unpack_archive
from seedtf.data.listing import list_files
from seedtf.errors import UserError
from seedtf.report import silent

PLAIN = ("oak", "elm", "Fat Hen", "ü", "7", "10", "a,b", 'x "y"', "Maïs", "data 1")
# Class names that could also name a side of a split, another folder, a table or a year.
CONFUSING = ("train", "val", "test", "images", "masks", "archive", "runs", "metadata", "2019")
SIDE_NAMES = (
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("Train", "Validation", "Testing"),
    ("train_images", "dev_images", "test_images"),
)


@dataclass(frozen=True)
class Image:
    """An image of a class. ``side`` is train, val or test, or empty if there is no split."""

    number: int
    label: str
    side: str

    @property
    def name(self) -> str:
        return f"{self.number}.jpg"


Files = dict[str, str]  # the text of each file by its path
# A function of the images and of the folder of each side. It returns the files in this layout, and the
# image at each path.
Layout = Callable[[list[Image], dict[str, str]], tuple[Files, dict[str, Image]]]


def class_folders(
    images: list[Image], folders: dict[str, str], below: str = ""
) -> tuple[Files, dict]:
    """``<class>/…/<image>``, or ``<side>/<class>/…/<image>``."""
    paths = {f"{folders[i.side]}{i.label}/{below}{i.name}": i for i in images}
    return dict.fromkeys(paths, ""), paths


def table_text(rows: list[dict[str, object]], kind: str) -> str:
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def metadata(
    images: list[Image], folders: dict[str, str], kind: str, place: str
) -> tuple[Files, dict]:
    """Hugging Face's tables: one in ``each`` folder of the split, or one at the ``top`` for all."""
    paths = {f"{folders[i.side]}{i.name}": i for i in images}
    files: Files = dict.fromkeys(paths, "")
    for folder in dict.fromkeys(folders.values()) if place == "each" else [""]:
        rows: list[dict[str, object]] = [
            {"file_name": path.removeprefix(folder), "width": 8, "label": image.label}
            for path, image in paths.items()
            if path.startswith(folder)
        ]
        files[f"{folder}metadata.{kind}"] = table_text(rows, kind) if rows else "file_name,label\n"
    return files, paths


def one_hot(images: list[Image], folders: dict[str, str]) -> tuple[Files, dict]:
    """Roboflow's table with one column for each class, in each folder of the split."""
    paths = {f"{folders[i.side]}{i.name}": i for i in images}
    files: Files = dict.fromkeys(paths, "")
    classes = sorted({image.label for image in images})
    for folder in dict.fromkeys(folders.values()):
        rows: list[dict[str, object]] = [
            {"filename": image.name} | {name: int(name == image.label) for name in classes}
            for path, image in paths.items()
            if path.startswith(folder)
        ]
        files[f"{folder}_classes.csv"] = table_text(rows, "csv")
    return files, paths


def split_column(images: list[Image], folders: dict[str, str]) -> tuple[Files, dict]:
    """One table with a column for the label and one for the side of the split."""
    paths = {f"photos/{image.name}": image for image in images}
    rows: list[dict[str, object]] = [
        {"image": path, "species": image.label, "split": image.side or "train"}
        for path, image in paths.items()
    ]
    return dict.fromkeys(paths, "") | {"metadata.csv": table_text(rows, "csv")}, paths


LAYOUTS: dict[str, Layout] = {
    "class folders": class_folders,
    "nested": lambda images, folders: class_folders(images, folders, "plot 1/row/"),
    "metadata.csv": lambda images, folders: metadata(images, folders, "csv", "top"),
    "metadata.jsonl": lambda images, folders: metadata(images, folders, "jsonl", "top"),
    "metadata.csv of each side": lambda images, folders: metadata(images, folders, "csv", "each"),
    "metadata.jsonl of each side": lambda images, folders: metadata(
        images, folders, "jsonl", "each"
    ),
    "_classes.csv": one_hot,
    "split column": split_column,
}
NOISE = (
    *("notes.txt", "docs/a.pdf", ".git/1.jpg", "__MACOSX/oak/1.jpg", "$RECYCLE.BIN/S-1/1.jpg"),
    *("Thumbs.db", "other.csv"),
)
OWN_RUN = ("runs/1/checkpoints/best.keras", "runs/1/state/lock", "runs/1/curves.png")
# The folders that wrap the data, the other files, and whether there is a run of seedtf.
Around = tuple[list[str], list[str], bool]
AROUND = st.tuples(
    st.lists(st.sampled_from(["archive", "images", "PlantSeedlings", "d 1"]), max_size=2),
    st.lists(st.sampled_from(NOISE), max_size=3, unique=True),
    st.booleans(),
)


def put_inside(files: Files, around: Around) -> Files:
    """``files`` in the wrapping folders. The other files and the run are at the top of the tree."""
    wrappers, noise, has_run = around
    inner = "".join(f"{name}/" for name in wrappers)
    others = dict.fromkeys((*noise, *(OWN_RUN if has_run else ())), "")
    return {f"{inner}{name}": text for name, text in files.items()} | others


@st.composite
def data_sets(draw: st.DrawFn, classes: tuple[str, ...]) -> tuple[list[Image], dict[str, str]]:
    """Draws at least two images of each class on each side, and the name of each side's folder."""
    labels = draw(st.sets(st.sampled_from(classes), min_size=2, max_size=4))
    num_sides = draw(st.sampled_from([0, 2, 3]))
    sides = ("train", "val", "test")[:num_sides] or ("",)
    names = draw(st.sampled_from(SIDE_NAMES))
    numbers = itertools.count(draw(st.sampled_from([0, 1, 100])))
    images = [
        Image(next(numbers), label, side)
        for label in sorted(labels)
        for side in sides
        for _ in range(draw(st.integers(2, 3)))
    ]
    return images, {
        side: f"{name}/" if side else "" for side, name in zip(sides, names, strict=False)
    }


def write_tree(root: Path, files: Files) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")


def read_tree(folder: str) -> dict[str, tuple[str, str]]:
    """The class and side of every file that a training lists, by the name of the file."""
    catalog, split = list_files(folder)
    sides = dict.fromkeys(range(len(catalog)), "")
    if split is not None:
        sides = {int(k): side for side, records in split.sides.items() for k in records}
    return {
        path.rpartition("/")[2]: (catalog.class_names[label], sides[index])
        for index, (path, label) in enumerate(zip(catalog.paths, catalog.labels, strict=True))
    }


def expected(images: list[Image]) -> dict[str, tuple[str, str]]:
    """What ``read_tree`` must return for these images: the class and side of each, by its name."""
    return {i.name: (i.label, i.side) for i in images}


few_examples = settings(max_examples=12)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@each_layout
@few_examples
@given(drawn=data_sets(PLAIN), around=AROUND, zipped=st.booleans())
def test_every_layout_is_recognised(
    layout: str, drawn: tuple, around: Around, zipped: bool
) -> None:
    images, folders = drawn
    files = put_inside(LAYOUTS[layout](images, folders)[0], around)
    with tempfile.TemporaryDirectory() as folder, silent():
        data_dir = f"{folder}/data"
        if zipped:
            with zipfile.ZipFile(f"{folder}/data.zip", "w") as archive:
                for name, text in files.items():
                    archive.writestr(name, text)
            data_dir = unpack_archive(f"{folder}/data.zip", "--data_dir", Path(folder, "cache"))
        else:
            write_tree(Path(data_dir), files)
        assert read_tree(data_dir) == expected(images)


@each_layout
@few_examples
@given(drawn=data_sets(CONFUSING + PLAIN[:2]), around=AROUND)
def test_a_layout_with_confusing_names_is_recognised_or_refused(
    layout: str, drawn: tuple, around: Around
) -> None:
    images, folders = drawn
    with tempfile.TemporaryDirectory() as folder, silent():
        write_tree(Path(folder), put_inside(LAYOUTS[layout](images, folders)[0], around))
        try:
            found = read_tree(folder)
        except UserError as error:
            assert "\n" not in str(error)
            return
        assert found == expected(images)


@pytest.mark.parametrize("kind", ["inside", "folds"])
@few_examples
@given(drawn=data_sets(PLAIN), around=AROUND)
def test_sides_inside_classes_and_classes_inside_folds_are_refused(
    kind: str, drawn: tuple, around: Around
) -> None:
    """``<class>/train/…`` or ``fold1/<class>/…`` must not be read by depth alone, as class folders."""
    images, _ = drawn
    files = {}
    for number, image in enumerate(images):
        part = ("train", "test")[number % 2] if kind == "inside" else f"fold{number % 2}"
        folders = (image.label, part) if kind == "inside" else (part, image.label)
        files[f"{'/'.join(folders)}/{image.name}"] = ""
    with tempfile.TemporaryDirectory() as folder, silent():
        write_tree(Path(folder), put_inside(files, around))
        with pytest.raises(UserError, match="have the same folders"):
            list_files(folder)
