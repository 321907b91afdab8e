"""The sample data: what is drawn, when an existing sample is kept, and which folders are refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seedtf.data.sample import write as sample
from seedtf.data.sample.draw import SPECIES, draw_seedling
from seedtf.data.sample.write import MARKER, write_sample
from seedtf.errors import UserError
from seedtf.report import silent


def write_tiny(root: Path, **changes: int) -> Path:
    return write_sample(root, **{"images_per_class": 2, "image_size": 24, **changes})


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of every file below ``root``, by the path of the file relative to ``root``."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def count_leaf_pixels(species_index: int, image_number: int) -> float:
    """The number of pixels whose green value exceeds red and blue by more than 12."""
    rng = np.random.default_rng([0, species_index, image_number])
    red, green, blue = np.moveaxis(draw_seedling(SPECIES[species_index], 64, rng).astype(int), 2, 0)
    return float(np.sum((green > red + 12) & (green > blue + 12)))


def test_a_sample_has_twelve_class_folders_of_rgb_png_files(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "deep" / "sample")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    assert len(folders) == 12
    assert folders == sorted(species.name for species in SPECIES)
    for folder in folders:
        files = sorted((root / folder).iterdir())
        assert [file.name for file in files] == ["0000.png", "0001.png"]
        with Image.open(files[0]) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (24, 24))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["sample"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_drawing_shows_its_progress_on_a_terminal_but_not_in_a_silent_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with silent():
        write_tiny(tmp_path / "a", images_per_class=1)
    assert terminal.getvalue() == ""
    write_tiny(tmp_path / "b", images_per_class=1)
    assert "drawing" in terminal.getvalue()


def test_the_seed_determines_the_bytes(tmp_path: Path) -> None:
    first, second = contents(write_tiny(tmp_path / "a")), contents(write_tiny(tmp_path / "b"))
    assert first == second
    other = contents(write_tiny(tmp_path / "c", seed=1))
    assert all(first[name] != other[name] for name in first)


def test_with_more_images_per_class_the_first_images_stay_the_same(tmp_path: Path) -> None:
    few, more = (
        contents(write_tiny(tmp_path / "a")),
        contents(write_tiny(tmp_path / "b", images_per_class=3)),
    )
    assert all(more[name] == data for name, data in few.items() if name != MARKER)


def test_all_images_differ(tmp_path: Path) -> None:
    images = list(contents(write_tiny(tmp_path / "a", images_per_class=3)).values())
    assert len(set(images)) == len(images)


def test_every_species_is_drawn_with_leaves_and_species_differ_in_leaf_area() -> None:
    areas = {
        species.name: np.array([count_leaf_pixels(index, number) for number in range(8)])
        for index, species in enumerate(SPECIES)
    }
    assert all(np.median(values) > 20 for values in areas.values())
    assert np.median(areas["Charlock"]) > 3 * np.median(areas["Loose Silky-bent"])
    assert np.median(areas["Maize"]) > 2 * np.median(areas["Black-grass"])
    assert all(values.std() > 0 for values in areas.values())


def test_a_complete_sample_is_kept_even_if_files_were_changed_or_added(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "a")
    added = root / "Maize" / "mine.png"
    added.write_bytes(b"mine")
    (root / "Maize" / "0000.png").write_bytes(b"touched")
    assert write_tiny(root) == root
    assert (root / "Maize" / "0000.png").read_bytes() == b"touched"
    assert added.exists()


def test_an_incomplete_sample_is_drawn_again(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "a")
    before = contents(root)
    (root / "Maize" / "0000.png").unlink()
    assert contents(write_tiny(root)) == before


def test_with_other_arguments_a_sample_is_replaced_but_never_a_file_of_the_user(
    tmp_path: Path,
) -> None:
    root = write_tiny(tmp_path / "a")
    write_tiny(root, images_per_class=1)
    assert not (root / "Maize" / "0001.png").exists()
    (root / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt"):
        write_tiny(root)
    assert (root / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    assert len(contents(write_tiny(tmp_path))) == 12 * 2 + 1


@pytest.mark.parametrize("marker", [None, "", "[]", "{}", '{"images_per_class": "2"}'])
def test_a_folder_that_is_not_a_sample_is_refused_and_unchanged(
    tmp_path: Path, marker: str | None
) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=str(tmp_path)):
        write_tiny(tmp_path)
    assert contents(tmp_path) == before


def test_a_file_at_the_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("mine")
    with pytest.raises(UserError, match="sample"):
        write_tiny(tmp_path / "sample")


def test_interrupted_drawing_leaves_no_file_or_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(species: Any, *others: Any) -> Any:
        if species.name == sample.SPECIES[-1].name:
            raise KeyboardInterrupt
        return draw(species, *others)

    draw = sample.draw_seedling
    monkeypatch.setattr(sample, "draw_seedling", stop)
    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / "a", images_per_class=1, image_size=24)
    assert list(tmp_path.iterdir()) == []


def test_a_sample_that_another_process_wrote_first_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_all = sample._draw_all

    def draw_after_another_process(root: Path, *others: object) -> None:
        draw_all(root, *others)  # type: ignore[arg-type]
        monkeypatch.setattr(sample, "_draw_all", draw_all)
        write_tiny(tmp_path / "a")
        (tmp_path / "a" / "Maize" / "0000.png").write_bytes(b"theirs")

    monkeypatch.setattr(sample, "_draw_all", draw_after_another_process)
    write_tiny(tmp_path / "a")
    assert (tmp_path / "a" / "Maize" / "0000.png").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("bad", [{"seed": -1}, {"images_per_class": 0}, {"image_size": 8}])
def test_arguments_out_of_range_are_named(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        write_sample(tmp_path / "a", **bad)
