"""Flips 5 % of the labels at random, to measure how many of them ``seedtf explore`` finds.

    python scripts/flip_labels.py DATA FLIPPED.csv FIXES.csv

DATA has class folders of ``*.jpg`` files. FLIPPED.csv gets all files and their labels, of which 5 % are
flipped. FIXES.csv is a table for ``--fixes`` that restores the flipped labels. It is also the input of
scripts/judge_flips.py.
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

_FRACTION, _SEED = 0.05, 0


def main(data: str, flipped_csv: str, fixes_csv: str) -> None:
    """Writes FLIPPED.csv and FIXES.csv."""
    root = Path(data)
    labelled = sorted(
        (file.relative_to(root).as_posix(), file.parent.name) for file in root.glob("*/*.jpg")
    )
    classes, rng = sorted({label for _, label in labelled}), random.Random(_SEED)
    drawn = rng.sample(labelled, round(_FRACTION * len(labelled)))
    flipped = {
        path: rng.choice([other for other in classes if other != label]) for path, label in drawn
    }
    rows = [(path, flipped.get(path, label)) for path, label in labelled]
    fixes = [(path, "relabel", label) for path, label in labelled if path in flipped]
    for path, table in (
        (flipped_csv, [("file", "label"), *rows]),
        (fixes_csv, [("path", "action", "label"), *fixes]),
    ):
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
