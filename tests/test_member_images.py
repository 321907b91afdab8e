"""Members of an ensemble: their classes are matched by name, and their common images are found."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.errors import UserError
from seedtf.evaluation.member_images import (
    MemberImages,
    describe_unused,
    read_member_images,
    shared_images,
)
from seedtf.files import csv_line
from seedtf.runs.ensembles import match_classes
from seedtf.runs.folds import FoldsPaths
from seedtf.runs.paths import RunPaths

NAMES = st.lists(
    st.text(min_size=1), min_size=1, unique_by=lambda t: unicodedata.normalize("NFC", t)
)


def write_run(folder: Path, rows: dict[str, tuple[str, str]]) -> str:
    """Writes config.json and split.csv of a run.

    ``rows`` maps the path of each image to its label and its side of the split: train, val or test.
    """
    folder.mkdir(parents=True)
    RunPaths(folder).config.write_text(json.dumps({"resolved": {"data_root": "/data"}}))
    lines = [csv_line(path, label, side) for path, (label, side) in rows.items()]
    RunPaths(folder).split.write_text(csv_line("file", "label", "split") + "".join(lines))
    return str(folder)


@given(NAMES.flatmap(lambda names: st.tuples(st.just(names), st.permutations(names))))
def test_the_same_classes_in_any_order_are_matched(pair: tuple[list[str], list[str]]) -> None:
    names, wanted = pair
    assert [names[index] for index in match_classes(names, wanted, "b", "a")] == wanted


def test_names_are_equal_in_every_unicode_form_of_an_accent() -> None:
    assert match_classes(["oak", "o\u0308land"], ["\u00f6land", "oak"], "b", "a") == [1, 0]
    a = MemberImages("a", {"1.png": "\u00f6land"})
    assert shared_images([a, MemberImages("b", {"1.png": "o\u0308land"})]) == ["1.png"]


@pytest.mark.parametrize(
    ("names", "wanted", "difference"),
    [
        (["ash"], ["ash", "elm", "oak"], "lacks 2, first 'elm'"),
        (["ash", "elm"], ["elm"], "adds 1, first 'ash'"),
        (["Ash", "elm"], ["ash", "elm"], "lacks 1, first 'ash'; adds 1, first 'Ash'"),
    ],
)
def test_classes_that_are_missing_or_added_are_named(
    names: list[str], wanted: list[str], difference: str
) -> None:
    with pytest.raises(UserError) as error:
        match_classes(names, wanted, "runs/b", "runs/a")
    assert str(error.value).startswith(f"runs/b: has other classes than runs/a ({difference}); ")


def test_only_images_that_no_member_trained_on_are_shared(tmp_path: Path) -> None:
    a = write_run(
        tmp_path / "a",
        {"1": ("ash", "val"), "2": ("ash", "val"), "3": ("elm", "val"), "4": ("elm", "train")},
    )
    b = write_run(tmp_path / "b", {"1": ("ash", "val"), "2": ("ash", "train"), "4": ("oak", "val")})
    members = [read_member_images(name, Path(name)) for name in (a, b)]
    # Image 4 has two labels. This is no error: run ``a`` trained on the image, so it is not shared.
    shared = shared_images(members)
    assert shared == ["/data/1"]
    assert describe_unused(members, shared) == [
        f"{a}: 1 of the 3 images it did not train on can be used; "
        "other members trained on 1 and lack 1",
        f"{b}: 1 of the 2 images it did not train on can be used; "
        "other members trained on 1 and lack 0",
    ]
    assert describe_unused(members[:1], shared_images(members[:1])) == []


def test_every_image_of_a_cross_validation_can_be_used(tmp_path: Path) -> None:
    folds = FoldsPaths(tmp_path / "folds")
    write_run(folds.fold(0).root, {"1": ("ash", "val"), "2": ("elm", "train")})
    folds.write_settings(2, {})
    rows = [csv_line("1", "ash", "0.9"), csv_line("2", "elm", "0.2")]
    folds.predictions.write_text(csv_line("path", "true", "p:ash") + "".join(rows))
    other = write_run(tmp_path / "b", {"1": ("ash", "train"), "2": ("elm", "val")})
    members = [read_member_images(str(path), Path(path)) for path in (folds.root, other)]
    assert members[0] == MemberImages(str(folds.root), {"/data/1": "ash", "/data/2": "elm"})
    assert shared_images(members) == ["/data/2"]


def test_a_missing_split_csv_is_named_by_its_path(tmp_path: Path) -> None:
    run_dir = Path(write_run(tmp_path / "a", {"1": ("ash", "val")}))
    split = RunPaths(run_dir).split
    split.unlink()
    with pytest.raises(UserError, match=f"^{re.escape(str(split))}: no such file"):
        read_member_images("a", run_dir)


def test_a_shared_image_with_two_labels_is_refused_by_name() -> None:
    members = [
        MemberImages("a", {"1": "ash", "2": "elm", "3": "oak"}),
        MemberImages("b", {"1": "ash", "2": "elm", "3": "oak"}),
        MemberImages("c", {"1": "elm", "2": "elm", "3": "ash"}),
    ]
    assert shared_images(members[:2]) == ["1", "2", "3"]
    with pytest.raises(
        UserError, match=r"^c: labels '1' as 'elm', but a labels it as 'ash' \(2 such images\); "
    ):
        shared_images(members)
