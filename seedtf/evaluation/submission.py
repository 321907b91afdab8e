"""Writes a competition's submission: a sample submission, filled in with the predicted classes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier
from seedtf.evaluation.predict import list_images, predict_files
from seedtf.files import csv_line, write_text
from seedtf.images.header import RefusedError
from seedtf.report import is_silent

__all__ = ["Sample", "read_sample", "write_submission"]


@dataclass(frozen=True)
class Sample:
    """A sample submission: its path, the headings of its two columns, and its rows in order."""

    path: Path
    heading: tuple[str, str]
    rows: tuple[tuple[str, str], ...]


def read_sample(path: str) -> Sample:
    """Reads a sample submission of two columns.

    Raises:
        UserError: the file does not exist, is not a UTF-8 table of two columns, or has no rows.

    Example:
        >>> _ = Path("sample.csv").write_text("file,species\\n1.png,Maize\\n")
        >>> read_sample("sample.csv").rows
        (('1.png', 'Maize'),)
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise UserError(f"--submission={path}: no such file; pass the sample table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--submission={path}: cannot be read as UTF-8 CSV: {error}") from error
    malformed = next((row for row, line in enumerate(lines, start=1) if len(line) != 2), None)
    if malformed is not None:
        raise UserError(
            f"--submission={path}: row {malformed} has {len(lines[malformed - 1])} columns; "
            "a sample submission has two, the file name and the class"
        )
    if len(lines) < 2:
        raise UserError(f"--submission={path}: no rows below a heading; pass the sample table")
    heading, *rows = [(first, second) for first, second in lines]
    return Sample(Path(path), heading, tuple(rows))


def write_submission(
    classifier: Classifier, inputs: Sequence[str], sample: Sample, out: Path, *, batch_size: int
) -> int:
    """Writes ``out`` with the sample's heading and rows and the most probable class of each image.

    The column that contains names of the images is the column of file names; the other one is filled
    in. Images that are not in the sample are ignored.

    Args:
        classifier: from ``open_classifier``.
        inputs: files and folders, as for ``list_images``.
        sample: from ``read_sample``.
        out: the CSV file to create or replace.
        batch_size: images per batch.

    Returns:
        The number of rows.

    Raises:
        UserError: a listed image is missing, ambiguous or unreadable; nothing is written.
    """
    path_of, column = _match_files(inputs, sample)
    name_of = {path: name for name, path in path_of.items()}
    labels: dict[str, str] = {}
    predictions = predict_files(classifier, name_of, 1, batch_size)
    hidden = is_silent() or None
    bar = tqdm(predictions, "predicting", len(name_of), unit="img", disable=hidden, leave=False)
    for path, prediction in bar:
        if isinstance(prediction, RefusedError):
            raise UserError(
                f"{path}: {prediction}; --submission needs every image, so replace this one"
            )
        labels[name_of[path]] = prediction.names[0]
    lines = [csv_line(*sample.heading)]
    for row in sample.rows:
        cells = list(row)
        cells[1 - column] = labels[row[column].strip()]
        lines.append(csv_line(*cells))
    write_text(out, "".join(lines))
    return len(sample.rows)


def _match_files(inputs: Sequence[str], sample: Sample) -> tuple[dict[str, str], int]:
    """The path of every listed file name, in the sample's order, and the column with the names."""
    listed = [{row[column].strip() for row in sample.rows} for column in (0, 1)]
    matches: dict[str, str] = {}
    for path in list_images(inputs):
        name = Path(path).name
        if name not in listed[0] and name not in listed[1]:
            continue
        if matches.setdefault(name, path) != path:
            raise UserError(f"{path}: has the same name as {matches[name]}; pass one of them")
    hits = [len(names & matches.keys()) for names in listed]
    column = 1 if hits[1] > hits[0] else 0
    names = list(dict.fromkeys(row[column].strip() for row in sample.rows))
    missing = [name for name in names if name not in matches]
    if missing:
        raise UserError(
            f"--submission={sample.path}: {len(missing)} of {len(names)} files are not among the "
            f"images given, first {missing[0]!r}; pass their folder"
        )
    return {name: matches[name] for name in names}, column
