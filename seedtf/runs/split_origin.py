"""Finds how the split of a run was made: drawn by seedtf, given by the user, or a fold of seedtf folds.

The flags alone do not tell this. Folders named train and val, or a column of a table, give a split
without a flag. The table of ``--split_csv`` may have been written by seedtf: ``--continue`` passes the
split of an earlier run, and ``seedtf folds`` passes the split of a fold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedtf.errors import UserError
from seedtf.runs.folder import read_settings
from seedtf.runs.folds import FoldsPaths, is_folds
from seedtf.runs.paths import RunPaths

__all__ = ["DRAWN", "FOLD", "GIVEN", "SPLIT", "find_split_origin", "read_split_origin"]

SPLIT = "split"
"""The key in ``resolved`` of config.json under which the origin of the split is recorded."""

DRAWN, GIVEN, FOLD = "drawn", "given", "fold"
"""The origins of a split: drawn at random, given by the user, or one fold of a cross-validation."""


def find_split_origin(split_source: str, split_csv: str) -> str:
    """The origin of the split of a new run: ``DRAWN``, ``GIVEN`` or ``FOLD``; empty if it is unknown.

    If ``split_csv`` is the split of another run, the new run has the same origin as the other run. The
    origin is unknown if the other run was written by a release that did not record it.

    Args:
        split_source: the folder or table that gives the split; empty if seedtf draws the split.
        split_csv: the value of the flag; empty if it is not set.

    Example:
        >>> find_split_origin("", ""), find_split_origin("plants", "")
        ('drawn', 'given')
    """
    if not split_source:
        return DRAWN
    if not split_csv:
        return GIVEN
    table = Path(os.path.abspath(split_csv))
    folds = FoldsPaths(table.parent.parent)
    if table.parent == folds.split(0).parent and is_folds(folds.root):
        return FOLD
    run = RunPaths(table.parent)
    if table != run.split or not run.config.is_file():
        return GIVEN
    try:
        return read_split_origin(read_settings(run.root))
    except UserError:  # config.json is damaged
        return ""


def read_split_origin(settings: Mapping[str, Any]) -> str:
    """The origin of the split of an existing run; empty if it is unknown.

    Runs of earlier releases did not record the origin. It is ``GIVEN`` if ``--val_dir`` is set, and
    unknown in other runs.

    Args:
        settings: the content of config.json.
    """
    resolved = settings.get("resolved")
    origin = resolved.get(SPLIT) if isinstance(resolved, Mapping) else None
    if origin is None:
        return GIVEN if settings.get("val_dir") else ""
    return str(origin)
