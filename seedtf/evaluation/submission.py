"""A competition's answer sheet: the sample's heading, columns and rows, with the model's answers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier
from seedtf.evaluation.predict import answer_files, list_images
from seedtf.files import csv_line, write_text
from seedtf.images.header import RefusedError

__all__ = ["Sample", "read_sample", "write_submission"]


@dataclass(frozen=True)
class Sample:
    """A sample submission: its two headings, and its rows' cells of two, in order."""

    path: Path
    heading: tuple[str, str]
    rows: tuple[tuple[str, str], ...]


def read_sample(path: str) -> Sample:
    """Reads a sample submission of two columns, such as ``file,species``.

    Raises:
        UserError: no such file, not a UTF-8 table of two columns, or without rows.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise UserError(f"--submission={path}: no such file; pass the sample table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--submission={path}: cannot be read as UTF-8 CSV: {error}") from error
    odd = next((row for row, line in enumerate(lines, start=1) if len(line) != 2), None)
    if odd is not None:
        raise UserError(
            f"--submission={path}: row {odd} has {len(lines[odd - 1])} columns; "
            "a sample has two, the file's name and the class"
        )
    if len(lines) < 2:
        raise UserError(f"--submission={path}: no rows below a heading; pass the sample table")
    heading, *rows = [(first, second) for first, second in lines]
    return Sample(Path(path), heading, tuple(rows))


def write_submission(
    classifier: Classifier, inputs: Sequence[str], sample: Sample, out: Path, *, batch_size: int
) -> int:
    """Writes ``out`` with the sample's heading and rows and the most probable class of each image.

    The column that holds the images' file names is the one of ids; images that the sample does not
    list are left alone.

    Returns:
        The number of rows.

    Raises:
        UserError: a listed image is missing, ambiguous or unreadable; nothing is written.
    """
    named, column = _match(inputs, sample)
    paths = {path: name for name, path in named.items()}
    labels: dict[str, str] = {}
    answers = answer_files(classifier, paths, 1, batch_size)
    bar = tqdm(answers, "predicting", len(paths), unit="img", disable=None, leave=False)
    for path, answer in bar:
        if isinstance(answer, RefusedError):
            raise UserError(f"{path}: {answer}; --submission needs every image, replace this one")
        labels[paths[path]] = answer.names[0]
    lines = [csv_line(*sample.heading)]
    for row in sample.rows:
        cells = list(row)
        cells[1 - column] = labels[row[column].strip()]
        lines.append(csv_line(*cells))
    write_text(out, "".join(lines))
    return len(sample.rows)


def _match(inputs: Sequence[str], sample: Sample) -> tuple[dict[str, str], int]:
    """The path of every listed name, in the sample's order, and which column lists them."""
    wanted = [{row[column].strip() for row in sample.rows} for column in (0, 1)]
    found: dict[str, str] = {}
    for path in list_images(inputs):
        name = Path(path).name
        if name not in wanted[0] and name not in wanted[1]:
            continue
        if found.setdefault(name, path) != path:
            raise UserError(f"{path}: has the same name as {found[name]}; pass one of them")
    hits = [len(names & found.keys()) for names in wanted]
    column = 1 if hits[1] > hits[0] else 0
    names = list(dict.fromkeys(row[column].strip() for row in sample.rows))
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(
            f"--submission={sample.path}: {len(missing)} of {len(names)} files are not among the "
            f"images given, first {missing[0]!r}; pass their folder"
        )
    return {name: found[name] for name in names}, column
