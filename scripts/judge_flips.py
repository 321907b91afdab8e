"""Measures how well flipped labels are found, and how they change the accuracy of predictions.

    python scripts/judge_flips.py found FIXES.csv explore.csv
    python scripts/judge_flips.py accuracy FIXES.csv FIRST.csv SECOND.csv

``scripts/flip_labels.py`` flips labels; its FIXES.csv lists the flipped images.

* ``found`` counts how many of the flipped images are in the first 2 %, 5 %, … of ``explore.csv``. This
  table begins with the most suspect labels.
* ``accuracy`` compares two tables of predictions for images that were not used in training:
  ``oof.csv`` of ``seedtf folds``, or ``predictions.csv`` of ``seedtf probe``. The true label of an
  image is the name of its folder.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from seedtf.evaluation.metrics import mcnemar_p
from seedtf.intervals import paired_difference_interval, wilson_interval

_FRACTIONS = (0.02, 0.05, 0.08, 0.10, 0.20)


def found(fixes_csv: str, explore_csv: str) -> list[str]:
    """A line for each of ``_FRACTIONS``: number of images, of flipped images, recall and precision."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    is_flipped = [row["path"] in flipped for row in _read(explore_csv)]
    lines = []
    for fraction in _FRACTIONS:
        num_images = max(round(fraction * len(is_flipped)), 1)
        num_found = sum(is_flipped[:num_images])
        low, high = wilson_interval(num_found, len(flipped))
        lines.append(
            f"first {fraction:.0%}: {num_images} images, {num_found} flipped, "
            f"{num_found / len(flipped):.1%} of all flipped ({low:.1%} to {high:.1%}), precision "
            f"{num_found / num_images:.1%}"
        )
    return lines


def accuracy(fixes_csv: str, first_csv: str, second_csv: str) -> list[str]:
    """Lines with the accuracies of the two tables, and their paired difference (second minus first)."""
    flipped = {row["path"] for row in _read(fixes_csv)}
    first, second = _read_correctness(first_csv), _read_correctness(second_csv)
    lines = []
    for name, paths in (
        ("all images", first.keys() & second.keys()),
        ("never flipped", first.keys() & second.keys() - flipped),
        ("flipped", first.keys() & second.keys() & flipped),
    ):
        num_only_first = sum(first[path] and not second[path] for path in paths)
        num_only_second = sum(second[path] and not first[path] for path in paths)
        low, high = paired_difference_interval(num_only_first, num_only_second, len(paths))
        accuracies = [
            _describe_accuracy(sum(table[path] for path in paths), len(paths))
            for table in (first, second)
        ]
        lines.append(
            f"{name}: {len(paths)} images, {accuracies[0]}, {accuracies[1]}, difference "
            f"{(num_only_second - num_only_first) / len(paths):+.4f} ({low:+.4f} to {high:+.4f}), "
            f"McNemar's p {mcnemar_p(num_only_first, num_only_second):.2g}"
        )
    return lines


def _describe_accuracy(num_correct: int, num_images: int) -> str:
    low, high = wilson_interval(num_correct, num_images)
    return f"{num_correct / num_images:.4f} ({low:.4f} to {high:.4f})"


def _read_correctness(table: str) -> dict[str, bool]:
    """Whether the predicted class of each image is the name of its folder, by the path of the image.

    If ``seedtf probe`` compared several networks, the predictions of the first one are used.
    """
    rows = _read(table)
    path_column = "path" if "path" in rows[0] else "file"
    class_column = next(name for name in rows[0] if name == "top1" or name.endswith(" logistic"))
    return {row[path_column]: row[class_column] == row[path_column].split("/")[-2] for row in rows}


def _read(table: str) -> list[dict[str, str]]:
    with Path(table).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    kind, *tables = sys.argv[1:]
    sys.stdout.write("\n".join({"found": found, "accuracy": accuracy}[kind](*tables)) + "\n")
