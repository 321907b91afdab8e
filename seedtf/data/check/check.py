"""``seedtf check``: reads each file of a data set once, and reports what is unusual or unusable."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault, to_nfc
from seedtf.data.check.decoder_warnings import DecoderWarnings
from seedtf.data.check.near_duplicates import (
    NUM_VIEWS,
    THUMBNAIL_SHAPE,
    find_near_duplicates,
    fingerprint,
)
from seedtf.data.check.quality import (
    MEASURES,
    QUALITY_FAULTS,
    QUALITY_SIZE,
    find_poor,
    halve,
    measure_quality,
)
from seedtf.data.check.traits import image_traits, looks_like, name_traits
from seedtf.data.columns import ANY_COLUMNS, Columns
from seedtf.data.listing import list_for_check
from seedtf.data.map_files import map_files
from seedtf.data.paths import RemotePath, read_file
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.files import check_parent, csv_line, write_lines
from seedtf.images.decode import make_decoder
from seedtf.images.header import MAX_PIXELS, RefusedError, read_header
from seedtf.images.kinds import IMAGE_SUFFIXES, PILLOW_KINDS, TENSORFLOW_KINDS

__all__ = [
    "LEFT_OUT",
    "NOTE",
    "WARNING",
    "DataCheck",
    "Facts",
    "Finding",
    "check_data",
    "check_report_path",
    "name_broken_files",
    "read_facts",
    "write_findings",
]

LEFT_OUT = "left out"
"""Severity: training cannot use the file."""
WARNING = "warning"
"""Severity: training uses the file, but it probably should be corrected; or a class is too small."""
NOTE = "note"
"""Severity: there is nothing to correct. Training uses the file, or skips it because it is no image, is
hidden, was written by the system or by seedtf, or is a link to a folder that contains the link."""

_WARNINGS = frozenset(
    {
        *("damaged", "empty class", "extreme aspect", "identical file", "near duplicate"),
        *("same image in two classes", "small class", "tiny", "wrong suffix", *QUALITY_FAULTS),
    }
)
_FORMATS = (*TENSORFLOW_KINDS, *PILLOW_KINDS)
_DIGEST = np.dtype([("high", np.uint64), ("low", np.uint64)])
_HEADING = csv_line("path", "fault", "detail", "severity")


@dataclass(frozen=True)
class Finding(Fault):
    """A fault with its severity: ``LEFT_OUT``, ``WARNING`` or ``NOTE``."""

    severity: str


@dataclass(frozen=True)
class DataCheck:
    """The result of ``check_data``.

    Attributes:
        catalog: the N files that can be used.
        findings: what was found, sorted by path and then by severity, the worst first.
        formats: number of usable files of each format, the most frequent first.
        sizes: int32 ``[N, 2]``, width and height in pixels of each usable file as stored.
        refusal: why training on these files would be refused; empty if it would not be.
    """

    catalog: Catalog
    findings: tuple[Finding, ...]
    formats: dict[str, int]
    sizes: np.ndarray
    refusal: str

    @property
    def clean(self) -> bool:
        """Whether no finding is worse than a note."""
        return all(finding.severity == NOTE for finding in self.findings)


@dataclass(frozen=True)
class Facts:
    """Properties of the N files of a catalog; zeros for a file that cannot be used.

    Attributes:
        digests: ``[N]``, a hash of 128 bits of the bytes of each file.
        formats: uint8 ``[N]``, indices into ``_FORMATS``.
        traits: maps the index of a file to the name and the detail of each of its unusual properties.
        sizes: int32 ``[N, 2]``, width and height in pixels as stored.
        hashes: uint64 ``[N, 2]``, see ``near_duplicates.fingerprint``.
        thumbnails: uint8 ``[N, 2, 12, 12, 3]``, see ``near_duplicates.fingerprint``.
        quality: float32 ``[N, 5]``, see ``quality.MEASURES``.
    """

    digests: np.ndarray
    formats: np.ndarray
    traits: dict[int, list[tuple[str, str]]]
    sizes: np.ndarray
    hashes: np.ndarray
    thumbnails: np.ndarray
    quality: np.ndarray

    def take(self, indices: np.ndarray) -> Facts:
        """The properties of the files at ``indices``, in this order."""
        traits = {
            new_index: self.traits[index]
            for new_index, index in enumerate(indices.tolist())
            if index in self.traits
        }
        arrays = (self.sizes, self.hashes, self.thumbnails, self.quality)
        return Facts(
            self.digests[indices],
            self.formats[indices],
            traits,
            *(array[indices] for array in arrays),
        )


def check_data(
    data_dir: str,
    labels_csv: str = "",
    max_pixels: int = MAX_PIXELS,
    columns: Columns = ANY_COLUMNS,
    layout: str = "auto",
) -> DataCheck:
    """Checks every file of a folder or table: reads each file once, on all cores.

    Args:
        data_dir: the folder; the paths in a table are relative to it.
        labels_csv: a table of files and labels; empty to list the folder.
        max_pixels: images with more pixels are refused before memory is allocated for them.
        columns: the columns of ``labels_csv`` that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.

    Raises:
        UserError: the folder or table is missing, unusable or ambiguous, or contains no image.

    Example:
        >>> from PIL import Image
        >>> for name in ("oak", "elm"):
        ...     Path("photos", name).mkdir(parents=True)
        ...     Image.radial_gradient("L").save(f"photos/{name}/1.png")
        >>> result = check_data("photos")
        layout    class folders in photos
        >>> print(*sorted({finding.fault for finding in result.findings}), sep=", ")
        grey, same image in two classes, small class
        >>> result.clean
        False
    """
    skipped: list[Fault] = []

    def add_skipped(path: str, fault: str, detail: str) -> None:
        # The report is in UTF-8, so the bytes of a name that are not valid UTF-8 are escaped.
        printable = os.fsencode(path).decode("utf-8", "backslashreplace")
        skipped.append(Fault(printable, fault, detail))

    files = list_for_check(data_dir, labels_csv, columns, layout, add_skipped)
    listed = files.catalog
    facts, good, faults = read_facts(listed, max_pixels)
    usable = listed.take(good, faults)
    unusual = [
        *_small_classes(usable),
        *_trait_faults(listed, facts),
        *_duplicates(usable, good, facts),
        *(Fault(usable.paths[row], *poor) for row, *poor in find_poor(facts.quality[good])),
    ]
    if files.in_class_folders:
        unusual += _empty_classes(usable, {fault.path for fault in skipped})
    findings = [Finding(f.path, f.fault, f.detail, LEFT_OUT) for f in usable.faults]
    findings += [Finding(f.path, f.fault, f.detail, _severity(f)) for f in (*skipped, *unusual)]
    worst_first = (LEFT_OUT, WARNING, NOTE)
    findings.sort(key=lambda f: (f.path, worst_first.index(f.severity), f.fault))
    formats = Counter(
        {_FORMATS[k]: int(n) for k, n in enumerate(np.bincount(facts.formats[good])) if n}
    )
    return DataCheck(
        usable, tuple(findings), dict(formats.most_common()), facts.sizes[good], files.refusal(good)
    )


def check_report_path(path: Path, data_dir: str) -> None:
    """Raises UserError if ``write_findings`` would refuse ``path``; call it before reading images."""
    check_parent(path, "--out")
    if Path(data_dir).resolve() in path.resolve().parents:
        raise UserError(f"--out={path}: is in the data folder; pass a path outside it")
    if path.exists() and not path.read_bytes().startswith(_HEADING.encode()):
        raise UserError(f"--out={path}: is a file of another kind; pass a new path")


def write_findings(path: Path, findings: tuple[Finding, ...], data_dir: str) -> None:
    """Writes a CSV table with the columns path, fault, detail and severity.

    Raises:
        UserError: ``path`` is in the data folder, is an existing file that is no such table, or cannot
            be written.
    """
    lines = (csv_line(f.path, f.fault, f.detail, f.severity) for f in findings)
    table = itertools.chain([_HEADING], lines)
    try:
        check_report_path(path, data_dir)
        write_lines(path, table)
    except OSError as error:
        raise UserError(f"--out={path}: {error.strerror}; pass another path") from error


def name_broken_files(store: Store, max_pixels: int = MAX_PIXELS) -> list[Fault]:
    """The faults of the files that a run with ``--cache=off`` read last, which are decoded again.

    TensorFlow's error about a damaged file does not contain the name of the file.
    """
    decode = make_decoder(1, max_pixels)

    def check(index: int, path: str) -> None:
        decode(read_file(path, max_pixels))

    recent = store.catalog.take(store.recently_read())
    return map_files(recent, check, "looking for the broken file")[1]


def read_facts(catalog: Catalog, max_pixels: int) -> tuple[Facts, np.ndarray, list[Fault]]:
    """Reads every file of a catalog once, on all cores.

    Returns:
        The properties of all files; the indices, int64, of the files that can be used; and a fault for
        each other file.
    """
    num_files = len(catalog)
    facts = Facts(
        np.zeros(num_files, _DIGEST),
        np.zeros(num_files, np.uint8),
        {},
        np.zeros((num_files, 2), np.int32),
        np.zeros((num_files, NUM_VIEWS), np.uint64),
        np.zeros((num_files, NUM_VIEWS, *THUMBNAIL_SHAPE), np.uint8),
        np.zeros((num_files, len(MEASURES)), np.float32),
    )
    decode = make_decoder(QUALITY_SIZE, max_pixels)
    warnings = DecoderWarnings()

    def check(index: int, path: str) -> None:
        data = read_file(path, max_pixels)
        try:
            header = read_header(data, max_pixels)
        except RefusedError as error:
            kind = looks_like(data) if error.fault == "not an image" else ""
            raise RefusedError(
                error.fault, f"{kind}; {error.detail}" if kind else error.detail
            ) from None
        pixels, damage = warnings.decode(lambda: decode(data).numpy())
        facts.hashes[index], facts.thumbnails[index] = fingerprint(halve(pixels))
        facts.quality[index] = measure_quality(pixels)
        digest = hashlib.blake2b(data, digest_size=_DIGEST.itemsize)
        facts.digests[index] = np.frombuffer(digest.digest(), _DIGEST)[0]
        facts.formats[index] = _FORMATS.index(header.format)
        facts.sizes[index] = header.width, header.height
        traits = image_traits(catalog.paths[index], data, header)
        if damage:
            traits.append(("damaged", damage))
        if traits:
            facts.traits[index] = traits

    with warnings.collect():
        good, faults = map_files(catalog, check, "checking")
    return facts, good, faults


def _severity(fault: Fault) -> str:
    if fault.fault == "unreadable":
        return LEFT_OUT
    return WARNING if fault.fault in _WARNINGS else NOTE


def _small_classes(catalog: Catalog) -> Iterator[Fault]:
    for name, count in catalog.class_counts().items():
        if count < 2:
            yield Fault(name, "small class", f"usable images: {count}; to draw a split takes two")


def _empty_classes(catalog: Catalog, skipped: set[str]) -> Iterator[Fault]:
    root = catalog.root
    if isinstance(root, RemotePath):
        listed = {name for name, _ in root.list_entries("", IMAGE_SUFFIXES)}
    else:
        listed = set(os.listdir(root))
    names = {to_nfc(name) for name in catalog.class_names}
    for name in sorted(listed - skipped):
        if to_nfc(name) not in names and (root / name).is_dir():
            yield Fault(name, "empty class", "a folder without images is not a class")


def _trait_faults(catalog: Catalog, facts: Facts) -> Iterator[Fault]:
    folders: set[str] = set()
    for index, path in enumerate(catalog.paths):
        yield from (Fault(path, *trait) for trait in facts.traits.get(index, ()))
        *parents, name = path.split("/")
        # Report the name of a folder once, not for each of its files.
        for depth, folder in enumerate(parents, start=1):
            prefix = "/".join(parents[:depth])
            if prefix not in folders:
                folders.add(prefix)
                yield from (Fault(prefix, *trait) for trait in name_traits(folder))
        yield from (Fault(path, *trait) for trait in name_traits(name))


def _duplicates(usable: Catalog, good: np.ndarray, facts: Facts) -> Iterator[Fault]:
    """Yields a fault for each file that is identical to, or a near duplicate of, an earlier one."""
    _, first, inverse = np.unique(facts.digests[good], return_index=True, return_inverse=True)
    originals = first[inverse]
    is_original = originals == np.arange(len(good))
    for row in np.flatnonzero(~is_original).tolist():
        yield _duplicate(usable, row, int(originals[row]), "identical file", "the same bytes as")
    rows = np.flatnonzero(is_original)
    near = find_near_duplicates(facts.hashes[good[rows]], facts.thumbnails[good[rows]])
    for later, earlier in near.items():
        yield _duplicate(
            usable, int(rows[later]), int(rows[earlier]), "near duplicate", "looks like"
        )


def _duplicate(usable: Catalog, row: int, original: int, fault: str, relation: str) -> Fault:
    if usable.labels[row] != usable.labels[original]:
        fault = "same image in two classes"
    return Fault(usable.paths[row], fault, f"{relation} {usable.paths[original]}")
