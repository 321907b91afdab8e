"""Preflight of a folder: every file read once, everything odd about it named; no file is changed."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import IMAGE_SUFFIXES, Catalog, Fault, read_labels_csv, scan_folder
from seedtf.data.check.near_duplicates import (
    FINGERPRINT_SIZE,
    THUMBNAIL,
    find_lookalikes,
    fingerprint,
)
from seedtf.data.check.traits import image_traits, looks_like, name_traits
from seedtf.data.map_files import map_files
from seedtf.data.paths import RemotePath, read_file
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.images.decode import make_decoder
from seedtf.images.header import MAX_PIXELS, RefusedError, read_header

__all__ = [
    "LEFT_OUT",
    "NOTE",
    "WARNING",
    "DataCheck",
    "Finding",
    "check_data",
    "name_broken_files",
    "write_findings",
]

LEFT_OUT = "left out"
"""Training cannot use the file."""
WARNING = "warning"
"""The file is used, and probably should not be as it is."""
NOTE = "note"
"""The file is used and decoded right; good to know."""

_WARNINGS = frozenset(
    {
        "empty class",
        "extreme aspect",
        "identical file",
        "near duplicate",
        "same image in two classes",
        "small class",
        "tiny",
        "wrong suffix",
    }
)
_FORMATS = ("jpeg", "png", "gif", "bmp", "webp")
_DIGEST = np.dtype([("high", np.uint64), ("low", np.uint64)])
_HEADING = csv_line("path", "fault", "detail", "severity")


@dataclass(frozen=True)
class Finding(Fault):
    """A fault, and how bad it is: ``left out``, ``warning`` or ``note``."""

    severity: str


@dataclass(frozen=True)
class DataCheck:
    """What a folder holds.

    Attributes:
        catalog: the files that can be used.
        findings: by path; the worst first where a file has several.
        formats: number of usable files of each format.
        sizes: int32 ``[N, 2]``, width and height in pixels of each usable file as stored.
    """

    catalog: Catalog
    findings: tuple[Finding, ...]
    formats: dict[str, int]
    sizes: np.ndarray

    @property
    def clean(self) -> bool:
        """Whether there is nothing worse than a note."""
        return all(finding.severity == NOTE for finding in self.findings)


@dataclass(frozen=True)
class _Facts:
    """What one reading of every file found, by its place in the catalog."""

    digests: np.ndarray
    formats: np.ndarray
    traits: dict[int, list[tuple[str, str]]]
    sizes: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray


def check_data(data_dir: str, labels_csv: str = "", max_pixels: int = MAX_PIXELS) -> DataCheck:
    """Reads every file of a class folder, or of a table, once, on every core.

    Args:
        data_dir: folder with one sub-folder per class; with ``labels_csv`` what that is relative to.
        labels_csv: a table with the columns file and label; then only its files are read.
        max_pixels: larger images are refused before anything is allocated.

    Raises:
        UserError: folder or table missing or without any image.
    """
    skipped: list[Fault] = []

    def tell_skipped(path: str, fault: str, detail: str) -> None:
        # a name that is not UTF-8 is shown by its bytes, so that the table can hold it
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        skipped.append(Fault(shown, fault, detail))

    if labels_csv:
        listed = read_labels_csv(labels_csv, data_dir)
    else:
        listed = scan_folder(data_dir, "DATA", tell_skipped)
    facts, good, faults = _read_all(listed, max_pixels)
    kept = listed.take(good, faults)
    odd = [*_small_classes(kept), *_trait_faults(listed, facts), *_twins(kept, good, facts)]
    if not labels_csv:
        odd += _empty_classes(kept, {fault.path for fault in skipped})
    findings = [Finding(f.path, f.fault, f.detail, LEFT_OUT) for f in kept.faults]
    findings += [Finding(f.path, f.fault, f.detail, _severity(f)) for f in (*skipped, *odd)]
    worst_first = (LEFT_OUT, WARNING, NOTE)
    findings.sort(key=lambda f: (f.path, worst_first.index(f.severity), f.fault))
    formats = Counter(
        {_FORMATS[k]: int(n) for k, n in enumerate(np.bincount(facts.formats[good])) if n}
    )
    return DataCheck(kept, tuple(findings), dict(formats.most_common()), facts.sizes[good])


def write_findings(path: Path, findings: tuple[Finding, ...], data_dir: str) -> None:
    """Writes the table ``data_report.csv``: path, fault, detail, severity.

    Raises:
        UserError: ``path`` lies in the data folder, is there and no such table, or cannot be written.
    """
    if Path(data_dir).resolve() in path.resolve().parents:
        raise UserError(f"--out={path}: lies in the data folder; pass a path outside it")
    lines = (csv_line(f.path, f.fault, f.detail, f.severity) for f in findings)
    table = itertools.chain([_HEADING], lines)
    try:
        if path.exists() and not path.read_bytes().startswith(_HEADING.encode()):
            raise UserError(f"--out={path}: is another file; pass a new path")
        write_lines(path, table)
    except OSError as error:
        raise UserError(f"--out={path}: {error.strerror}; pass another path") from error


def name_broken_files(store: Store, max_pixels: int = MAX_PIXELS) -> list[Fault]:
    """Reads the files of the last batches of ``--cache=off`` again; names those that cannot be used.

    TensorFlow's own message about a damaged file has no name.
    """
    decode = make_decoder(1, max_pixels)

    def work(index: int, path: str) -> None:
        decode(read_file(path, max_pixels))

    last = store.catalog.take(store.recently_read())
    return map_files(last, work, "looking for the broken file")[1]


def _read_all(catalog: Catalog, max_pixels: int) -> tuple[_Facts, np.ndarray, list[Fault]]:
    count = len(catalog)
    facts = _Facts(
        np.zeros(count, _DIGEST),
        np.zeros(count, np.uint8),
        {},
        np.zeros((count, 2), np.int32),
        np.zeros(count, np.uint64),
        np.zeros((count, *THUMBNAIL), np.uint8),
    )
    decode = make_decoder(FINGERPRINT_SIZE, max_pixels)

    def work(index: int, path: str) -> None:
        data = read_file(path, max_pixels)
        try:
            header = read_header(data, max_pixels)
        except RefusedError as error:
            kind = looks_like(data) if error.fault == "not an image" else ""
            raise RefusedError(
                error.fault, f"{kind}; {error.detail}" if kind else error.detail
            ) from None
        facts.hashes[index], facts.thumbnails[index] = fingerprint(decode(data).numpy())
        digest = hashlib.blake2b(data, digest_size=_DIGEST.itemsize)
        facts.digests[index] = np.frombuffer(digest.digest(), _DIGEST)[0]
        facts.formats[index] = _FORMATS.index(header.format)
        facts.sizes[index] = header.width, header.height
        if traits := image_traits(catalog.paths[index], data, header):
            facts.traits[index] = traits

    good, faults = map_files(catalog, work, "checking")
    return facts, good, faults


def _severity(fault: Fault) -> str:
    if fault.fault == "unreadable":
        return LEFT_OUT
    return WARNING if fault.fault in _WARNINGS else NOTE


def _small_classes(catalog: Catalog) -> Iterator[Fault]:
    for name, count in catalog.class_counts().items():
        if count < 2:
            yield Fault(name, "small class", f"{count} usable images; training needs two at least")


def _empty_classes(catalog: Catalog, skipped: set[str]) -> Iterator[Fault]:
    root = catalog.root
    if isinstance(root, RemotePath):
        listed = {name for name, _ in root.list("", IMAGE_SUFFIXES)}
    else:
        listed = set(os.listdir(root))
    for name in sorted(listed - {*catalog.class_names, *skipped}):
        if (root / name).is_dir():
            yield Fault(name, "empty class", "a folder without images is no class")


def _trait_faults(catalog: Catalog, facts: _Facts) -> Iterator[Fault]:
    folders: set[str] = set()
    for index, path in enumerate(catalog.paths):
        yield from (Fault(path, *trait) for trait in facts.traits.get(index, ()))
        *above, name = path.split("/")
        # a folder is spoken of once, not for each of its files
        for depth, folder in enumerate(above, start=1):
            prefix = "/".join(above[:depth])
            if prefix not in folders:
                folders.add(prefix)
                yield from (Fault(prefix, *trait) for trait in name_traits(folder))
        yield from (Fault(path, *trait) for trait in name_traits(name))


def _twins(kept: Catalog, good: np.ndarray, facts: _Facts) -> Iterator[Fault]:
    """Files with the bytes, or nearly the image, of one before them in the list."""
    _, first, inverse = np.unique(facts.digests[good], return_index=True, return_inverse=True)
    twins = first[inverse]
    alone = np.flatnonzero(twins == np.arange(len(good)))
    for row in np.flatnonzero(twins != np.arange(len(good))).tolist():
        yield _twin_fault(kept, row, int(twins[row]), "identical file", "the same bytes as")
    alike = find_lookalikes(facts.hashes[good[alone]], facts.thumbnails[good[alone]])
    for later, earlier in alike.items():
        one, other = int(alone[later]), int(alone[earlier])
        yield _twin_fault(kept, one, other, "near duplicate", "looks like")


def _twin_fault(kept: Catalog, row: int, twin: int, fault: str, relation: str) -> Fault:
    if kept.labels[row] != kept.labels[twin]:
        fault = "same image in two classes"
    return Fault(kept.paths[row], fault, f"{relation} {kept.paths[twin]}")
