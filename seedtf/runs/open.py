"""Opens a finished run, or several that are averaged: settings, class names, models and images.

A store, which most functions for images return, decodes images or reads them from the cache.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from seedtf.config.flags import default_cache_dir
from seedtf.data.archives import unpack_archive
from seedtf.data.catalog import Catalog
from seedtf.data.columns import ANY_COLUMNS, Columns
from seedtf.data.listing import list_known_classes
from seedtf.data.paths import Folder, RemotePath, folder_at, is_file
from seedtf.data.store import Store, build_store, has_cache, plan_cache
from seedtf.data.table_text import read_csv
from seedtf.errors import UserError
from seedtf.images.header import MAX_PIXELS, STRETCH
from seedtf.model.members import reorder_classes
from seedtf.model.network import load_model
from seedtf.report import report
from seedtf.runs.ensembles import is_ensemble, match_classes, read_ensemble
from seedtf.runs.folder import find_run, read_class_names, read_settings
from seedtf.runs.folds import is_folds, read_folds
from seedtf.runs.paths import RunPaths

__all__ = [
    "Run",
    "load_run",
    "open_labelled",
    "open_test",
    "open_training_sample",
    "open_validation",
]


@dataclass(frozen=True)
class Run:
    """A finished run, or several runs whose predictions are averaged.

    Attributes:
        run_dir: the run folder, or the folder of ``seedtf folds`` or ``seedtf ensemble``.
        settings: the content of config.json; for several runs, that of the first run.
        class_names: the classes in the order of the model's outputs.
        checkpoint: the ``.keras`` file to use instead of the best model, or None.
        members: the runs that are averaged; empty for a single run. Validation and test images are
            those of the first member.
        weights: the weight of each member in the mean; empty if all weights are equal.
        is_folds: whether the members are the runs of all folds of a cross-validation.
    """

    run_dir: Path
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    checkpoint: Path | None = None
    members: tuple[RunPaths, ...] = ()
    weights: tuple[float, ...] = ()
    is_folds: bool = False

    @property
    def paths(self) -> RunPaths:
        """The paths of the files in ``run_dir``."""
        return RunPaths(self.run_dir)

    @property
    def split_table(self) -> Path:
        """``split.csv``, which says whether an image is for training, validation or test."""
        return (self.members[0] if self.members else self.paths).split

    @property
    def image_size(self) -> int:
        """The side of the model's input in pixels; with several members, the largest."""
        sizes = [read_settings(run.root)["image_size"] for run in self.members]
        return max(map(int, sizes or [self.settings["image_size"]]))

    @property
    def max_pixels(self) -> int:
        """The value of ``--max_pixels``; its default for runs that are older than the flag."""
        return int(self.settings.get("max_pixels", MAX_PIXELS))

    @property
    def fit(self) -> str:
        """The value of ``--fit``; runs that are older than the flag stretched images."""
        return str(self.settings.get("fit", STRETCH))

    @property
    def cache_dir(self) -> Path:
        """The folder of the run's cache files."""
        return Path(self.settings["cache_dir"] or default_cache_dir())

    def load_model(self) -> keras.Model:
        """Loads the model of the best epoch, or ``checkpoint`` if there is one; it is not compiled.

        Raises:
            UserError: the file is missing or damaged, or the model has another number of classes.
        """
        return self._load(self.checkpoint or self.paths.best)

    def load_members(self, use_snapshots: bool) -> list[keras.Model]:
        """Loads the models whose probabilities are averaged, or the single model that predicts.

        These are the best models of all members, all snapshots of a run, or only ``load_model()``. All
        have their classes in the order of ``class_names``, even if a member was saved with another one.

        Args:
            use_snapshots: whether to load all snapshots of a single run.

        Raises:
            UserError: as ``load_model``; a member has other classes; or ``use_snapshots`` is set, but
                the run has no snapshots, or it has members or a ``checkpoint``.
        """
        if self.members and use_snapshots:
            raise UserError(
                f"--snapshots: {self.run_dir} averages several runs; leave --snapshots out"
            )
        if self.members:
            return [self._load_member(member) for member in self.members]
        if not use_snapshots:
            return [self.load_model()]
        if self.checkpoint:
            raise UserError(
                f"--snapshots: averages all snapshots, not {self.checkpoint}; pass the run folder"
            )
        snapshots = self.paths.snapshots()
        if not snapshots:
            raise UserError(
                f"--snapshots: {self.paths.checkpoints} has no snapshot-*.keras; leave --snapshots "
                "out, or train with --schedule=cyclic --snapshots"
            )
        return [self._load(path) for path in snapshots]

    def _load_member(self, member: RunPaths) -> keras.Model:
        names = read_class_names(member.root)
        order = match_classes(names, self.class_names, str(member.root), str(self.run_dir))
        model = self._load(member.best)
        if order != sorted(order):
            reorder_classes(model, order)
        return model

    def _load(self, path: Path) -> keras.Model:
        model = load_model(path)
        if model.output_shape[-1] != len(self.class_names):
            raise UserError(
                f"{path}: has {model.output_shape[-1]} outputs but classes.txt has "
                f"{len(self.class_names)} names; restore the run's own files"
            )
        return model


