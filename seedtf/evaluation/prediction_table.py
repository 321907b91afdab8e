"""Writes the table of predictions row by row, as a CSV or parquet file."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seedtf.errors import UserError
from seedtf.evaluation.classifier import Prediction
from seedtf.evaluation.report import format_probability
from seedtf.files import atomic_path, csv_line
from seedtf.images.header import RefusedError

__all__ = ["PredictionTable", "check_table_format", "open_prediction_table"]

OK = "ok"
PARQUET = ".parquet"
_ROW_GROUP_SIZE = 16_384
_HEATMAP = "heatmap"


class PredictionTable(Protocol):
    """A table that is being written."""

    def write(self, path: str, prediction: Prediction | RefusedError, *more: str) -> None:
        """Adds the row of a file; ``more`` is the cell of the column heatmap, if the table has one."""


def check_table_format(out: Path) -> None:
    """Raises UserError if ``out`` is a parquet file and pyarrow is not installed."""
    if out.suffix.lower() == PARQUET:
        _import_pyarrow(out)


@contextmanager
def open_prediction_table(
    out: Path, topk: int, *, heatmaps: bool = False
) -> Iterator[PredictionTable]:
    """Yields a table with the columns file, status, top1, p1, …, and heatmap if ``heatmaps``.

    The table is a parquet file if the name of ``out`` ends in ``.parquet``, otherwise a CSV file.

    The table replaces ``out`` after the ``with`` block. In the row of a file that cannot be predicted,
    ``status`` is the fault. The cells of classes and probabilities are then empty in CSV and null in
    parquet, and the cell ``heatmap`` is an empty text.

    In parquet, probabilities are float32 and all other columns are strings. The rows are written in
    groups of 16,384, so that memory does not grow with the number of rows.

    Args:
        out: the file to create or replace.
        topk: number of classes in a row, at least 1 and at most that of the model.
        heatmaps: whether the table has the column heatmap, for the file name of a heat map.

    Raises:
        UserError: the table is a parquet file, and pyarrow is not installed.
        OSError: ``out`` cannot be written.

    Example:
        >>> leaf = Prediction(("maize",), (np.float32(0.75),))
        >>> with open_prediction_table(Path("predictions.csv"), 1) as table:
        ...     table.write("leaf.png", leaf)
        >>> print(Path("predictions.csv").read_text(), end="")
        file,status,top1,p1
        leaf.png,ok,maize,0.75
    """
    with atomic_path(out) as temporary:
        if out.suffix.lower() == PARQUET:
            parquet = _ParquetTable(_import_pyarrow(out), temporary, topk, heatmaps=heatmaps)
            yield parquet
            parquet.close()
        else:
            # In a file name that is not valid UTF-8, the invalid bytes are written as escapes.
            with temporary.open(
                "w", encoding="utf-8", errors="backslashreplace", newline=""
            ) as file:
                csv = _CsvTable(file, topk)
                csv.write_heading(heatmaps=heatmaps)
                yield csv


class _CsvTable:
    def __init__(self, file: Any, topk: int) -> None:
        self._file, self._topk = file, topk

    def write_heading(self, *, heatmaps: bool) -> None:
        more = [_HEATMAP] if heatmaps else []
        self._file.write(csv_line("file", "status", *_headings(self._topk), *more))

    def write(self, path: str, prediction: Prediction | RefusedError, *more: str) -> None:
        if isinstance(prediction, RefusedError):
            cells: Sequence[str] = [prediction.fault, *[""] * (2 * self._topk)]
        else:
            probabilities = map(format_probability, prediction.probabilities)
            pairs = zip(prediction.names, probabilities, strict=True)
            cells = [OK, *itertools.chain.from_iterable(pairs)]
        self._file.write(csv_line(path, *cells, *more))


class _ParquetTable:
    def __init__(self, pyarrow: Any, path: Path, topk: int, *, heatmaps: bool) -> None:
        names = ["file", "status", *_headings(topk), *([_HEATMAP] if heatmaps else [])]
        probability_names = {f"p{rank}" for rank in range(1, topk + 1)}
        types = [
            pyarrow.float32() if name in probability_names else pyarrow.string() for name in names
        ]
        self._arrow, self._topk = pyarrow, topk
        self._schema = pyarrow.schema(list(zip(names, types, strict=True)))
        self._writer = pyarrow.parquet.ParquetWriter(str(path), self._schema)
        self._columns: list[list[Any]] = [[] for _ in names]

    def write(self, path: str, prediction: Prediction | RefusedError, *more: str) -> None:
        name = path.encode("utf-8", "backslashreplace").decode()
        if isinstance(prediction, RefusedError):
            cells: list[Any] = [prediction.fault, *[None] * (2 * self._topk)]
        else:
            pairs = zip(prediction.names, map(np.float32, prediction.probabilities), strict=True)
            cells = [OK, *itertools.chain.from_iterable(pairs)]
        for column, cell in zip(self._columns, [name, *cells, *more], strict=True):
            column.append(cell)
        if len(self._columns[0]) >= _ROW_GROUP_SIZE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        types = self._schema.types
        pairs = zip(self._columns, types, strict=True)
        arrays = [self._arrow.array(column, kind) for column, kind in pairs]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))
        self._columns = [[] for _ in types]


def _headings(topk: int) -> list[str]:
    return [cell for rank in range(1, topk + 1) for cell in (f"top{rank}", f"p{rank}")]


def _import_pyarrow(out: Path) -> Any:
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise UserError(
            f"--out={out}: parquet needs pyarrow; run: pip install 'seedtf[parquet]', or pass a .csv"
        ) from None
