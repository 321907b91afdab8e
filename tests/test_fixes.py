"""``--fixes`` changes labels, leaves images out and lists each change; no image file is touched."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import draw_classes, make_run

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog, Fault
from seedtf.data.dataset import Dataset, load_dataset, write_data_report
from seedtf.data.fixes import DROPPED, RELABELLED, Fixes, FixTable
from seedtf.errors import UserError
from seedtf.evaluation.compare import compare
from seedtf.evaluation.evaluate_run import evaluate_run
from seedtf.folds.divide import assign_folds, divide
from seedtf.folds.train_folds import _check_flags
from seedtf.runs.folds import FoldsPaths
from seedtf.runs.paths import ReportPaths, RunPaths
from seedtf.training.resume import _fixes_digest, check_identity

NAMES = ("elm", "oak")
PATHS = [f"{name}/{number}.png" for name in NAMES for number in range(4)]
CATALOG = Catalog(Path("d"), PATHS, np.repeat(np.array([0, 1], np.int32), 4), NAMES)


def write_fixes(path: Path, *rows: str) -> str:
    path.write_text("path,action,label\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return str(path)


def load(folder: Path, tmp_path: Path, **options: object) -> Dataset:
    return load_dataset(
        str(folder), image_size=8, cache="ram", cache_dir=tmp_path / "cache", **options
    )


def labels_of(dataset: Dataset, side: np.ndarray) -> dict[str, str]:
    catalog = dataset.store.catalog
    return {catalog.paths[i]: catalog.class_names[catalog.labels[i]] for i in side}


# The table


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("oak/9.png,drop,", r"line 3: 'oak/9\.png' is not in d"),
        ("oak/1.png,relabel,ash", r"line 3: 'oak/1\.png' no class 'ash'"),
        ("oak/1.png,relabel,", r"line 3: 'oak/1\.png' relabel without a label"),
        ("oak/1.png,remove,", r"line 3: 'oak/1\.png' action 'remove'; use relabel, keep or drop"),
        (",drop,", r"line 3: has no path"),
        ("elm/0.png,relabel,oak", r"line 3: 'elm/0\.png' contradicts line 2"),
    ],
)
def test_a_wrong_row_is_refused_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    table = write_fixes(tmp_path / "fixes.csv", "elm/0.png,keep,", row)
    with pytest.raises(UserError, match=rf"^--fixes=.*fixes\.csv: {message}"):
        FixTable(table).find(CATALOG)


def test_a_missing_file_or_a_table_without_paths_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--fixes=.*: no such file"):
        FixTable(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("file,label\n1.png,oak\n")
    with pytest.raises(UserError, match=r"no column 'path', found file, label"):
        FixTable(tmp_path / "other.csv")


@given(st.dictionaries(st.sampled_from(PATHS), st.sampled_from(["elm", "oak", "keep", "drop"])))
def test_exactly_the_named_images_change(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, str]
) -> None:
    rows = [
        f"{path},{answer}," if answer in ("keep", "drop") else f"{path},relabel,{answer}"
        for path, answer in answers.items()
    ]
    fixes = FixTable(write_fixes(tmp_path_factory.mktemp("f") / "fixes.csv", *rows)).find(CATALOG)
    for index, path in enumerate(PATHS):
        answer = answers.get(path, "keep")
        assert fixes.dropped[index] == (answer == "drop")
        expected = NAMES.index(answer) if answer in NAMES else CATALOG.labels[index]
        assert fixes.labels[index] == expected
    changed = {change.path for change in fixes.changes}
    assert changed == {p for p, a in answers.items() if a not in ("keep", p.split("/")[0])}
    assert fixes.num_kept == len(answers) - len(changed)


def test_paths_may_be_absolute_or_relative_to_the_data_folder(tmp_path: Path) -> None:
    root = tmp_path / "data" / "inner"
    catalog = replace(CATALOG, root=root)
    rows = [f"{root}/elm/0.png,drop,", "inner/elm/1.png,drop,", "elm/2.png,drop,"]
    fixes = FixTable(write_fixes(tmp_path / "fixes.csv", *rows)).find(
        catalog, str(tmp_path / "data")
    )
    assert fixes.dropped.tolist() == [True] * 3 + [False] * 5


@pytest.mark.parametrize(
    "path", ["elm/./0.png", "elm//0.png", "{root}/elm/0.png", "inner/elm/0.png"]
)
def test_rows_with_two_spellings_of_a_path_must_agree(tmp_path: Path, path: str) -> None:
    root = tmp_path / "inner"
    row = f"{path.format(root=root)},drop,"
    catalog = replace(CATALOG, root=root)
    data_dir = str(tmp_path if path.startswith("inner") else root)
    same = write_fixes(tmp_path / "same.csv", "elm/0.png,drop,", row)
    assert FixTable(same).find(catalog, data_dir).describe() == "0 relabelled, 1 left out, 0 kept"
    other = write_fixes(tmp_path / "other.csv", "elm/0.png,relabel,oak", row)
    with pytest.raises(UserError, match=r"other\.csv: line 3: .*elm/.*0\.png' contradicts line 2"):
        FixTable(other).find(catalog, data_dir)


# Training


def test_the_split_stays_and_only_the_labels_change(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = load(tiny_folder, tmp_path, val_fraction=0.34, seed=3)
    before = {name: labels_of(plain, side) for name, side in plain.split.sides.items()}
    relabelled, dropped = list(before["train"])[:2]
    val_relabelled = next(iter(before["val"]))
    table = write_fixes(
        tmp_path / "fixes.csv",
        f"{relabelled},relabel,two words",
        f"{dropped},drop,",
        f"{val_relabelled},relabel,öland rye",
    )
    capsys.readouterr()
    fixed = load(tiny_folder, tmp_path, val_fraction=0.34, seed=3, fixes=table)
    assert "2 relabelled, 1 left out, 0 kept" in capsys.readouterr().out
    after = {name: labels_of(fixed, side) for name, side in fixed.split.sides.items()}
    before["train"] |= {relabelled: "two words"}
    before["val"] |= {val_relabelled: "öland rye"}
    del before["train"][dropped]
    assert after == before
    assert sorted(labels_of(plain, plain.split.train)) == sorted([*after["train"], dropped])
    assert {(c.path, c.fault) for c in fixed.changes} == {
        (relabelled, RELABELLED),
        (dropped, DROPPED),
        (val_relabelled, RELABELLED),
    }
    write_data_report(tmp_path / "report.csv", fixed.store.catalog, 0, fixed.changes)
    with (tmp_path / "report.csv").open(newline="") as file:
        details = {row["path"]: row["detail"] for row in csv.DictReader(file)}
    assert details[relabelled] == "from alder to two words"
    assert details[dropped] == "label alder"


def test_a_resumed_run_refuses_other_fixes(tiny_folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "fixes.csv"
    identities = []
    for row in ("alder/0.png,drop,", "alder/1.png,drop,"):
        dataset = load(tiny_folder, tmp_path, fixes=write_fixes(table, row))
        identities.append({"the changes by --fixes": _fixes_digest(dataset)})
    with pytest.raises(UserError, match=r"--resume=r: the changes by --fixes was"):
        check_identity("r", identities[0], identities[1])
    check_identity("r", identities[0], identities[0])


def test_fixes_that_drop_all_images_of_a_class_are_refused(
    tiny_folder: Path, tmp_path: Path
) -> None:
    rows = [f"alder/{number}.png,drop," for number in range(6)]
    with pytest.raises(UserError, match=r"--fixes=.*: class 'alder' has no training images"):
        load(tiny_folder, tmp_path, fixes=write_fixes(tmp_path / "fixes.csv", *rows))


def test_conflicting_labels_that_the_fixes_resolve_are_not_reported(
    tiny_copy: Path, tmp_path: Path
) -> None:
    copy = tiny_copy / "two words" / "copy.png"
    copy.write_bytes((tiny_copy / "alder" / "0.png").read_bytes())
    assert load(tiny_copy, tmp_path).conflicting_labels
    for row in ("two words/copy.png,relabel,alder", "alder/0.png,drop,"):
        fixed = load(tiny_copy, tmp_path, fixes=write_fixes(tmp_path / "fixes.csv", row))
        assert fixed.conflicting_labels == ()


def test_fixes_fit_the_split_csv_of_a_run_with_or_without_fixes(
    tiny_folder: Path, tmp_path: Path
) -> None:
    from seedtf.data.split import write_split_csv

    table = write_fixes(
        tmp_path / "fixes.csv", "alder/0.png,drop,", "alder/1.png,relabel,two words"
    )
    for name, options in (("plain", {}), ("fixed", {"fixes": table})):
        dataset = load(tiny_folder, tmp_path, **options)
        split_csv = tmp_path / f"{name}.csv"
        write_split_csv(split_csv, dataset.store.catalog, dataset.split)
        reloaded = load(tiny_folder, tmp_path, fixes=table, split_csv=str(split_csv))
        everything = np.concatenate(list(reloaded.split.sides.values()))
        labels = labels_of(reloaded, everything)
        assert "alder/0.png" not in labels
        assert labels["alder/1.png"] == "two words"
        assert len(labels) == 17
    # The labels in the split.csv of the run with fixes contradict the folder if no fixes are given.
    with pytest.raises(UserError, match=r"has the label 'two words', but 'alder' in the data"):
        load(tiny_folder, tmp_path, split_csv=str(split_csv))


# Folds


def test_fixes_do_not_change_how_images_are_divided_into_folds(
    tiny_folder: Path, tmp_path: Path
) -> None:
    table = write_fixes(
        tmp_path / "fixes.csv", "alder/0.png,drop,", "alder/1.png,relabel,two words"
    )
    tables = {}
    for name, fixes in (("plain", ""), ("fixed", table)):
        paths = FoldsPaths(tmp_path / name)
        paths.root.mkdir()
        flags = {"data_dir": str(tiny_folder), "image_size": 8, "cache": "ram", "seed": 1}
        config = TrainConfig(**flags, fixes=fixes, weights="none", model="tiny", test_fraction=0.2)
        divide(config, "2", paths)
        tables[name] = {row.file: row for row in paths.read_table()}
        if fixes:
            _check_flags(paths, config, "2")
            # Folds cannot be continued with a changed table of fixes.
            write_fixes(tmp_path / "fixes.csv", "alder/0.png,drop,")
            with pytest.raises(UserError, match=r"is not the table with which"):
                _check_flags(paths, config, "2")
    plain = tables["plain"]
    del plain["alder/0.png"]
    plain["alder/1.png"] = replace(plain["alder/1.png"], label="two words")
    assert tables["fixed"] == plain
    assert {row.fold for row in plain.values()} == {"0", "1", "test"}


def test_an_image_on_no_side_of_the_split_is_in_no_fold(tiny_folder: Path, tmp_path: Path) -> None:
    dataset = load(tiny_folder, tmp_path)
    train = dataset.split.train[1:]
    shorter = replace(dataset, split=replace(dataset.split, train=train))
    assigned = assign_folds(shorter, "2", 0)
    assert np.flatnonzero(assigned == -2).tolist() == [dataset.split.train[0]]  # -2: in no fold


# Evaluation and comparison


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder / "run", draw_classes(folder / "data", NAMES))


@pytest.mark.usefixtures("without_figures")
def test_evaluate_writes_a_report_with_fixes_and_compare_leaves_relabelled_images_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = evaluate_run(str(run))
    assert len(plain.report.losses) == 4
    table = write_fixes(
        tmp_path / "fixes.csv",
        "elm/0-1.png,relabel,oak",
        "elm/0-3.png,drop,",
        "oak/1-0.png,drop,",
    )
    capsys.readouterr()
    fixed = evaluate_run(str(run), fixes=table)
    summary = "1 relabelled, 1 left out, 0 kept; 1 row about other images"
    assert summary in capsys.readouterr().out
    paths = RunPaths(run)
    assert fixed.page.parent == paths.report_paths(fixes=True).root
    before = dict(zip(plain.report.predictions.paths, plain.report.predictions.labels, strict=True))
    after = dict(zip(fixed.report.predictions.paths, fixed.report.predictions.labels, strict=True))
    del before["elm/0-3.png"]
    assert after == {**before, "elm/0-1.png": 1}
    for path in after:
        rows = []
        for evaluation in (plain, fixed):
            predictions = evaluation.report.predictions
            rows.append(predictions.probabilities[predictions.paths.index(path)])
        np.testing.assert_array_equal(*rows)
    comparison = compare(run, fixed.page.parent)
    assert (comparison.shared, comparison.relabelled, comparison.only_in_a) == (2, 1, 1)
    ReportPaths(fixed.page.parent).data_report.unlink()
    with pytest.raises(UserError, match=r"labels 'elm/0-1\.png' as 'oak'"):
        compare(run, fixed.page.parent)
    values = json.loads(paths.report.report_json.read_text())
    assert values["images"] == 4


def test_images_that_were_relabelled_for_training_are_left_out_of_a_comparison(
    tmp_path: Path,
) -> None:
    for name, label in (("a", "oak"), ("b", "elm")):
        paths = RunPaths(tmp_path / name)
        paths.report.root.mkdir(parents=True)
        rows = f"path,true,top1\n1.png,{label},oak\n2.png,oak,oak\n"
        paths.report.predictions.write_text(rows)
    catalog = replace(CATALOG, faults=())
    changes = [Fault("1.png", RELABELLED, "from oak to elm")]
    write_data_report(RunPaths(tmp_path / "b").data_report, catalog, 0, changes)
    comparison = compare(tmp_path / "a", tmp_path / "b")
    assert (comparison.shared, comparison.relabelled) == (1, 1)


def test_describe_states_the_number_of_fixes_of_each_kind() -> None:
    changes = (Fault("a", RELABELLED, ""), Fault("b", DROPPED, ""))
    all_false = np.zeros(8, bool)
    fixes = Fixes(CATALOG.labels, all_false, all_false, 2, 0, changes)
    assert fixes.describe() == "1 relabelled, 1 left out, 2 kept"