def load_run(path: str | os.PathLike[str]) -> Run:
    """Reads the settings and class names of a run, or of several runs that are averaged.

    Args:
        path: a run folder, or its folder of checkpoints; a ``.keras`` file in a run, which is then used
            instead of the best model; or a folder of ``seedtf folds`` or ``seedtf ensemble``. For a
            file or a folder of checkpoints, a line is printed that names the run and the model.

    Raises:
        UserError: there is no such folder, it is not a run, or the file is not inside a run; a file of
            the run is damaged; or a run of a cross-validation or an ensemble is missing or unfinished.

    Example:
        >>> run = load_run("runs/seedlings")
        >>> run.class_names, run.image_size
        (('Charlock', 'Maize'), 16)
        >>> run.load_model().output_shape
        (None, 2)
    """
    if is_folds(path):
        folds = tuple(read_folds(path))
        return _make_averaged_run(Path(path), folds, is_folds=True)
    if is_ensemble(path):
        runs, weights = read_ensemble(path)
        return _make_averaged_run(Path(path), tuple(runs), tuple(weights))
    run_dir, checkpoint = find_run(path)
    run = Run(run_dir, read_settings(run_dir), read_class_names(run_dir), checkpoint)
    if run_dir != Path(path):
        report("run", f"{run_dir}, with {checkpoint or run.paths.best}")
    return run


def _make_averaged_run(
    path: Path,
    members: tuple[RunPaths, ...],
    weights: tuple[float, ...] = (),
    *,
    is_folds: bool = False,
) -> Run:
    names = read_class_names(path)
    settings = read_settings(members[0].root)
    return Run(path, settings, names, members=members, weights=weights, is_folds=is_folds)


def open_validation(run: Run) -> tuple[Store, np.ndarray]:
    """Opens the run's validation images: the store and the indices of its images, int64 ``[n]``.

    The images are sorted by path.

    Raises:
        UserError: split.csv or an image that it names is missing, a label in it is no class of the run,
            or none of the images can be decoded.
    """
    return _open_store(run, _split_catalog(run, "val"))


def open_test(run: Run) -> tuple[Store, np.ndarray] | None:
    """Opens the run's test images, as ``open_validation``; returns None if the run has none.

    Raises:
        UserError: as ``open_validation``.
    """
    catalog = _split_catalog(run, "test")
    return _open_store(run, catalog) if len(catalog) else None


def open_training_sample(run: Run, count: int) -> np.ndarray:
    """Reads at most ``count`` training images: uint8 ``[n, S, S, 3]``.

    They are evenly spaced in the order of their paths.

    Raises:
        UserError: as ``open_validation``.
    """
    catalog = _split_catalog(run, "train")
    spaced = np.linspace(0, len(catalog) - 1, min(len(catalog), count)).astype(np.int64)
    store, records = _open_store(run, catalog.take(spaced))
    return store.read(tf.constant(records)).numpy()


def open_labelled(
    run: Run,
    data_dir: str,
    labels_csv: str = "",
    columns: Columns = ANY_COLUMNS,
    layout: str = "auto",
) -> tuple[Store, np.ndarray]:
    """Opens the labelled images of another folder: the store and the indices of its images.

    The indices are int64 ``[n]``. Labels are indices into the run's classes.

    Args:
        run: the run whose classes the images have.
        data_dir: a folder or archive; the paths in a table are relative to it.
        labels_csv: a table of files and labels; if it has test rows, only these are used.
        columns: the columns of the table that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.

    Raises:
        UserError: the folder or table cannot be used, or contains a class that the run does not have.
    """
    folder = unpack_archive(data_dir, "--data_dir", run.cache_dir)
    names = run.class_names
    catalog = list_known_classes(folder, names, "--data_dir", labels_csv, columns, layout=layout)
    return _open_store(run, catalog)


def _split_catalog(run: Run, side: str) -> Catalog:
    """The images that split.csv assigns to ``side`` (train, val or test), sorted by path."""
    table = run.split_table
    rows = list(read_csv(table, ("file", "label", "split")))
    images = sorted((path, label) for path, label, row_side in rows if row_side == side)
    root = _data_root(run)
    # Checking a remote file would take a request, so a missing one is reported only when it is read.
    to_check = [] if isinstance(root, RemotePath) else images
    missing = [path for path, _ in to_check if not is_file(os.path.join(root, path))]
    if missing:
        kind = {"val": "validation", "train": "training", "test": "test"}[side]
        raise UserError(
            f"{table}: {len(missing)} of {len(images)} {kind} images are not in {root}, "
            f"first {missing[0]!r}; pass --data_dir with labelled images"
        )
    position = {name: index for index, name in enumerate(run.class_names)}
    for path, label in images:
        if label not in position:
            raise UserError(
                f"{table}: the label {label!r} of {path} is no class of the run; restore the file as "
                "the training wrote it, or pass --data_dir with labelled images"
            )
    labels = np.array([position[label] for _, label in images], np.int32)
    return Catalog(root, tuple(path for path, _ in images), labels, run.class_names)


def _data_root(run: Run) -> Folder:
    return folder_at(run.settings["resolved"]["data_root"])


def _open_store(run: Run, catalog: Catalog) -> tuple[Store, np.ndarray]:
    size, cache_dir = run.image_size, run.cache_dir
    plan = plan_cache(
        "auto",
        len(catalog),
        size,
        cache_dir,
        is_cached=lambda: has_cache(catalog, size, cache_dir, run.max_pixels, run.fit),
    )
    store = build_store(catalog, size, plan, cache_dir, run.max_pixels, fit=run.fit)
    if not len(store.catalog):
        raise UserError(
            f"{catalog.root}: none of {len(catalog)} images can be decoded; seedtf check names the "
            "faults"
        )
    return store, np.arange(len(store.catalog), dtype=np.int64)
