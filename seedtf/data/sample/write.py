"""Writes the sample data: class folders with drawn PNG images of seedlings.

The images are ``<root>/<species>/0000.png`` and so on. ``<root>/.seedtf-sample.json``, the *marker*,
contains the arguments. All files are written to a temporary folder, which is renamed to ``root`` at the
end, so that ``root`` never contains only a part of a new sample.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from seedtf.data.sample.draw import SPECIES, draw_seedling
from seedtf.errors import UserError
from seedtf.files import write_text
from seedtf.report import is_silent

__all__ = ["MARKER", "write_sample"]

MARKER = ".seedtf-sample.json"
FORMAT = 2  # Increase this when the images change, so that older samples are drawn again.


def write_sample(
    root: Path,
    *,
    seed: int = 0,
    images_per_class: int = 120,
    image_size: int = 96,
) -> Path:
    """Draws the sample into ``root`` unless the same sample is already there; returns ``root``.

    The same arguments give the same pixels. If ``root`` contains a sample with other arguments and no
    other files, it is replaced. A progress bar is shown if stderr is a terminal, but not inside
    ``report.silent()``.

    Args:
        root: the folder to create; its parents are created too.
        seed: 0 or more; image i of class k depends only on (seed, k, i).
        images_per_class: images of each of the 12 species, 1 to 10,000.
        image_size: side of the square images in pixels, 16 to 1,024.

    Raises:
        UserError: an argument is out of range; ``root`` is a file or has files that are not part of
            a sample.
        OSError: the disk is full or cannot be written.

    Example:
        >>> root = write_sample(Path("sample"), images_per_class=1, image_size=16)
        >>> sorted(path.name for path in root.glob("[!.]*"))[:3]
        ['Black-grass', 'Charlock', 'Cleavers']
        >>> len(list(root.glob("*/*.png")))
        12
    """
    root = Path(root)
    arguments = {
        "format": FORMAT,
        "seed": _check_range("seed", seed, 0, 2**63),
        "images_per_class": _check_range("images_per_class", images_per_class, 1, 10_000),
        "image_size": _check_range("image_size", image_size, 16, 1024),
    }
    if _is_complete(root, arguments):
        return root
    _check_replaceable(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        folder = Path(scratch) / "sample"
        _draw_all(folder, arguments)
        _move_into_place(folder, root, arguments)
    return root


def _check_range(name: str, value: int, low: int, high: int) -> int:
    """Returns ``value``; raises UserError if it is not in [low, high]."""
    if not low <= value <= high:
        raise UserError(f"sample {name}={value}: give a whole number from {low} to {high}")
    return int(value)


def _draw_all(root: Path, arguments: dict[str, int]) -> None:
    count = arguments["images_per_class"]
    total = len(SPECIES) * count
    disable = is_silent() or None  # With None, tqdm shows the bar on a terminal only.
    with tqdm(total=total, desc="drawing", unit="img", disable=disable, leave=False) as bar:
        for label, species in enumerate(SPECIES):
            folder = root / species.name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([arguments["seed"], label, index])
                pixels = draw_seedling(species, arguments["image_size"], rng)
                Image.fromarray(pixels).save(folder / f"{index:04d}.png")
                bar.update()
    write_text(root / MARKER, json.dumps(arguments) + "\n")


def _move_into_place(folder: Path, root: Path, arguments: dict[str, int]) -> None:
    if _is_complete(root, arguments):
        return  # Another process has written the same sample meanwhile, and may be reading it.
    if root.exists():
        _check_replaceable(root)
        shutil.rmtree(root)
    folder.rename(root)


def _is_complete(root: Path, arguments: dict[str, int]) -> bool:
    return _read_marker(root) == arguments and _expected_files(arguments) <= _files(root)


def _check_replaceable(root: Path) -> None:
    """Raises UserError unless ``root`` is missing, empty, or has only files of a sample."""
    if not root.exists():
        return
    if not root.is_dir():
        raise UserError(f"{root}: a file, not a folder; pass another path for the sample")
    marker = _read_marker(root)
    foreign = _files(root) - (_expected_files(marker) if marker else set())
    if foreign:
        raise UserError(
            f"{root}: has {min(foreign)}, which is not part of a sample; pass another folder"
        )


def _read_marker(root: Path) -> dict[str, Any] | None:
    """The arguments in the marker; None if the marker is missing or invalid."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_valid = isinstance(content, dict) and isinstance(content.get("images_per_class"), int)
    return content if is_valid else None


def _expected_files(arguments: dict[str, Any]) -> set[str]:
    """The paths of all files of a sample with these arguments, relative to its folder."""
    numbers = range(arguments["images_per_class"])
    return {MARKER} | {f"{species.name}/{i:04d}.png" for species in SPECIES for i in numbers}


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
