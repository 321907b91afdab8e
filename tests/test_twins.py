"""Near duplicates (twins) stay on one side of the split by default; the search for them is cached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedtf.config.train_config import TrainConfig
from seedtf.data import related
from seedtf.data.catalog import Catalog, scan_folder
from seedtf.data.dataset import Dataset, load_dataset
from seedtf.data.paths import RemotePath
from seedtf.data.string_array import StringArray
from seedtf.runs.paths import RunPaths
from seedtf.runs.records import write_records
from seedtf.runs.saved_config import resumed_config
from seedtf.training.summary import data_warnings, describe_split

TWINS = ("elm/3.png", "elm/turned.jpg", "elm/smaller.png")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve smooth images, and a turned and a smaller copy of one of the images."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(5)
    for name in ("elm", "oak"):
        (root / name).mkdir()
        for number in range(12):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8))
            coarse.resize((64, 64), Image.Resampling.BICUBIC).save(root / name / f"{number}.png")
    with Image.open(root / "elm" / "3.png") as original:
        turned = original.transpose(Image.Transpose.ROTATE_90)
        turned.save(root / "elm" / "turned.jpg", quality=80)
        original.resize((40, 40)).save(root / "elm" / "smaller.png")
    return root


def load(root: Path, tmp_path: Path, **options: object) -> Dataset:
    defaults = {"image_size": 8, "cache": "ram", "cache_dir": tmp_path / "cache"}
    return load_dataset(str(root), **{**defaults, "val_fraction": 0.4, **options})


def sides_of_twins(dataset: Dataset) -> set[str]:
    val = {dataset.store.catalog.paths[index] for index in dataset.split.val}
    return {"val" if name in val else "train" for name in TWINS}


def test_twins_stay_together_unless_they_are_ignored(photos: Path, tmp_path: Path) -> None:
    divided_by_seed = []
    for seed in range(6):
        kept = load(photos, tmp_path, seed=seed)
        assert len(sides_of_twins(kept)) == 1
        assert (kept.near_duplicates, kept.duplicates) == (2, 0)
        assert kept.near_duplicates_across_split == 0
        ignored = load(photos, tmp_path, seed=seed, twins="ignore")
        assert ignored.near_duplicates == 0
        divided_by_seed.append(len(sides_of_twins(ignored)) == 2)
    assert any(divided_by_seed)


def test_for_the_same_files_the_search_for_twins_is_cached(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, searches = scan_folder(photos), []
    first = related.search_near_duplicates(catalog, tmp_path / "c", max_pixels=10**6)
    compute_fingerprints = related._fingerprints

    def count_and_compute(*arguments: object) -> object:
        searches.append(1)
        return compute_fingerprints(*arguments)

    monkeypatch.setattr(related, "_fingerprints", count_and_compute)
    again = related.search_near_duplicates(catalog, tmp_path / "c", max_pixels=10**6)
    assert np.array_equal(first, again)
    assert not searches
    related.search_near_duplicates(catalog.take(np.arange(20)), tmp_path / "c", max_pixels=10**6)
    assert len(searches) == 1


@pytest.mark.parametrize("twins", ["auto", "together", "ignore"])
def test_twins_at_a_url_are_not_searched_for_and_a_line_says_so_unless_twins_is_ignore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], twins: str
) -> None:
    labels = np.zeros(related.MAX_SEARCHED + 1, np.int32)
    paths = StringArray(f"{index}.png" for index in range(len(labels)))
    catalog = Catalog(RemotePath("memory://nowhere"), paths, labels, ("elm",))
    options = {"user_groups": None, "cache_dir": tmp_path, "max_pixels": 9}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(related, "find_duplicates", lambda catalog: np.arange(len(catalog)))
        found = related.find_related(catalog, all_opened=True, twins=twins, **options)
    assert found.num_near_duplicates == 0
    printed = capsys.readouterr().out
    assert ("near duplicates are not searched for at a URL; seedtf pack" in printed) == (
        twins != "ignore"
    )
    assert "--twins" not in printed


def test_twins_on_two_sides_of_a_given_split_give_a_warning(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "split.csv"
    files = [f"{label}/{number}.png" for label in ("elm", "oak") for number in range(12)]
    lines = ["file,label,split"]
    for file in [*files, *TWINS[1:]]:
        side = "val" if file in (TWINS[1], "oak/1.png") else "train"
        lines.append(f"{file},{file[:3]},{side}")
    table.write_text("\n".join(lines))
    dataset = load(photos, tmp_path, split_csv=str(table))
    assert dataset.near_duplicates_across_split == 1
    assert any("look like an image of another side" in text for text in data_warnings(dataset))
    config = TrainConfig(data_dir=str(photos), split_csv=str(table))
    described = describe_split(config, replace(dataset, duplicates=3))
    assert described.endswith(f"from {table}); 3 duplicates, each on the same side as its original")
    described = describe_split(config, replace(dataset, duplicates=3, duplicates_across_split=1))
    assert described.endswith(f"from {table})")


def test_groups_stay_on_one_side_and_a_split_with_test_images_reads_back(
    photos: Path, tmp_path: Path
) -> None:
    dataset = load(photos, tmp_path, test_fraction=0.2, val_fraction=0.2, group_regex=r"/(\d)\d?\.")
    groups, sides = dataset.grouping.groups, dataset.split.sides
    for name, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not np.intersect1d(groups[sides[name]], groups[sides[other]]).size
    assert all(len(side) for side in sides.values())
    config = TrainConfig(data_dir=str(photos), group_regex=r"/(\d)\d?\.", test_fraction=0.2)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_records(run_dir, config, dataset, {})
    again = load(photos, tmp_path, split_csv=str(RunPaths(run_dir).split))
    assert {k: v.tolist() for k, v in again.split.sides.items()} == {
        k: v.tolist() for k, v in sides.items()
    }
    assert RunPaths(run_dir).split_summary.is_file()


def test_a_run_of_an_older_release_resumes_without_the_search_for_twins(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"data_dir": "d", "model": "tiny"}')
    assert resumed_config(str(tmp_path), {}).twins == "ignore"
