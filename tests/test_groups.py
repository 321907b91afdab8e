"""A split keeps groups and near duplicates on one side and has the given fractions of each class."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog
from seedtf.data.draw_split import check_given_split, count_across, draw_split
from seedtf.data.groups import FOLDER, GroupFlags, Grouping, read_groups
from seedtf.data.related import Related, connect
from seedtf.data.split import Split, check_groups, split_catalog, write_split_summary
from seedtf.data.stratify import assign_groups, classes_in_one_group
from seedtf.errors import UserError

seeds = st.integers(0, 2**31 - 1)


def make_catalog(labels: np.ndarray) -> Catalog:
    """A catalog of files that do not exist."""
    paths = [f"c{label}/{number:04d}.png" for number, label in enumerate(labels)]
    classes = tuple(f"c{k}" for k in range(int(labels.max()) + 1))
    return Catalog(Path("/data"), paths, labels.astype(np.int32), classes)


def make_related(
    groups: np.ndarray, alike: np.ndarray | None = None, named: bool = True
) -> Related:
    """Relates images that have a group in common or look alike.

    Args:
        groups: the group of each image.
        alike: for each image, the number of the first image that looks like it: its own number if no
            earlier image does, which is the default.
        named: whether the user has given the groups. If not, ``groups`` is ignored.
    """
    single = np.arange(len(groups))
    alike = single if alike is None else connect(alike, np.empty((0, 2), np.int64))
    first = np.array([np.flatnonzero(groups == group)[0] for group in groups])
    edges = np.stack([single, first], axis=1)
    grouping = Grouping(tuple(f"g{g}" for g in groups), first) if named else None
    return Related(single, alike, connect(alike, edges) if named else alike, grouping)


@st.composite
def labels_and_groups(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups of up to 120 images; each class is in at least two groups."""
    num_classes = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(seeds))
    num_images = draw(st.integers(4 * num_classes, 120))
    labels = np.sort(rng.integers(0, num_classes, num_images))
    labels[: 2 * num_classes] = np.repeat(np.arange(num_classes), 2)
    groups = rng.integers(0, draw(st.integers(2, num_images)), num_images)
    # Each of these images is a group of its own, so that each class is in at least two groups.
    groups[: 2 * num_classes] = num_images + np.arange(2 * num_classes)
    return labels, groups


@given(labels_and_groups(), st.floats(0.05, 0.4), st.floats(0, 0.3), seeds)
def test_no_group_is_divided_and_every_class_trains_and_validates(data, val, test, seed) -> None:
    labels, groups = data
    catalog = make_catalog(labels)
    split = draw_split(
        catalog, None, make_related(groups), val_fraction=val, test_fraction=test, seed=seed
    )
    repeated = draw_split(
        catalog, None, make_related(groups), val_fraction=val, test_fraction=test, seed=seed
    )
    sides = list(split.sides.values())
    assert np.array_equal(np.sort(np.concatenate(sides)), np.arange(len(labels)))
    assert [s.tolist() for s in sides] == [s.tolist() for s in repeated.sides.values()]
    assert count_across(split, groups) == 0
    for side in sides[:2]:
        assert set(labels[side]) == set(labels)
    assert test or not len(split.test)  # without test_fraction there are no test images


@given(st.lists(st.integers(4, 60), min_size=2, max_size=5), st.floats(0.05, 0.45), seeds)
def test_without_groups_each_class_is_divided_exactly(counts, val, seed) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    sides = assign_groups(
        labels,
        np.arange(len(labels)),
        [1 - val, val],
        np.random.default_rng(seed),
        needed=(0, 1),
    )
    for label, count in enumerate(counts):
        num_val = int(sides[labels == label].sum())
        assert abs(num_val - val * count) <= 0.5 + 1e-9 or num_val == 1


@given(st.lists(st.integers(1, 12), min_size=4, max_size=30), st.floats(0.1, 0.5), seeds)
def test_the_size_of_a_side_is_off_by_at_most_the_largest_group(sizes, val, seed) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.zeros(len(groups), np.int64)
    sides = assign_groups(
        labels, groups, [1 - val, val], np.random.default_rng(seed), needed=(0, 1)
    )
    assert abs(sides.sum() - val * len(groups)) <= max(sizes)


@given(labels_and_groups(), st.integers(2, 6), seeds)
def test_folds_are_a_partition_that_divides_no_group(data, folds, seed) -> None:
    labels, groups = data
    sides = assign_groups(
        labels, groups, [1 / folds] * folds, np.random.default_rng(seed), needed=range(folds)
    )
    assert all(len(set(sides[groups == group])) == 1 for group in set(groups))
    for label in set(labels):
        assert len(set(sides[labels == label])) >= 2


