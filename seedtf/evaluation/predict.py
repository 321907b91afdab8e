"""Any number of unlabelled images to a table, a batch in memory at a time."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedtf.data.layouts import IMAGE_SUFFIXES, walk_files
from seedtf.data.paths import read_file
from seedtf.errors import UserError
from seedtf.evaluation.classifier import Answer, Classifier
from seedtf.evaluation.report import number
from seedtf.files import atomic_path, csv_line
from seedtf.images.header import RefusedError

__all__ = ["PredictionCounts", "answer_files", "check_out", "list_images", "write_predictions"]

OK = "ok"


@dataclass(frozen=True)
class PredictionCounts:
    """How a prediction went: files in the table, those without an answer, and the first of these."""

    files: int
    bad: int
    first_bad: str


def list_images(inputs: Sequence[str]) -> Iterator[str]:
    """Every file named, in the order given; a folder stands for all files below it, sorted.

    Hidden and system files of a folder are passed over; nothing else is.

    Raises:
        UserError: no such file or folder, or a folder that cannot be listed.
    """
    for given in inputs:
        if os.path.isdir(given):
            yield from (os.path.join(given, path) for path in walk_files(given, "FILES_OR_FOLDERS"))
        elif os.path.exists(given):
            yield given
        else:
            raise UserError(f"{given}: no such file or folder; pass images or a folder of them")


def check_out(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """``out`` as a path; raises UserError when it exists and may not, or has no folder to lie in."""
    path = Path(out)
    if path.is_dir() or (path.exists() and not overwrite):
        remedy = "pass a file name" if path.is_dir() else "pass another name or --overwrite"
        raise UserError(f"--out={path}: is there already; {remedy}")
    if not path.parent.is_dir():
        raise UserError(f"--out={path}: no folder {path.parent}; create it or pass another path")
    return path


def write_predictions(
    classifier: Classifier, inputs: Sequence[str], out: Path, *, topk: int, batch_size: int
) -> PredictionCounts:
    """Writes file, status, top1, p1, … of every image; the table appears when it is complete.

    A file without an answer keeps its row: ``status`` names the fault and the other cells are empty.

    Raises:
        UserError: an input does not exist, or there are no files.
    """
    total = sum(1 for _ in list_images(inputs))
    if not total:
        raise UserError(f"{inputs[0]}: no files; pass images or a folder of them")
    topk = min(topk, classifier.num_classes)
    pairs = [cell for rank in range(1, topk + 1) for cell in (f"top{rank}", f"p{rank}")]
    files, bad, first_bad = 0, 0, ""
    # a name that is no text is still written, with its bytes as escapes
    with (
        atomic_path(out) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as table,
    ):
        table.write(csv_line("file", "status", *pairs))
        answers = answer_files(classifier, list_images(inputs), topk, batch_size)
        for path, answer in tqdm(
            answers, "predicting", total, unit="img", disable=None, leave=False
        ):
            table.write(_line(path, answer, topk))
            files += 1
            if isinstance(answer, RefusedError):
                bad += 1
                first_bad = first_bad or f"{path}: {answer.fault} ({answer.detail})"
    return PredictionCounts(files, bad, first_bad)


def answer_files(
    classifier: Classifier, paths: Iterable[str], topk: int, batch_size: int
) -> Iterator[tuple[str, Answer | RefusedError]]:
    """Yields every path with its answer, in order; one batch is decoded while another is answered."""

    def prepare(path: str) -> Any:
        try:
            return classifier.prepare(_read(path, classifier.max_pixels))
        except RefusedError as error:
            return error

    paths, pending = iter(paths), deque[list[tuple[str, Any]]]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(paths, batch_size)):
            pending.append([(path, pool.submit(prepare, path)) for path in chunk])
            if len(pending) > 1:
                yield from _answered(classifier, pending.popleft(), topk)
        for batch in pending:
            yield from _answered(classifier, batch, topk)


def _answered(
    classifier: Classifier, batch: list[tuple[str, Any]], topk: int
) -> Iterator[tuple[str, Answer | RefusedError]]:
    prepared = [(path, task.result()) for path, task in batch]
    good = [each for _, each in prepared if not isinstance(each, RefusedError)]
    answers = iter(classifier.classify(good, topk) if good else [])
    for path, each in prepared:
        yield path, each if isinstance(each, RefusedError) else next(answers)


def _read(path: str, max_pixels: int) -> bytes:
    if Path(path).suffix and not path.lower().endswith(IMAGE_SUFFIXES):
        raise RefusedError("unsupported suffix", f"suffix {Path(path).suffix}")
    try:
        return read_file(path, max_pixels)
    except OSError as error:
        raise RefusedError("unreadable", error.strerror or str(error)) from None


def _line(path: str, answer: Answer | RefusedError, topk: int) -> str:
    if isinstance(answer, RefusedError):
        return csv_line(path, answer.fault, *[""] * (2 * topk))
    pairs = zip(answer.names, map(number, answer.probabilities), strict=True)
    return csv_line(path, OK, *itertools.chain.from_iterable(pairs))
