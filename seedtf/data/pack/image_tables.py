"""Reads tables that contain images: parquet and Arrow files, in which Hugging Face stores datasets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from seedtf.data.catalog import Fault
from seedtf.data.pack.records import ClassNamer, ImageNamer, Record, Records, import_optional
from seedtf.errors import UserError, first_line

__all__ = ["is_image_table", "table_records"]

_SUFFIXES = (".parquet", ".arrow")
_ROWS_IN_BATCH = 32
_LABELS = ("label", "labels", "class_name", "class", "fine_label", "species", "category", "target")


def is_image_table(name: str) -> bool:
    """Whether the suffix of a file is that of a parquet or Arrow file."""
    return name.lower().endswith(_SUFFIXES)


def table_records(
    path: str, folder: str, side: str, name_class: ClassNamer, label_column: str
) -> Records:
    """Yields the images of a table, in their order.

    The images are in a column of ``{bytes, path}``, or of bytes. The labels are in a column of the type
    ``ClassLabel``, which has a name for each number, or in a column called ``label`` or similar. Only
    one row group (in Arrow files, one record batch) is in memory at a time.

    Args:
        path: the table.
        folder: the folder in the pack with which the names of the images begin.
        side: the side of all images; empty if there is no split.
        name_class: converts class numbers to names if there is no ``ClassLabel``.
        label_column: the column of labels; empty for a column with a usual type or name.

    Raises:
        UserError: the table is damaged; the table has no column of images, or no ``label_column``;
            ``label_column`` is empty, and no column or several columns may have the labels; or pyarrow
            is not installed.
    """
    pyarrow = import_optional("pyarrow", path, "pack")
    try:
        schema, batches = _open(path)
        columns = _Columns(path, schema, label_column)
        name_image, number = ImageNamer(folder), 0
        for batch in batches(columns.names):
            images = batch.column(columns.image).to_pylist()
            labels = batch.column(columns.label).to_pylist()
            for cell, value in zip(images, labels, strict=True):
                cell = cell if isinstance(cell, dict) else {"bytes": cell}
                data, shown = cell.get("bytes"), f"{folder}/{number:07}"
                number += 1
                label = columns.class_name_of(value, name_class)
                if not data:
                    yield Fault(shown, "no image", cell.get("path") or "the cell is empty")
                elif not (name := name_image(cell.get("path") or "", data)):
                    yield Fault(
                        shown, "not an image", "neither name nor bytes are those of an image"
                    )
                elif not label:
                    yield Fault(name, "no label", f"{columns.label} is {value}")
                else:
                    yield Record(name, label, side, data)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: damaged table ({first_line(error, 80)}); copy it again") from None


def _open(path: str) -> tuple[Any, Any]:
    """The schema of a table, and a function that yields its rows in batches, with the given columns."""
    if path.lower().endswith(".parquet"):
        parquet = import_optional("pyarrow.parquet", path, "pack")
        file = parquet.ParquetFile(path, pre_buffer=False)
        return file.schema_arrow, lambda names: file.iter_batches(_ROWS_IN_BATCH, columns=names)
    pyarrow = import_optional("pyarrow", path, "pack")
    source = pyarrow.memory_map(path)
    try:
        reader = pyarrow.ipc.open_stream(source)
        return reader.schema, lambda names: (batch.select(names) for batch in reader)
    except pyarrow.ArrowInvalid:  # Arrow has two formats, a stream and a file.
        reader = pyarrow.ipc.open_file(source)

        def batches(names: list[str]) -> Iterator[Any]:
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index).select(names)

        return reader.schema, batches


class _Columns:
    """The columns of images and labels, and the names of the classes if the table has them."""

    def __init__(self, path: str, schema: Any, label_column: str) -> None:
        features = _features(schema)
        names = list(schema.names)
        listed = ", ".join(names)
        image_candidates = [
            name for name in names if _is_image(schema.field(name).type, features.get(name))
        ]
        if not image_candidates:
            raise UserError(f"{os.fspath(path)}: no column of images, only {listed}")
        label_candidates = [
            name for name in names if features.get(name, {}).get("_type") == "ClassLabel"
        ]
        label_candidates = label_candidates or [name for name in _LABELS if name in names]
        if label_column and label_column not in names:
            raise UserError(f"--label_column={label_column}: {path} has only {listed}")
        if not label_column and len(label_candidates) != 1:
            found = f"no label column, only {listed}"
            if label_candidates:
                found = f"several label columns ({', '.join(label_candidates)})"
            raise UserError(f"{path}: {found}; pass --label_column")
        self.image, self.label = image_candidates[0], label_column or label_candidates[0]
        self.names = [self.image, self.label]
        self._classes: list[str] = features.get(self.label, {}).get("names") or []

    def class_name_of(self, value: Any, name_class: ClassNamer) -> str:
        """The class of a cell in the column of labels; empty for no label or an unknown number."""
        if value is None or value == -1:  # Hugging Face gives unlabelled test rows the label -1.
            return ""
        if self._classes and isinstance(value, int):
            return str(self._classes[value]) if 0 <= value < len(self._classes) else ""
        return name_class(str(value).strip())


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's ``datasets`` has stored about each column; empty if nothing is stored."""
    try:
        text = (schema.metadata or {})[b"huggingface"]
        features = json.loads(text)["info"]["features"]
        return {name: value for name, value in features.items() if isinstance(value, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _is_image(kind: Any, feature: Any) -> bool:
    if isinstance(feature, dict) and "_type" in feature:
        return feature["_type"] == "Image"
    text = str(kind)
    return text.startswith("struct<bytes: binary") or text in ("binary", "large_binary")
