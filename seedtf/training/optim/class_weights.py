"""Parses ``--class_weights``, the weight of each class in the loss."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seedtf.errors import UserError

__all__ = ["parse_class_weights"]

_FLAG = "--class_weights"
_MIN_WEIGHT, _MAX_WEIGHT = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def parse_class_weights(
    text: str, class_names: Sequence[str], counts: npt.ArrayLike
) -> npt.NDArray[np.float32] | None:
    """Returns the weight of each class, float32 ``[K]``, all above 0; None if the text is empty.

    Args:
        text: empty, ``auto`` or ``name:weight,…``.

            With ``auto``, the weight of a class is n / (K · count), where n is the number of all
            training images. So all classes have the same total weight, and the mean weight of the
            images is 1.

            With ``name:weight,…``, a class that is not named gets the weight 1. A name may contain
            spaces and colons, but no comma; only the last colon separates the name from the weight.
        class_names: K names in the order of the labels.
        counts: int ``[K]``, the number of training images of each class. For ``auto``, a class without
            images gets the weight 1 and does not count in K.

    Raises:
        UserError: a part is not ``name:weight``, a class is unknown or named twice, or a weight is
            not a number above 0 that float32 can hold.

    Example:
        >>> parse_class_weights("auto", ["oak", "elm"], [30, 10]).round(3)
        array([0.667, 2.   ], dtype=float32)
        >>> parse_class_weights("elm:2.5", ["oak", "elm"], [30, 10]).tolist()
        [1.0, 2.5]
    """
    if not text.strip():
        return None
    if text.strip() == "auto":
        return _balanced_weights(np.asarray(counts))
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, weight = _parse_part(part, class_names)
        if name in weights:
            raise UserError(f"{_FLAG}: class {name!r} is named twice; name it once")
        weights[name] = weight
    return np.array([weights.get(name, 1.0) for name in class_names], np.float32)


def _balanced_weights(counts: npt.NDArray[np.int_]) -> npt.NDArray[np.float32]:
    has_images = counts > 0
    mean_count = counts.sum() / max(int(np.count_nonzero(has_images)), 1)
    return np.where(has_images, mean_count / np.maximum(counts, 1), 1.0).astype(np.float32)


def _parse_part(part: str, class_names: Sequence[str]) -> tuple[str, float]:
    name, colon, number = part.rpartition(":")
    if not colon:
        raise UserError(
            f"{_FLAG}: {part!r} is not name:weight; pass auto or, for example, "
            f"{class_names[0]}:2.5{_comma_hint(class_names)}"
        )
    # A class name may begin or end with spaces, so strip them only if there is no exact match.
    name = name if name in class_names else name.strip()
    if name not in class_names:
        raise UserError(f"{_FLAG}: there is no class {name!r}; {_remedy(name, class_names)}")
    return name, _parse_weight(name, number)


def _parse_weight(name: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    # float32 would round a number outside this range to 0 or to infinity.
    if not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
        raise UserError(
            f"{_FLAG}: {number.strip()!r} for class {name!r} is not a number from "
            f"{_MIN_WEIGHT:.2g} to {_MAX_WEIGHT:.2g}; "
            f"pass one such as {name}:2.5"
        )
    return weight


def _remedy(name: str, class_names: Sequence[str]) -> str:
    """The end of an error message about an unknown class: a similar name, or any class as example."""
    by_lower_case = {class_name.lower(): class_name for class_name in class_names}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f"did you mean {by_lower_case[close[0]]!r}?" if close else f"one is {class_names[0]!r}"
    return hint + _comma_hint(class_names)


def _comma_hint(class_names: Sequence[str]) -> str:
    """The hint for class names with a comma, which the flag cannot name; empty if there are none."""
    if not any("," in name for name in class_names):
        return ""
    return " (a class with a comma in its name cannot be given here)"
