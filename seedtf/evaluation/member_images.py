"""Compares the members of an ensemble by their images: which images they trained on, with which labels.

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
from seedtf.report import format_count
from seedtf.runs.folder import read_settings
from seedtf.runs.folds import FoldsPaths, is_folds
from seedtf.runs.paths import RunPaths

__all__ = ["MemberImages", "describe_unused", "read_member_images", "read_sides", "shared_images"]


@dataclass(frozen=True)
class MemberImages:
    """The images of a member of an ensemble, by their absolute paths.

    Attributes:
        member: the folder that the user named.
        unseen: the label of each image that can be predicted without a model that trained on it. For a
            run, these are its validation images. For a cross-validation, these are the images of all
            folds, because each image has a prediction by the run that did not train on it.
        trained: the training images of a run; empty for a cross-validation, whose images are all in
            ``unseen``.
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
    """Reads ``split.csv`` into one dict for each side (train, val, test): from image path to label.

    The paths in the table are joined to ``root``.

    Raises:
        UserError: the table is missing or damaged.
    """
    sides: dict[str, dict[str, str]] = {"train": {}, "val": {}, "test": {}}
    for path, label, side in read_csv(split, ("file", "label", "split")):
        sides.setdefault(side, {})[os.path.join(root, path)] = label
    return sides


def shared_images(members: Sequence[MemberImages]) -> list[str]:
    """The sorted paths of the images that are in ``unseen`` of every member.

    Raises:
        UserError: two members have different labels for such an image.

    Example:
        >>> a = MemberImages("a", {"1.png": "ash", "2.png": "elm"})
        >>> shared_images([a, MemberImages("b", {"2.png": "elm"}, frozenset({"1.png"}))])
        ['2.png']
        >>> shared_images([a, MemberImages("b", {"2.png": "oak"})])
        Traceback (most recent call last):
        seedtf.errors.UserError: b: labels '2.png' as 'oak', but a labels it as 'elm' (1 such \
image); train both with the same labels, or pass --equal
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
                f"{other.member}: labels {path!r} as {other.unseen[path]!r}, but {first.member} labels "
                f"it as {first.unseen[path]!r} ({format_count(count, 'such image')}); train both with "
                "the same labels, or pass --equal"
            )
    return shared


def describe_unused(members: Sequence[MemberImages], shared: Sequence[str]) -> list[str]:
    """One sentence for each member that has images in ``unseen`` that are not in ``shared``.

    Such an image cannot be used to fit weights, for one of two reasons. Another member trained on the
    image, so this other member predicts it better than new images and would get too large a weight. Or
    another member lacks the image, because it is not in the data of that member or is a test image.

    Example:
        >>> a = MemberImages("a", {"1.png": "ash", "2.png": "elm", "3.png": "elm"})
        >>> b = MemberImages("b", {"2.png": "elm"}, frozenset({"1.png"}))
        >>> describe_unused([a, b], ["2.png"])
        ['a: 1 of the 3 images it did not train on can be used; other members trained on 1 and lack 1']
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
                f"on can be used; other members trained on {num_trained:,} and lack "
                f"{len(unused) - num_trained:,}"
            )
    return lines
