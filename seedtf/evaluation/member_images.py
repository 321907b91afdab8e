"""Compares the images of the members of an ensemble: which they trained on, and how they label them.

This module reads only the tables and settings of the members, no image and no model. It does not import
TensorFlow or Keras.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedtf.data.catalog import to_nfc
from seedtf.data.table_text import read_csv
from seedtf.errors import UserError
from seedtf.runs.folder import read_settings
from seedtf.runs.folds import FoldsPaths, is_folds
from seedtf.runs.paths import RunPaths

__all__ = ["MemberImages", "describe_unused", "read_member_images", "read_sides", "shared_images"]


@dataclass(frozen=True)
class MemberImages:
    """The images of a member of an ensemble; the keys are absolute paths.

    Attributes:
        member: the folder that the user named.
        unseen: the label of each image that the member predicts without having trained on it: the
            validation images of a run, and those of all folds of a cross-validation.
        trained: the images that a run has trained on; none for a cross-validation, because each of
            them is also in ``unseen``.
    """

    member: str
    unseen: dict[str, str]
    trained: frozenset[str] = frozenset()


def read_member_images(member: str, run_dir: Path) -> MemberImages:
    """Reads ``split.csv`` of a run, or ``oof.csv`` of a cross-validation.

    Args:
        member: the name of the member in messages.
        run_dir: the folder of the run, or of ``seedtf folds``.

    Raises:
        UserError: the table or config.json is missing or damaged.
    """
    if is_folds(run_dir):
        folds = FoldsPaths(run_dir)
        root = read_settings(folds.fold(0).root)["resolved"]["data_root"]
        rows = read_csv(folds.predictions, ("path", "true"))
        return MemberImages(member, {os.path.join(root, path): label for path, label in rows})
    root = read_settings(run_dir)["resolved"]["data_root"]
    sides = read_sides(RunPaths(run_dir).split, root)
    return MemberImages(member, sides["val"], frozenset(sides["train"]))


def read_sides(split: Path, root: str) -> dict[str, dict[str, str]]:
    """For each side of ``split.csv``, the label of each image by its path, which starts with ``root``.

    Raises:
        UserError: the table is missing or damaged.
    """
    sides: dict[str, dict[str, str]] = {"train": {}, "val": {}, "test": {}}
    for path, label, side in read_csv(split, ("file", "label", "split")):
        sides.setdefault(side, {})[os.path.join(root, path)] = label
    return sides


def shared_images(members: Sequence[MemberImages]) -> list[str]:
    """The sorted paths of the images that no member has trained on and that all members predict.

    Raises:
        UserError: two members label such an image differently.

    Example:
        >>> a = MemberImages("a", {"1.png": "ash", "2.png": "elm"})
        >>> shared_images([a, MemberImages("b", {"2.png": "elm"}, frozenset({"1.png"}))])
        ['2.png']
        >>> shared_images([a, MemberImages("b", {"2.png": "oak"})])
        Traceback (most recent call last):
        seedtf.errors.UserError: b: labels '2.png' as 'oak', but a as 'elm' (1 in total); train both \
with the same labels, or pass --equal
    """
    first = members[0]
    shared = sorted(set(first.unseen).intersection(*(other.unseen for other in members[1:])))
    for other in members[1:]:
        differing = [
            path for path in shared if to_nfc(other.unseen[path]) != to_nfc(first.unseen[path])
        ]
        if differing:
            path, count = differing[0], len(differing)
            raise UserError(
                f"{other.member}: labels {path!r} as {other.unseen[path]!r}, but {first.member} as "
                f"{first.unseen[path]!r} ({count:,} in total); train both with the same labels, or "
                "pass --equal"
            )
    return shared


def describe_unused(members: Sequence[MemberImages], shared: Sequence[str]) -> list[str]:
    """A sentence for each member with images that it did not train on, but that are not in ``shared``.

    Such images are not used to fit weights. If another member trained on an image, that member predicts
    it better than a new image, and would get too large a weight. A member lacks an image that is not in
    its data, or is one of its test images.

    Example:
        >>> a = MemberImages("a", {"1.png": "ash", "2.png": "elm", "3.png": "elm"})
        >>> b = MemberImages("b", {"2.png": "elm"}, frozenset({"1.png"}))
        >>> describe_unused([a, b], ["2.png"])
        ['a: 1 of the 3 images it did not train on can be used; others trained on 1 and lack 1']
    """
    used = set(shared)
    trained = set[str]().union(*(member.trained for member in members))
    lines = []
    for member in members:
        unused = member.unseen.keys() - used
        if unused:
            num_trained = len(unused & trained)
            lines.append(
                f"{member.member}: {len(used):,} of the {len(member.unseen):,} images it did not train "
                f"on can be used; others trained on {num_trained:,} and lack "
                f"{len(unused) - num_trained:,}"
            )
    return lines
