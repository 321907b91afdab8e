"""The embedded sample data: drawn seedlings as ordinary PNG class folders, made from a seed.

``<root>/<species>/0000.png …`` and the marker ``.seedtf-sample.json``, which tells what was drawn.
The images are drawn in a folder beside ``root`` that takes its name at the end, so ``root`` is
whole or absent.
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

__all__ = ["MARKER", "write_sample"]

MARKER = ".seedtf-sample.json"
FORMAT = 2  # raise when the images change: older samples are then drawn again


def write_sample(
    root: Path,
    *,
    seed: int = 0,
    images_per_class: int = 120,
    image_size: int = 96,
) -> Path:
    """Draws the sample into ``root`` unless the same sample is there already; returns ``root``.

    A terminal shows a progress bar. The same arguments give the same pixels. A sample drawn with
    other arguments is replaced, as long as it holds no file but its own.

    Args:
        root: the folder to create; its parents are created too.
        seed: 0 or more; image i of class k follows from (seed, k, i).
        images_per_class: images of each of the 12 species, 1 to 10,000.
        image_size: side of the square images in pixels, 16 to 1,024.

    Raises:
        UserError: an argument out of range; ``root`` is a file or holds files of somebody's own.
        OSError: the disk is full or cannot be written.
    """
    root = Path(root)
    wanted = {
        "format": FORMAT,
        "seed": _within("seed", seed, 0, 2**63),
        "images_per_class": _within("images_per_class", images_per_class, 1, 10_000),
        "image_size": _within("image_size", image_size, 16, 1024),
    }
    if _is_complete(root, wanted):
        return root
    _refuse_foreign(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        drawn = Path(scratch) / "sample"
        _draw_all(drawn, wanted)
        _move_into_place(drawn, root, wanted)
    return root


def _within(name: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise UserError(f"sample {name}={value}: give a whole number from {low} to {high}")
    return int(value)


def _draw_all(root: Path, wanted: dict[str, int]) -> None:
    count = wanted["images_per_class"]
    # disable=None: no bar, and no control codes, where the output is not a terminal
    bar = tqdm(total=len(SPECIES) * count, desc="drawing", unit="img", disable=None, leave=False)
    with bar:
        for label, species in enumerate(SPECIES):
            folder = root / species.name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([wanted["seed"], label, index])
                pixels = draw_seedling(species, wanted["image_size"], rng)
                Image.fromarray(pixels).save(folder / f"{index:04d}.png")
                bar.update()
    write_text(root / MARKER, json.dumps(wanted) + "\n")


def _move_into_place(drawn: Path, root: Path, wanted: dict[str, int]) -> None:
    if _is_complete(root, wanted):
        return  # another process drew the same sample in the meantime and may be reading it
    if root.exists():
        _refuse_foreign(root)
        shutil.rmtree(root)
    drawn.rename(root)


def _is_complete(root: Path, wanted: dict[str, int]) -> bool:
    return _marker(root) == wanted and _expected(wanted) <= _files(root)


def _refuse_foreign(root: Path) -> None:
    """Raises UserError unless ``root`` is absent, empty or holds a sample's own files alone."""
    if not root.exists():
        return
    if not root.is_dir():
        raise UserError(f"{root}: a file stands where the sample's folder would go; name another")
    marker = _marker(root)
    foreign = _files(root) - (_expected(marker) if marker else set())
    if foreign:
        raise UserError(
            f"{root}: not empty and not (only) a sample, found {min(foreign)}; name another folder"
        )


def _marker(root: Path) -> dict[str, Any] | None:
    """What the marker says, or None where there is none that can be understood."""
    try:
        content = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    understood = isinstance(content, dict) and isinstance(content.get("images_per_class"), int)
    return content if understood else None


def _expected(marker: dict[str, Any]) -> set[str]:
    """The files of a sample, relative to its folder."""
    numbers = range(marker["images_per_class"])
    return {MARKER} | {f"{kind.name}/{i:04d}.png" for kind in SPECIES for i in numbers}


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}
