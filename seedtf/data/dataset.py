"""Loads the data of a run: lists, decodes and splits the images, and names the files left out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from seedtf.data.catalog import Catalog, Fault
from seedtf.data.columns import Columns
from seedtf.data.draw_split import check_given_split, count_across, draw_split
from seedtf.data.fixes import Fixes, FixTable
from seedtf.data.groups import GroupFlags, Grouping, read_groups
from seedtf.data.layouts import FLAT, FOLDERS
from seedtf.data.listing import list_files, list_known_classes
from seedtf.data.pseudo_labels import (
    PseudoLabels,
    join_stores,
    labelled_part,
    read_pseudo_labels,
)
from seedtf.data.related import find_related
from seedtf.data.split import (
    Split,
    check_split,
    join_catalogs,
    read_split_csv,
)
from seedtf.data.store import CachePlan, Store, build_store, has_cache, plan_cache
from seedtf.data.string_array import NameFinder
from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.images.header import MAX_PIXELS, STRETCH
from seedtf.report import format_count, report

__all__ = ["Dataset", "load_dataset", "write_data_report"]

# --check=auto opens all files if there are at most this many, which takes two cores about a minute.
_MAX_OPENED = 20_000
_SAMPLE_SIZE = 1_000


@dataclass(frozen=True)
class Dataset:
    """The images of a run, and their split into training, validation and test.

    Duplicates, near duplicates and conflicting labels are found only if every file was opened.

    Attributes:
        store: the images; ``store.catalog`` lists them and, in ``faults``, the files left out.
        split: indices into ``store.catalog``.
        cache_plan: where the decoded images are stored, and how much space they need.
        num_listed: number of listed images, including those that were left out later.
        duplicates: number of images whose bytes equal those of an earlier image.
        near_duplicates: number of images that look like an earlier image but are not identical to it.
        duplicates_across_split: number of validation and test images with an identical image on
            another side; 0 if all validation and test images were drawn.
        near_duplicates_across_split: number of validation and test images with an image on another
            side that looks alike or is identical.
        conflicting_labels: pairs of paths of identical files with different labels.
        split_source: the folder or table that gives the split; empty if the split was drawn.
        grouping: the user's groups of the images; None if there are none.
        together: int64 ``[N]``, the number of the group of each image; a drawn split divides no group.
        changes: one row of ``data_report.csv`` for each image that ``--fixes`` changed or left out, or
            that has a pseudo-label.
        pseudo: int64, the indices of the training images with a pseudo-label.
        unfixed: the data set before ``--fixes`` were applied; None if there are no fixes.
    """

    store: Store
    split: Split
    cache_plan: CachePlan
    num_listed: int
    duplicates: int
    duplicates_across_split: int
    conflicting_labels: tuple[tuple[str, str], ...] = ()
    split_source: str = ""
    near_duplicates: int = 0
    near_duplicates_across_split: int = 0
    grouping: Grouping | None = None
    together: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    changes: tuple[Fault, ...] = ()
    pseudo: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    unfixed: Dataset | None = None

    @property
    def labelled_split(self) -> Split:
        """The split without the images that have a pseudo-label."""
        return replace(self.split, train=np.setdiff1d(self.split.train, self.pseudo))

    @property
    def num_unopened(self) -> int:
        """Number of images that were not opened before training."""
        return self.num_listed - self.store.num_opened


def load_dataset(
    data_dir: str,
    *,
    image_size: int,
    labels_csv: str = "",
    file_column: str = "",
    label_column: str = "",
    split_column: str = "",
    layout: str = "auto",
    val_dir: str = "",
    split_csv: str = "",
    val_fraction: float = 0.15,
    test_fraction: float = 0.0,
    group_by: str = "",
    group_regex: str = "",
    groups_csv: str = "",
    fixes: str = "",
    pseudo_labels: str = "",
    min_confidence: float = 0.95,
    pseudo_weight: float = 0.5,
    twins: str = "auto",
    seed: int = 0,
    cache: str = "auto",
    cache_dir: Path,
    max_pixels: int = MAX_PIXELS,
    fit: str = STRETCH,
    check: str = "all",
    data_service: str = "",
    strict: bool = False,
) -> Dataset:
    """Lists, decodes and splits the images.

    The arguments are the fields of ``TrainConfig`` with these names.

    Every file is opened before training starts, unless ``cache`` is ``"off"`` or an earlier cache file
    is used. With ``cache="off"``, ``check="sample"`` opens 1,000 files, spread evenly over the list.
    ``check="auto"`` opens every file of a list of up to 20,000. Of a longer list it opens 1,000 files,
    and then every file if one of the 1,000 cannot be used.

    The classes are those of all listed files, usable or not, so a damaged file never changes the label
    of another one. The split is drawn before ``fixes`` are applied, so fixes do not change it.

    Raises:
        UserError: anything that the user can correct; the message names the flag.

    Example:
        >>> from PIL import Image
        >>> for species, color in [("maize", "green"), ("wheat", "yellow")]:
        ...     folder = Path("seedlings", species)
        ...     folder.mkdir(parents=True)
        ...     for number in range(4):
        ...         Image.new("RGB", (32 + number, 24), color).save(folder / f"{number}.png")
        >>> dataset = load_dataset(
        ...     "seedlings", image_size=16, val_fraction=0.25, cache="ram", cache_dir=Path("cache")
        ... )
        layout    class folders in seedlings
        >>> dataset.store.catalog.class_names
        ('maize', 'wheat')
        >>> len(dataset.split.train), len(dataset.split.val)
        (6, 2)
        >>> dataset.store.read([0]).shape
        TensorShape([1, 16, 16, 3])
    """
    columns = Columns(file_column, label_column, split_column)
    catalog, split = list_files(
        data_dir, labels_csv, columns, layout, min_images=1 if val_dir or split_csv else 2
    )
    source_flag = f"--labels_csv={labels_csv}" if labels_csv else f"--data_dir={data_dir}"
    if split_csv:
        split = None
    if val_dir:
        source_flag = f"--val_dir={val_dir}"
        val_layout = layout if layout in (FOLDERS, FLAT) else "auto"
        names = catalog.class_names
        val = list_known_classes(val_dir, names, "--val_dir", layout=val_layout)
        test = catalog.take(split.test) if split and len(split.test) else None
        catalog = catalog.take(split.train) if split else catalog
        catalog, split = join_catalogs(catalog, val, test)
    fix_table = FixTable(fixes) if fixes else None
    if fix_table:
        fix_table.find(catalog, data_dir)  # A mistake is reported before any image is decoded.
    pseudo = read_pseudo_labels(pseudo_labels, catalog, min_confidence) if pseudo_labels else None
    listed = pseudo.join(catalog) if pseudo else catalog
    # The workers of a data service cannot read the memory of this process.
    plan = plan_cache(
        cache,
        len(listed),
        image_size,
        cache_dir,
        shared=bool(data_service),
        is_cached=lambda: has_cache(listed, image_size, cache_dir, max_pixels, fit),
    )
    build = functools.partial(
        build_store, size=image_size, plan=plan, cache_dir=cache_dir, max_pixels=max_pixels, fit=fit
    )
    all_images = _open_store(listed, plan, check, build)
    if strict and all_images.catalog.faults:
        raise UserError(_strict_message(all_images.catalog))
    # Images with pseudo-labels are added last, so that they change neither the split nor the groups.
    store = labelled_part(all_images, pseudo) if pseudo else all_images
    flags = GroupFlags(group_by, group_regex, groups_csv, labels_csv, file_column)
    related = find_related(
        store.catalog,
        all_opened=store.num_opened == len(listed),
        twins=twins,
        user_groups=read_groups(store.catalog, flags),
        cache_dir=cache_dir,
        max_pixels=max_pixels,
    )
    is_given = bool(split_csv) or (split is not None and len(split.val) > 0)
    if split_csv:
        fixed_labels = None
        if fix_table:
            fixed_labels = fix_table.find(store.catalog, data_dir, others_allowed=True).labels
        split = read_split_csv(split_csv, store.catalog, fixed_labels)
    elif split is not None:
        split = _reindex(split, catalog, store.catalog)
    if split is not None and is_given:
        source = f"--split_csv={split_csv}" if split_csv else source_flag
        check_given_split(store.catalog, split, source, related.user_groups, test_fraction)
    else:
        split = draw_split(
            store.catalog,
            split,
            related,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    dataset = Dataset(
        store,
        split,
        plan,
        num_listed=len(listed),
        duplicates=related.num_duplicates,
        duplicates_across_split=count_across(split, related.identical),
        conflicting_labels=_conflicting_labels(store.catalog, related.identical),
        split_source=(split_csv or source_flag.partition("=")[2]) if is_given else "",
        near_duplicates=related.num_near_duplicates,
        near_duplicates_across_split=count_across(split, related.alike),
        grouping=related.user_groups,
        together=related.together,
    )
    if fix_table is not None:
        dataset = _apply_fixes(dataset, fix_table, data_dir, related.identical)
    return dataset if pseudo is None else _add_pseudo(dataset, all_images, pseudo, pseudo_weight)


def _add_pseudo(
    dataset: Dataset, all_images: Store, pseudo: PseudoLabels, weight: float
) -> Dataset:
    """``dataset`` with the images that have pseudo-labels as additional training images."""
    all_opened = all_images.num_opened == dataset.num_listed
    joined = join_stores(dataset.store, all_images, pseudo, weight, leave_out_copies=all_opened)
    return replace(
        dataset,
        store=joined.store,
        split=replace(dataset.split, train=np.concatenate([dataset.split.train, joined.indices])),
        pseudo=joined.indices,
        changes=(*dataset.changes, *joined.changes),
    )


def _apply_fixes(
    dataset: Dataset, fix_table: FixTable, data_dir: str, identical: np.ndarray
) -> Dataset:
    """``dataset`` with the labels of ``fix_table``, and without the images that the table drops."""
    catalog = dataset.store.catalog
    fixes: Fixes = fix_table.find(catalog, data_dir, others_allowed=True)
    report("fixes", f"{fix_table.source.partition('=')[2]}: {fixes.describe()}")
    fixed = fixes.relabel(catalog)
    split = Split(*(side[~fixes.dropped[side]] for side in dataset.split.sides.values()))
    check_split(fixed, split, fix_table.source)
    # No conflict with a dropped image is to be reported. A dropped image therefore gets a group of its
    # own, and so does each image whose group begins with a dropped image.
    groups = np.where(fixes.dropped | fixes.dropped[identical], np.arange(len(fixed)), identical)
    return replace(
        dataset,
        store=replace(dataset.store, catalog=fixed),
        split=split,
        conflicting_labels=_conflicting_labels(fixed, groups),
        changes=fixes.changes,
        unfixed=dataset,
    )


def _open_store(
    catalog: Catalog, plan: CachePlan, check: str, build: Callable[..., Store]
) -> Store:
    """A store of the files that can be used; ``check`` says whether all files or a sample are opened.

    ``build`` is ``build_store`` with all arguments except the catalog and the sample.
    """
    open_all = check == "all" or (check == "auto" and len(catalog) <= _MAX_OPENED)
    sample = 0 if open_all or plan.mode != "off" else _SAMPLE_SIZE
    store = build(catalog, sample=sample)
    faults = store.catalog.faults[len(catalog.faults) :]
    if not sample or not faults or check == "sample":
        return store
    report(
        "check",
        f"{len(faults)} of {sample:,} files opened cannot be used, first {faults[0].path} "
        f"({faults[0].fault}); opening all {len(catalog):,} (--check=sample skips this)",
    )
    return build(catalog)


def write_data_report(
    path: Path, catalog: Catalog, num_unopened: int = 0, changes: Sequence[Fault] = ()
) -> None:
    """Writes ``data_report.csv`` with the columns path, fault and detail.

    The table has a row for each file that was left out, then the rows of ``changes``. If
    ``num_unopened`` images were not opened before training, a last row with the path ``*`` says so.
    """
    faults = (*catalog.faults, *changes)
    if num_unopened:
        detail = (
            f"{num_unopened} images; each is checked when it is read, and a bad one stops the "
            "training"
        )
        faults = (*faults, Fault("*", "not opened", detail))
    lines = (csv_line(fault.path, fault.fault, fault.detail) for fault in faults)
    write_lines(path, itertools.chain([csv_line("path", "fault", "detail")], lines))


def _reindex(split: Split, listed: Catalog, usable: Catalog) -> Split:
    """Converts a split of ``listed`` to indices into ``usable``, which may lack some of the files."""
    finder = NameFinder(usable.paths)
    new_index = np.fromiter(map(finder.find, listed.paths), np.int64, len(listed))
    sides = (new_index[side] for side in split.sides.values())
    return Split(*(side[side >= 0] for side in sides))


def _conflicting_labels(catalog: Catalog, groups: np.ndarray) -> tuple[tuple[str, str], ...]:
    """The pairs (path of a file, path of the first identical file) whose labels differ."""
    conflicting = np.flatnonzero(catalog.labels != catalog.labels[groups])
    pairs = zip(conflicting.tolist(), groups[conflicting].tolist(), strict=True)
    return tuple((catalog.paths[index], catalog.paths[first]) for index, first in pairs)


def _strict_message(catalog: Catalog) -> str:
    first, num_others = catalog.faults[0], len(catalog.faults) - 1
    and_others = f" and {format_count(num_others, 'more file')}" if num_others else ""
    return (
        f"--strict: {first.path} ({first.fault}: {first.detail}){and_others} cannot be used; "
        "seedtf check lists them: repair or remove them"
    )
