"""Fills in a competition's sample submission with predicted classes or probabilities."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from seedtf.data.image_files import has_image_suffix
from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier
from seedtf.evaluation.predict import list_images, predict_files
from seedtf.evaluation.report import format_probability
from seedtf.files import csv_line, write_text
from seedtf.images.header import RefusedError
from seedtf.report import format_count, is_silent

__all__ = ["Sample", "read_sample", "write_submission"]


@dataclass(frozen=True)
class Sample:
    """A sample submission: its path, its heading, and its rows, with one cell for each heading."""

    path: Path
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_sample(path: str) -> Sample:
    """Reads a sample submission, a table of at least two columns, one of which has the image ids.

    Raises:
        UserError: the file does not exist, is not a UTF-8 table of equally long rows, or has no rows.

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
    if len(lines) < 2:
        raise UserError(f"--submission={path}: no rows below a heading; pass the sample table")
    for row, line in enumerate(lines, start=1):
        if len(line) != len(lines[0]) or len(line) < 2:
            raise UserError(
                f"--submission={path}: row {row} has {format_count(len(line), 'column')}; a sample "
                "submission has the file name and the class, or the file name and a column for "
                "each class"
            )
    heading, *rows = map(tuple, lines)
    return Sample(Path(path), heading, tuple(rows))


def write_submission(
    classifier: Classifier, inputs: Sequence[str], sample: Sample, out: Path, *, batch_size: int
) -> int:
    """Writes ``out``: the sample, with predictions in all columns except the column of ids.

    The column of ids is the one that contains names of the images. An id is a file name, with or
    without its suffix, and with or without folders in front. If there is only one other column, that
    column gets the most probable class. If there are several, each must have the name of a class and
    gets the probability of that class. Images that are not in the sample are ignored.

    Args:
        classifier: from ``open_classifier``.
        inputs: files and folders, as for ``list_images``.
        sample: from ``read_sample``.
        out: the CSV file to create or replace.
        batch_size: images per batch.

    Returns:
        The number of rows.

    Raises:
        UserError: an image of the sample is missing or unreadable, an id matches several images, or
            the columns do not match the classes. In these cases nothing is written.
    """
    path_of, column = _match_files(inputs, sample)
    headings = [name for index, name in enumerate(sample.heading) if index != column]
    has_class_columns = len(headings) > 1
    paths = dict.fromkeys(path_of.values())
    cells: dict[str, list[str]] = {}
    k = classifier.num_classes if has_class_columns else 1
    predictions = predict_files(classifier, paths, k, batch_size)
    disable = is_silent() or None  # None hides the bar unless stderr is a terminal.
    bar = tqdm(predictions, "predicting", len(paths), unit="img", disable=disable, leave=False)
    class_of: dict[str, str] = {}
    for path, prediction in bar:
        if isinstance(prediction, RefusedError):
            raise UserError(
                f"{path}: {prediction}; replace this file, because --submission needs all images"
            )
        if not has_class_columns:
            cells[path] = [prediction.names[0]]
            continue
        class_of = class_of or _match_classes(sample.path, headings, prediction.names)
        probability_of = dict(zip(prediction.names, prediction.probabilities, strict=True))
        cells[path] = [format_probability(probability_of[class_of[name]]) for name in headings]
    lines = [csv_line(*sample.heading)]
    for row in sample.rows:
        filled = cells[path_of[row[column]]]
        lines.append(csv_line(*filled[:column], row[column], *filled[column:]))
    write_text(out, "".join(lines))
    return len(sample.rows)


def _match_classes(path: Path, headings: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Returns the class that each heading names; case and separators may differ.

    Raises:
        UserError: a heading matches no class or several, or a class matches no heading or several.
    """
    counts = Counter(map(_letters_and_digits, names))
    name_of = {
        _letters_and_digits(name): name for name in names if counts[_letters_and_digits(name)] == 1
    }
    class_of = {
        heading: heading if heading in names else name_of.get(_letters_and_digits(heading), "")
        for heading in headings
    }
    unknown = [heading for heading in headings if not class_of[heading]]
    missing = [name for name in names if name not in class_of.values()]
    if unknown or missing or len(set(class_of.values())) < len(headings):
        wrong = (
            f"column {unknown[0]!r} is no class of the model"
            if unknown
            else f"the model's class {missing[0]!r} has no column"
            if missing
            else "two columns name the same class"
        )
        raise UserError(
            f"--submission={path}: {wrong}; pass a sample with the id and one column, or with the id "
            f"and one column for each class: {', '.join(sorted(names)[:5])}, …"
        )
    return class_of


def _letters_and_digits(name: str) -> str:
    """The letters, in lower case, and the digits of a name."""
    return "".join(char for char in unicodedata.normalize("NFC", name).casefold() if char.isalnum())


def _match_files(inputs: Sequence[str], sample: Sample) -> tuple[dict[str, str], int]:
    """Returns the path of each id, in the order of the sample, and the index of the column of ids."""
    columns = [[row[column] for row in sample.rows] for column in range(len(sample.heading))]
    wanted = {_split_id(cell)[-1] for column in columns for cell in column}
    by_name: dict[str, list[str]] = defaultdict(list)
    for path in list_images(inputs):
        file = Path(path)
        for name in {file.name, file.stem} & wanted:
            by_name[name].append(path)
    num_matches = [
        len({cell for cell in column if _split_id(cell)[-1] in by_name}) for column in columns
    ]
    column = num_matches.index(max(num_matches))
    ids = list(dict.fromkeys(columns[column]))
    matches = {cell: _choose_paths(cell, by_name.get(_split_id(cell)[-1], [])) for cell in ids}
    missing = [cell for cell in ids if not matches[cell]]
    if missing:
        raise UserError(
            f"--submission={sample.path}: {len(missing)} of {len(ids)} files are not among the "
            f"images given, first {missing[0].strip()!r}; pass their folder"
        )
    for cell, paths in matches.items():
        if len(paths) > 1:
            raise UserError(
                f"{paths[1]}: has the same name as {paths[0]}, so {cell.strip()!r} may be either; pass "
                "one of them"
            )
    return {cell: paths[0] for cell, paths in matches.items()}, column


def _choose_paths(cell: str, paths: list[str]) -> list[str]:
    """Chooses the files that an id may mean.

    1. Files whose whole name is that of the id. If there are none, files with the suffix of an image
       format. If there are none of these either, all files.
    2. If several files are left and some of them lie in the folders that the id names, only those.

    Args:
        cell: the id, as written in the sample.
        paths: the files whose name, with or without its suffix, is that of the id.
    """
    parts = _split_id(cell)
    exact = [path for path in paths if Path(path).name == parts[-1]]
    paths = exact or [path for path in paths if has_image_suffix(path)] or paths
    if len(paths) == 1:
        return paths
    inside = [path for path in paths if Path(path).parts[-len(parts) : -1] == parts[:-1]]
    return inside if len(parts) > 1 and inside else paths


def _split_id(cell: str) -> tuple[str, ...]:
    """Splits an id at slashes and backslashes into folders and name; returns at least one part."""
    return Path(cell.strip().replace("\\", "/")).parts or ("",)
