"""Reads the settings, class names, models and images of a finished run, or of several averaged runs.

Most functions that open images return a store, which reads decoded images from memory or from a cache.
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
        settings: the content of config.json; with several runs, of the config.json of the first run.
        class_names: the classes in the order of the model's outputs.
        checkpoint: the ``.keras`` file that is used instead of the best model; None for the best model.
        members: the runs that are averaged; empty for a single run. The validation and test images
            come from the first member.
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
        """The path of ``split.csv``; with several members, of the first member's table."""
        return (self.members[0] if self.members else self.paths).split

    @property
    def image_size(self) -> int:
        """The side of the model's input in pixels; with several members, the largest side."""
        sizes = [read_settings(run.root)["image_size"] for run in self.members]
        return max(map(int, sizes or [self.settings["image_size"]]))

    @property
    def max_pixels(self) -> int:
        """The value of ``--max_pixels``; the default value for runs that are older than the flag."""
        return int(self.settings.get("max_pixels", MAX_PIXELS))

    @property
    def fit(self) -> str:
        """The value of ``--fit``; ``stretch`` for runs that are older than the flag."""
        return str(self.settings.get("fit", STRETCH))

    @property
    def cache_dir(self) -> Path:
        """The folder of the run's cache files."""
        return Path(self.settings["cache_dir"] or default_cache_dir())

    def load_model(self) -> keras.Model:
        """Loads ``checkpoint``, or the model of the best epoch. The model is not compiled.

        Raises:
            UserError: the file is missing or damaged, or the model has another number of classes.
        """
        return self._load(self.checkpoint or self.paths.best)

    def load_members(self, use_snapshots: bool) -> list[keras.Model]:
        """Loads the models whose probabilities are averaged.

        With members, they are the best model of each member. With ``use_snapshots``, they are all
        snapshots of a single run. In all other cases, the list has only the result of ``load_model``.
        The outputs of every model are put into the order of ``class_names``.

        Args:
            use_snapshots: whether to load all snapshots of a single run.

        Raises:
            UserError: as ``load_model``; a member has other classes; or ``use_snapshots`` is set, but
                the run has no snapshots, has members, or has a ``checkpoint``.
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
        path: a run folder; the folder of checkpoints in a run; a ``.keras`` file in a run, which then
            replaces the best model; or a folder of ``seedtf folds`` or ``seedtf ensemble``. For a
            folder of checkpoints or a ``.keras`` file, a line is printed that names run and model.

    Raises:
        UserError: ``path`` does not exist or is none of these; a file of the run is damaged; or a run
            of a cross-validation or an ensemble is missing or unfinished.

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
    """Opens the validation images of a run.

    Returns:
        A store with n images, sorted by path, and their indices in the store, int64 ``[n]``.

    Raises:
        UserError: split.csv is missing or contains a label that is not a class of the run; or an image
            that it names is missing; or none of the images can be decoded.
    """
    return _open_store(run, _split_catalog(run, "val"))


def open_test(run: Run) -> tuple[Store, np.ndarray] | None:
    """Opens the test images of a run, as ``open_validation`` does; None if the run has no test images.

    Raises:
        UserError: as ``open_validation``.
    """
    catalog = _split_catalog(run, "test")
    return _open_store(run, catalog) if len(catalog) else None


def open_training_sample(run: Run, count: int) -> np.ndarray:
    """At most ``count`` training images of a run, uint8 ``[n, S, S, 3]``.

    The images are evenly spaced in the order of their paths.

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
    """Opens the labelled images of another folder.

    Args:
        run: the run whose classes the images have.
        data_dir: a folder or archive. Paths in a table of labels are relative to this folder.
        labels_csv: a table of files and labels. If some of its rows are for testing, only these rows
            are used.
        columns: the columns of the table that the user named.
        layout: the layout of the folder, or ``auto`` to detect it.

    Returns:
        A store with n images, whose labels are indices of the run's classes; and the indices of the
        images in the store, int64 ``[n]``.

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
    # To check a remote file would take a request. A missing remote file is reported when it is read.
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
