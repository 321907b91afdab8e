"""Writes predictions of any number of images to a table, with at most two batches in memory."""

from __future__ import annotations

import functools
import glob
import itertools
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedtf.data.paths import is_file
from seedtf.data.walk import walk_files
from seedtf.errors import UserError
from seedtf.evaluation.classifier import Classifier, Prediction
from seedtf.evaluation.prediction_table import check_table_format, open_prediction_table
from seedtf.evaluation.report import read_thumbnail
from seedtf.files import check_parent, unique_name, write_bytes
from seedtf.images.header import RefusedError
from seedtf.plots.heatmap import draw_heatmap, encode_image
from seedtf.report import is_silent

__all__ = [
    "PredictionCounts",
    "check_out",
    "list_images",
    "make_heatmap_folder",
    "predict_files",
    "write_predictions",
]

_HEATMAP_SIZE = 512
"""Longer side of a heat-map file, in pixels."""

_MAX_FILES_PER_CALL = 32
"""Largest number of files that one call of ``Classifier.prepare_files`` gets."""

_Batch = tuple[list[str], list[Future[list[Any]]]]
"""The paths of a batch, and the futures of the ``prepare_files`` calls that read them, in order."""


@dataclass(frozen=True)
class PredictionCounts:
    """The numbers of files in a table of predictions.

    Attributes:
        num_files: number of rows in the table.
        num_bad: number of files that could not be predicted.
        first_bad: the path and fault of the first such file; empty if there is none.
    """

    num_files: int
    num_bad: int
    first_bad: str


def list_images(inputs: Sequence[str]) -> Iterator[str]:
    """Yields the path of every file in ``inputs`` once, in order.

    A folder yields all files below it, sorted. A pattern such as ``leaves/*.jpg`` or ``**/*.png``
    yields its matches, sorted, unless a file or folder has exactly this name. A file that is
    named several times, even through a symbolic link to its folder, is yielded only once.

    Hidden files and system files in a folder are skipped. Other files that are not images are yielded,
    so that the table has a row with their fault.

    Raises:
        UserError: a file or folder does not exist, a pattern has no match, or a folder cannot be
            listed.
    """
    seen: set[tuple[str, str]] = set()
    real_folder = functools.cache(os.path.realpath)
    for argument in inputs:
        for path in _expand(argument):
            folder, name = os.path.split(path)
            # Links to files are not resolved: all of seedtf treats such a link as a file of its own.
            if (key := (real_folder(folder or "."), name)) not in seen:
                seen.add(key)
                yield path


def _expand(argument: str) -> Iterator[str]:
    """Yields the files of an argument, which is a file, a folder or a pattern."""
    if os.path.isdir(argument):
        yield from (
            os.path.join(argument, path) for path in walk_files(argument, "FILES_OR_FOLDERS")
        )
    elif os.path.exists(argument) or is_file(argument):
        yield argument
    elif glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))
        if not matches:
            raise UserError(f"{argument}: no file matches; pass images or a folder of them")
        for match in matches:
            # ``**`` matches a folder and also the files in it; `list_images` removes the duplicates.
            yield from _expand(match) if os.path.isdir(match) else (match,)
    else:
        raise UserError(f"{argument}: no such file or folder; pass images or a folder of them")


def check_out(out: str | os.PathLike[str], overwrite: bool) -> Path:
    """Returns ``out`` as a path, after checking that the table can be written there.

    Raises:
        UserError: ``out`` is a folder, or exists and ``overwrite`` is False; its parent folder does not
            exist or cannot be written; or ``out`` is a parquet file, and pyarrow is not installed.
    """
    path = Path(out)
    if path.is_dir() or (path.exists() and not overwrite):
        remedy = "pass a file name" if path.is_dir() else "pass another name or --overwrite"
        raise UserError(f"--out={path}: already exists; {remedy}")
    check_parent(path, "--out")
    check_table_format(path)
    return path


def make_heatmap_folder(folder: str, overwrite: bool) -> Path | None:
    """Creates the folder of ``--heatmaps`` and returns its path, or None if the flag is empty.

    Raises:
        UserError: the folder contains files, and ``overwrite`` is False; or it cannot be created.
    """
    if not folder:
        return None
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()) and not overwrite:
            raise UserError(f"--heatmaps={path}: holds files; pass another folder or --overwrite")
    except OSError as error:
        raise UserError(f"--heatmaps={path}: {error.strerror}; pass another folder") from error
    return path


