"""Reads WebDataset tars, in which the files of an image, such as 7.jpg and 7.cls, follow each other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from seedtf.data.archive_entries import DAMAGED, ArchiveEntry, archive_kind, tar_entries
from seedtf.data.catalog import Fault
from seedtf.data.image_files import has_image_suffix
from seedtf.data.pack.records import ClassNamer, ImageNamer, Record, Records
from seedtf.errors import UserError, first_line

__all__ = ["is_webdataset", "webdataset_records"]

_MAX_PEEKED_ENTRIES = 100
_LABEL_KEYS = ("class_name", "label", "cls", "class", "category", "species")
_MAX_LABEL_BYTES = 16 << 20


def is_webdataset(path: str) -> bool:
    """Whether a file is a tar with an image and its label among the first 100 entries."""
    labels, images = set(), set()
    try:
        with open(path, "rb") as file:
            if archive_kind(file.read(512)) != "tar":
                return False
            file.seek(0)
            for number, entry in enumerate(tar_entries(file)):
                if number == _MAX_PEEKED_ENTRIES:
                    break
                key, extension = _key_and_extension(entry)
                if extension in ("cls", "json"):
                    labels.add(key)
                elif has_image_suffix(f".{extension}"):
                    images.add(key)
    except (OSError, *DAMAGED):
        pass  # Decide by the entries before the damage; `webdataset_records` reports the damage.
    return bool(labels & images)


def webdataset_records(
    path: str, folder: str, side: str, name_class: ClassNamer, label_key: str
) -> Records:
    """Yields the images of a tar, in their order.

    Files belong together if their names are equal up to the first dot; this part is the *key*. The
    label of ``key.jpg`` is the text of ``key.cls``, or a value of ``key.json``.

    Args:
        path: the tar, which may be compressed.
        folder: the folder in the pack with which the names of the images begin.
        side: the side of all images; empty if there is no split.
        name_class: converts class numbers to names.
        label_key: the name of the value in ``key.json`` that is the label. If it is empty, ``key.cls``
            or a value with a usual name is the label.

    Raises:
        UserError: the tar or a ``key.json`` is damaged, or a ``key.json`` has no ``label_key``.
    """
    name_image = ImageNamer(folder)
    try:
        with open(path, "rb") as file:
            for key, fields in _samples(file):
                images = [extension for extension in fields if has_image_suffix(f".{extension}")]
                # Sort the image before its annotations: `jpg` before `seg.png`.
                images.sort(key=lambda extension: extension.count("."))
                shown = f"{folder}/{key}"
                for extension in images[1:]:
                    detail = f"{key}.{images[0]} is used"
                    yield Fault(f"{shown}.{extension}", "second image", detail)
                if not images:
                    others = ", ".join(filter(None, fields)) or "other files"
                    yield Fault(shown, "no image", f"only {others}")
                elif not (label := _label(path, key, fields, label_key)):
                    detail = (
                        f"no {label_key} in .json" if label_key else "no label in .cls or .json"
                    )
                    yield Fault(f"{shown}.{images[0]}", "no label", detail)
                else:
                    data = fields[images[0]]
                    name = name_image(f"{key}.{images[0]}", data)
                    yield Record(name, name_class(label), side, data)
    except DAMAGED as error:
        raise UserError(f"{path}: damaged tar ({first_line(error, 80)}); copy it again") from None


def _samples(file: Any) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields each key, and a dict from the extensions of its labels and images to their contents.

    If the key has other files, the dict also maps an empty extension to an empty content.
    """
    current, fields = "", {}  # type: ignore[var-annotated]
    for entry in tar_entries(file):
        if entry.is_folder or entry.refusal or os.path.basename(entry.name).startswith("."):
            continue
        key, extension = _key_and_extension(entry)
        if key != current and fields:
            yield current, fields
            fields = {}
        current = key
        is_wanted = extension in ("cls", "json") and entry.size <= _MAX_LABEL_BYTES
        if is_wanted or has_image_suffix(f".{extension}"):
            with entry.open() as stream:
                fields[extension] = stream.read()
        else:
            fields.setdefault("", b"")
    if fields:
        yield current, fields


def _label(path: str, key: str, fields: dict[str, bytes], label_key: str) -> str:
    if "cls" in fields and not label_key:
        return fields["cls"].decode("utf-8", "replace").strip()
    if "json" not in fields:
        return ""
    try:
        values = json.loads(fields["json"])
    except ValueError:
        raise UserError(f"{path}: {key}.json is no JSON; correct the tar") from None
    values = values if isinstance(values, dict) else {"label": values}
    if label_key and label_key not in values:
        raise UserError(
            f"--label_column={label_key}: {key}.json in {path} has only {', '.join(values)}"
        )
    found = (
        values[name] for name in ((label_key,) if label_key else _LABEL_KEYS) if name in values
    )
    label = next((value for value in found if isinstance(value, (str, int))), "")
    # JSON may contain half of a surrogate pair, which UTF-8, the encoding of the tables, cannot encode.
    return str(label).encode("utf-8", "replace").decode("utf-8").strip()


def _key_and_extension(entry: ArchiveEntry) -> tuple[str, str]:
    """The path up to the first dot in the file's name, and the rest; as in WebDataset."""
    *folders, name = entry.parts or ("",)
    stem, _, extension = name.partition(".")
    return "/".join((*folders, stem)), extension.lower()
