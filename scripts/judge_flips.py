"""Measures what flipped labels do, after ``scripts/flip_labels.py`` has flipped some.

    python scripts/judge_flips.py found FIXES.csv explore.csv
    python scripts/judge_flips.py accuracy FIXES.csv FIRST.csv SECOND.csv

FIXES.csv lists exactly the flipped images, with their true labels. ``found`` counts how many of them
are in the first part of ``explore.csv``, whose most suspect labels come first. ``accuracy`` compares
two tables of out-of-fold predictions, ``oof.csv`` of ``seedtf folds`` or ``predictions.csv`` of
``seedtf probe``, with the true labels: the true label of an image is the name of its folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from seedtf.evaluation.metrics import mcnemar_p
from seedtf.intervals import paired_difference_interval, wilson_interval

_SHARES = (0.02, 0.05, 0.08, 0.10, 0.20)


def found(fixes_csv: str, explore_csv: str) -> list[str]:
    """Lines with the part of the list, its images, the flipped ones in it, recall and precision."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    ranked = [row["path"] in flipped for row in _read(explore_csv)]
    lines = []
    for share in _SHARES:
        count = round(share * len(ranked))
        hits = sum(ranked[:count])
        low, high = wilson_interval(hits, len(flipped))
        lines.append(
            f"first {share:.0%}: {count} images, {hits} flipped, {hits / len(flipped):.1%} of all "
            f"flipped ({low:.1%} to {high:.1%}), precision {hits / count:.1%}"
        )
    return lines


def accuracy(fixes_csv: str, first_csv: str, second_csv: str) -> list[str]:
    """Lines with the accuracy of both tables against the true labels, and their paired difference."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    first, second = _right(first_csv), _right(second_csv)
    lines = []
    for name, paths in (
        ("all images", first.keys() & second.keys()),
        ("never flipped", first.keys() & second.keys() - flipped),
        ("flipped", first.keys() & second.keys() & flipped),
    ):
        only_a = sum(first[path] and not second[path] for path in paths)
        only_b = sum(second[path] and not first[path] for path in paths)
        low, high = paired_difference_interval(only_a, only_b, len(paths))
        shares = [
            _share(sum(table[path] for path in paths), len(paths)) for table in (first, second)
        ]
        lines.append(
            f"{name}: {len(paths)} images, {shares[0]}, {shares[1]}, difference "
            f"{(only_b - only_a) / len(paths):+.4f} ({low:+.4f} to {high:+.4f}), McNemar's p "
            f"{mcnemar_p(only_a, only_b):.2g}"
        )
    return lines


def _share(hits: int, images: int) -> str:
    low, high = wilson_interval(hits, images)
    return f"{hits / images:.4f} ({low:.4f} to {high:.4f})"


def _right(table: str) -> dict[str, bool]:
    """For each image whether its predicted class is the name of its folder."""
    rows = _read(table)
    file = "path" if "path" in rows[0] else "file"
    named = [name for name in rows[0] if name == "top1" or name.endswith(" logistic")]
    return {row[file]: row[named[0]] == row[file].split("/")[-2] for row in rows}


def _read(table: str) -> list[dict[str, str]]:
    with Path(table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    kind, *tables = sys.argv[1:]
    sys.stdout.write("\n".join({"found": found, "accuracy": accuracy}[kind](*tables)) + "\n")