def write_predictions(
    classifier: Classifier,
    inputs: Sequence[str],
    out: Path,
    *,
    topk: int,
    batch_size: int,
    heatmaps: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> PredictionCounts:
    """Atomically writes a table with one row per file and the columns of ``open_prediction_table``.

    Args:
        classifier: from ``open_classifier``.
        inputs: files, folders and patterns, as for ``list_images``.
        out: the file to create or replace.
        topk: number of classes per image, or all classes if the model has fewer.
        batch_size: images per batch; changes the speed, not the predictions.
        heatmaps: an existing folder for one PNG of each predicted image, whose file name is in the last
            column of the table. The classifier must have been opened with heat maps.
        shard: the number of a shard, counted from 1, and the number of shards. A shard is a contiguous
            part of the list of files, so the rows of all shards, in order, are the rows of all files.

    Raises:
        UserError: an input cannot be listed (see ``list_images``), there are no files, pyarrow is
            needed and not installed, or ``heatmaps`` cannot be written.
        OSError: ``out`` cannot be written.

    Example:
        >>> from seedtf.evaluation.classifier import open_classifier
        >>> classifier = open_classifier("runs/seedlings")
        >>> table = Path("predictions.csv")
        >>> write_predictions(classifier, ["leaf.png"], table, topk=1, batch_size=64)
        PredictionCounts(num_files=1, num_bad=0, first_bad='')
        >>> table.read_text().splitlines()[0]
        'file,status,top1,p1'
    """
    total = sum(1 for _ in list_images(inputs))
    if not total:
        raise UserError(f"{inputs[0]}: no files; pass images or a folder of them")
    topk = min(topk, classifier.num_classes)
    number, num_shards = shard
    start, end = total * (number - 1) // num_shards, total * number // num_shards
    paths = itertools.islice(list_images(inputs), start, end)
    name_counts: Counter[str] = Counter()
    num_files, num_bad, first_bad = 0, 0, ""
    with open_prediction_table(out, topk, heatmaps=heatmaps is not None) as table:
        predictions = predict_files(classifier, paths, topk, batch_size)
        disable = is_silent() or None  # None hides the bar unless stderr is a terminal.
        bar = tqdm(predictions, "predicting", end - start, unit="img", disable=disable, leave=False)
        for path, prediction in bar:
            cells = []
            if heatmaps:
                cells = [_write_heatmap(path, prediction, heatmaps, name_counts, classifier)]
            table.write(path, prediction, *cells)
            num_files += 1
            if isinstance(prediction, RefusedError):
                num_bad += 1
                first_bad = first_bad or f"{path}: {prediction.fault} ({prediction.detail})"
    return PredictionCounts(num_files, num_bad, first_bad)


def predict_files(
    classifier: Classifier, paths: Iterable[str], topk: int, batch_size: int
) -> Iterator[tuple[str, Prediction | RefusedError]]:
    """Yields every path with its prediction, in order.

    Threads prepare the next batch while the model predicts the current one.
    """
    num_threads = os.cpu_count() or 1
    # The files of one call are decoded together, which is faster. But every thread needs some files.
    files_per_call = min(math.ceil(batch_size / num_threads), _MAX_FILES_PER_CALL)
    paths, pending = iter(paths), deque[_Batch]()
    with ThreadPoolExecutor(num_threads) as pool:
        while batch_paths := list(itertools.islice(paths, batch_size)):
            futures = [
                pool.submit(classifier.prepare_files, batch_paths[start : start + files_per_call])
                for start in range(0, len(batch_paths), files_per_call)
            ]
            pending.append((batch_paths, futures))
            if len(pending) > 1:
                yield from _predict_batch(classifier, *pending.popleft(), topk)
        for batch in pending:
            yield from _predict_batch(classifier, *batch, topk)


def _predict_batch(
    classifier: Classifier, paths: list[str], futures: list[Future[list[Any]]], topk: int
) -> Iterator[tuple[str, Prediction | RefusedError]]:
    prepared = [image for future in futures for image in future.result()]
    images = [image for image in prepared if not isinstance(image, RefusedError)]
    predictions = iter(classifier.classify(images, topk) if images else [])
    for path, image in zip(paths, prepared, strict=True):
        yield path, image if isinstance(image, RefusedError) else next(predictions)


def _write_heatmap(
    path: str,
    prediction: Prediction | RefusedError,
    folder: Path,
    name_counts: Counter[str],
    classifier: Classifier,
) -> str:
    """Writes the image with its heat map and returns the file name; empty if there is no heat map.

    If several images have the same name, their heat maps get different names by ``unique_name``, whose
    argument ``counts`` is ``name_counts``.
    """
    if isinstance(prediction, RefusedError) or prediction.heatmap is None:
        return ""
    image = read_thumbnail(path, _HEATMAP_SIZE, classifier.fit, classifier.max_pixels)
    if image is None:  # the file has changed since it was predicted
        return ""
    name = unique_name(Path(path).stem, ".png", name_counts)
    drawn = encode_image(draw_heatmap(image, prediction.heatmap))
    try:
        write_bytes(folder / name, drawn)
    except OSError as error:
        cause = error.strerror or error
        raise UserError(f"--heatmaps={folder}: {cause}; pass another folder") from error
    return name
