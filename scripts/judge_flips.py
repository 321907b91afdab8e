"""Measures how well flipped labels are found, and how they change the accuracy of predictions.

    python scripts/judge_flips.py found FIXES.csv explore.csv
    python scripts/judge_flips.py accuracy FIXES.csv FIRST.csv SECOND.csv

``scripts/flip_labels.py`` flips labels; its FIXES.csv lists the flipped images. ``found`` counts how
many of them are in the first 2 %, 5 %, … of ``explore.csv``, which begins with the most suspect labels.
``accuracy`` compares two tables of out-of-fold predictions, ``oof.csv`` of ``seedtf folds`` or
``predictions.csv`` of ``seedtf probe``, with the true labels: the true label of an image is the name of
its folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from seedtf.evaluation.metrics import mcnemar_p
from seedtf.intervals import paired_difference_interval, wilson_interval

_FRACTIONS = (0.02, 0.05, 0.08, 0.10, 0.20)


def found(fixes_csv: str, explore_csv: str) -> list[str]:
    """A line for each of ``_FRACTIONS``: images, flipped ones among them, recall, precision."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    is_flipped = [row["path"] in flipped for row in _read(explore_csv)]
    lines = []
    for fraction in _FRACTIONS:
        count = max(round(fraction * len(is_flipped)), 1)
        hits = sum(is_flipped[:count])
        low, high = wilson_interval(hits, len(flipped))
        lines.append(
            f"first {fraction:.0%}: {count} images, {hits} flipped, {hits / len(flipped):.1%} of all "
            f"flipped ({low:.1%} to {high:.1%}), precision {hits / count:.1%}"
        )
    return lines


def accuracy(fixes_csv: str, first_csv: str, second_csv: str) -> list[str]:
    """Lines with the accuracy of both tables, and the paired difference: the second minus the first."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    first, second = _read_correctness(first_csv), _read_correctness(second_csv)
    lines = []
    for name, paths in (
        ("all images", first.keys() & second.keys()),
        ("never flipped", first.keys() & second.keys() - flipped),
        ("flipped", first.keys() & second.keys() & flipped),
    ):
        only_a = sum(first[path] and not second[path] for path in paths)
        only_b = sum(second[path] and not first[path] for path in paths)
        low, high = paired_difference_interval(only_a, only_b, len(paths))
        accuracies = [
            _describe_accuracy(sum(table[path] for path in paths), len(paths))
            for table in (first, second)
        ]
        lines.append(
            f"{name}: {len(paths)} images, {accuracies[0]}, {accuracies[1]}, difference "
            f"{(only_b - only_a) / len(paths):+.4f} ({low:+.4f} to {high:+.4f}), McNemar's p "
            f"{mcnemar_p(only_a, only_b):.2g}"
        )
    return lines


def _describe_accuracy(hits: int, num_images: int) -> str:
    low, high = wilson_interval(hits, num_images)
    return f"{hits / num_images:.4f} ({low:.4f} to {high:.4f})"


def _read_correctness(table: str) -> dict[str, bool]:
    """Whether the predicted class of each image is the name of its folder, by path.

    If ``seedtf probe`` compared several networks, the first one counts.
    """
    rows = _read(table)
    path = "path" if "path" in rows[0] else "file"
    predicted = [name for name in rows[0] if name == "top1" or name.endswith(" logistic")]
    return {row[path]: row[predicted[0]] == row[path].split("/")[-2] for row in rows}


def _read(table: str) -> list[dict[str, str]]:
    with Path(table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    kind, *tables = sys.argv[1:]
    sys.stdout.write("\n".join({"found": found, "accuracy": accuracy}[kind](*tables)) + "\n")