def test_five_folds_of_single_images_have_equal_classes() -> None:
    labels = np.repeat([0, 1, 2], [100, 55, 10])
    sides = assign_groups(
        labels, np.arange(165), [0.2] * 5, np.random.default_rng(1), needed=range(5)
    )
    table = [np.bincount(sides[labels == label], minlength=5).tolist() for label in range(3)]
    assert table == [[20] * 5, [11] * 5, [2] * 5]


@given(st.integers(0, 2**31 - 1), st.floats(0.05, 0.5))
def test_without_groups_or_near_duplicates_draw_split_equals_split_catalog(seed, val) -> None:
    labels = np.repeat([0, 1, 2], [13, 40, 7])
    catalog, single = make_catalog(labels), np.arange(60)
    drawn = draw_split(
        catalog,
        None,
        make_related(single, named=False),
        val_fraction=val,
        test_fraction=0,
        seed=seed,
    )
    plain = split_catalog(catalog, val, seed, single)
    assert drawn.val.tolist() == plain.val.tolist()


def test_two_images_that_look_alike_join_their_groups() -> None:
    labels = np.tile([0, 1], 6)
    groups = np.repeat(np.arange(6), 2)
    alike = np.arange(12)
    alike[4] = 0  # an image of group 2 looks like one of group 0
    joined = make_related(groups, alike).together
    assert len(set(joined[[0, 1, 4, 5]])) == 1
    assert len(set(joined)) == 5
    for seed in range(20):
        split = draw_split(
            make_catalog(labels),
            None,
            make_related(groups, alike),
            val_fraction=0.4,
            test_fraction=0,
            seed=seed,
        )
        assert count_across(split, joined) == 0


def test_identical_images_with_different_labels_are_training_images() -> None:
    labels = np.tile([0, 1], 10)
    alike = np.arange(20)
    alike[1] = 0  # images 0 and 1 are identical, but have different classes
    for seed in range(20):
        split = draw_split(
            make_catalog(labels),
            None,
            make_related(np.arange(20) // 2, alike),
            val_fraction=0.5,
            test_fraction=0,
            seed=seed,
        )
        assert {0, 1} <= set(split.train)


def test_given_test_images_stay_and_validation_is_drawn_from_the_others() -> None:
    labels = np.tile([0, 1], 10)
    given_test = Split(np.arange(16), np.empty(0, np.int64), np.arange(16, 20))
    options = {"val_fraction": 0.25, "seed": 3}
    split = draw_split(
        make_catalog(labels),
        given_test,
        make_related(np.arange(20), named=False),
        test_fraction=0,
        **options,
    )
    assert split.test.tolist() == [16, 17, 18, 19]
    assert len(split.val) == 4
    with pytest.raises(UserError, match=r"^--test_fraction=0\.2: the data has 4 test images"):
        draw_split(
            make_catalog(labels),
            given_test,
            make_related(np.arange(20)),
            test_fraction=0.2,
            **options,
        )


def test_a_class_whose_images_are_one_group_is_refused_by_name() -> None:
    labels = np.repeat([0, 1], 4)
    groups = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    assert classes_in_one_group(labels, groups).tolist() == [1]
    with pytest.raises(UserError) as error:
        draw_split(
            make_catalog(labels),
            None,
            make_related(groups),
            val_fraction=0.2,
            test_fraction=0,
            seed=0,
        )
    assert str(error.value).startswith(
        "--data_dir=/data: all 4 images of class 'c1' belong together, because"
    )
    assert "\n" not in str(error.value)
    with pytest.raises(
        UserError, match=r"of class 'c0' belong together \(2 such classes\), because"
    ):
        check_groups(make_catalog(labels), labels.astype(np.int64))


def test_a_given_split_must_not_divide_a_group() -> None:
    catalog = make_catalog(np.tile([0, 1], 4))
    split = Split(np.arange(5), np.arange(5, 8))
    named = make_related(np.arange(8) // 2).user_groups
    with pytest.raises(UserError, match=r"^--split_csv=s\.csv: 1 group on two sides .* 'g2'"):
        check_given_split(catalog, split, "--split_csv=s.csv", named, 0.0)
    check_given_split(catalog, Split(np.arange(4), np.arange(4, 8)), "x", named, 0.0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_connect_finds_the_groups_that_a_graph_search_finds(pairs) -> None:
    neighbours: dict[int, set[int]] = {i: set() for i in range(31)}
    for a, b in pairs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    expected = []
    for start in range(31):
        seen, todo = {start}, [start]
        while todo:
            new = neighbours[todo.pop()] - seen
            seen |= new
            todo += new
        expected.append(min(seen))
    found = connect(np.arange(31), np.array(pairs, np.int64).reshape(-1, 2))
    assert found.tolist() == expected


# Reading groups


def write_images(root: Path, *names: str) -> Catalog:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    paths = sorted(names)
    return Catalog(root, paths, np.zeros(len(paths), np.int32), ("oak",))


def test_groups_come_from_folders_names_and_tables(tmp_path: Path) -> None:
    catalog = write_images(
        tmp_path, "oak/a/p1_1.png", "oak/a/p2_1.png", "oak/b/p1_2.png", "oak/x.png"
    )
    by_folder = read_groups(catalog, GroupFlags(group_by=FOLDER))
    assert by_folder.groups.tolist() == [0, 0, 2, 3]
    by_name = read_groups(catalog, GroupFlags(group_regex=r"(p\d+)_"))
    assert by_name.groups.tolist() == [0, 1, 0, 3]
    assert by_name.describe() == "2 groups, the largest of 2 images; 1 image without a group"
    table = tmp_path / "groups.csv"
    table.write_text("path,group,day\np1_1,A,1\np2_1,B,1\np1_2,A,2\nno/such.png,A,2\n")
    by_table = read_groups(catalog, GroupFlags(groups_csv=str(table)))
    assert by_table.names == ("A", "B", "A", "")
    by_day = read_groups(catalog, GroupFlags(groups_csv=str(table), group_by="day"))
    assert by_day.groups.tolist() == [0, 0, 2, 3]
    labels = tmp_path / "labels.csv"
    labels.write_text("image;species;plant\noak/a/p1_1.png;oak;7\noak/b/p1_2.png;oak;7\n")
    by_plant = read_groups(catalog, GroupFlags(group_by="plant", labels_csv=str(labels)))
    assert by_plant.groups.tolist() == [0, 1, 0, 3]


def test_wrong_tables_and_flags_of_groups_are_refused_in_one_line(tmp_path: Path) -> None:
    catalog = write_images(tmp_path, "oak/1.png", "oak/2.png")
    table = tmp_path / "groups.csv"
    table.write_text("path,group\noak/1.png,A\noak/1.png,B\n")
    mistakes = {
        r"row 3 puts 'oak/1.png' in the group 'B', an earlier row in 'A'": {
            "groups_csv": str(table)
        },
        r"^--group_by=plant: no such column in --groups_csv=.*, found path, group$": {
            "groups_csv": str(table),
            "group_by": "plant",
        },
        r"^--group_regex=p\(\\d\): no image of .* has a group": {"group_regex": r"p(\d)"},
        r"^--groups_csv=none.csv: no such file": {"groups_csv": "none.csv"},
    }
    for message, flags in mistakes.items():
        with pytest.raises(UserError, match=message):
            read_groups(catalog, GroupFlags(**flags))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("plant,group\noak/1.png,A\n", "no column 'file', found plant, group"),
        ("image,path,group\na,b,A\n", "the file may be in the columns image, path"),
        ("oak/1.png,oak/1.png,A\n", "no header, and the columns 1, 2 may name the files"),
    ],
)
def test_an_error_about_the_files_of_groups_csv_suggests_a_header_and_no_flag(
    tmp_path: Path, text: str, fault: str
) -> None:
    catalog, table = write_images(tmp_path, "oak/1.png"), tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(UserError) as error:
        read_groups(catalog, GroupFlags(groups_csv=str(table), file_column="plant"))
    remedy = "name the column of the files 'file' in a header line"
    assert str(error.value) == f"--groups_csv={table}: {fault}; {remedy}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"group_by": "plant"}, "--group_by=plant: needs --labels_csv or --groups_csv"),
        ({"group_regex": "("}, "--group_regex=(: not a pattern"),
        ({"group_regex": "x", "group_by": "folder"}, "--group_regex excludes --group_by"),
        (
            {"test_fraction": 0.2, "val_dir": "v"},
            "--test_fraction=0.2: --val_dir already gives the split",
        ),
        ({"test_fraction": 0.5, "val_fraction": 0.5}, "leaves less than a tenth for training"),
    ],
)
def test_wrong_flags_of_groups_and_fractions_are_refused(
    flags: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as error:
        TrainConfig(data_dir="d", **flags)
    assert message in str(error.value)


def test_the_split_summary_has_counts_and_fractions(tmp_path: Path) -> None:
    catalog = make_catalog(np.array([0, 0, 0, 1, 1]))
    split = Split(np.array([0, 3]), np.array([1]), np.array([2, 4]))
    write_split_summary(tmp_path / "s.csv", catalog, split)
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "images", "train", "val", "test", "val_share", "test_share"],
        ["c0", "3", "1", "1", "1", "0.3333", "0.3333"],
        ["c1", "2", "1", "0", "1", "0.0000", "0.5000"],
        ["", "5", "2", "1", "2", "0.2000", "0.4000"],
    ]
