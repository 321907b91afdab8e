"""``--class_weights``: what an image of each class counts in the loss, also where labels are mixed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from seedtf.errors import UserError

__all__ = ["parse_class_weights", "sample_weights"]

_FLAG = "--class_weights"
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def parse_class_weights(
    text: str, class_names: Sequence[str], counts: npt.ArrayLike
) -> npt.NDArray[np.float32] | None:
    """The weight of each class, float32 ``[K]``, all above 0; None where the text is empty.

    Args:
        text: empty; ``auto`` for n / (K · count), which makes every class count alike and leaves the
            mean over the images at 1; or ``name:weight,…``, 1 for a class not named. A name may
            hold spaces and colons, the last colon divides; a name with a comma cannot be written.
        class_names: K names in the order of the labels.
        counts: int ``[K]``, training images of each class. ``auto`` gives a class without any 1
            and does not count it in K.

    Raises:
        UserError: a part is no ``name:weight``, the class is unknown or named twice, or the weight is
            no number above 0.
    """
    if not text.strip():
        return None
    if text.strip() == "auto":
        return _balancing(np.asarray(counts))
    given: dict[str, float] = {}
    for part in text.split(","):
        name, weight = _parse_part(part, class_names)
        if name in given:
            raise UserError(f"{_FLAG}: class {name!r} stands there twice; name it once")
        given[name] = weight
    return np.array([given.get(name, 1.0) for name in class_names], np.float32)


def sample_weights(soft_labels: tf.Tensor, weights: npt.ArrayLike) -> tf.Tensor:
    """The weight of each image, float32 ``[B]``: the mean of the class weights under its label.

    Args:
        soft_labels: float32 ``[B, K]``, rows that sum to 1; a mixed image weighs as its parts do.
        weights: float32 ``[K]`` from ``parse_class_weights``.
    """
    # no matrix product: devices may round the factors of one to fewer bits
    return tf.reduce_sum(soft_labels * tf.constant(weights, tf.float32), axis=-1)


def _balancing(counts: npt.NDArray[np.int_]) -> npt.NDArray[np.float32]:
    filled = counts > 0
    each = counts.sum() / max(np.count_nonzero(filled), 1)
    return np.where(filled, each / np.maximum(counts, 1), 1.0).astype(np.float32)


def _parse_part(part: str, class_names: Sequence[str]) -> tuple[str, float]:
    name, colon, number = part.rpartition(":")
    if not colon:
        raise UserError(
            f"{_FLAG}: {part!r} is no name:weight; pass auto or, for example, "
            f"{class_names[0]}:2.5{_commas(class_names)}"
        )
    # as written where a class is called so, else without the spaces around it
    name = name if name in class_names else name.strip()
    if name not in class_names:
        raise UserError(f"{_FLAG}: there is no class {name!r}; {_remedy(name, class_names)}")
    return name, _weight(name, number)


def _weight(name: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    # what float32 would hold as 0 or as infinite is refused too
    if not _LEAST <= weight <= _MOST:
        raise UserError(
            f"{_FLAG}: {number.strip()!r} for class {name!r} is no number above 0; "
            f"pass one such as {name}:2.5"
        )
    return weight


def _remedy(name: str, class_names: Sequence[str]) -> str:
    lower = {known.lower(): known for known in class_names}
    close = difflib.get_close_matches(name.lower(), lower, n=1)
    found = f"did you mean {lower[close[0]]!r}?" if close else f"one is {class_names[0]!r}"
    return found + _commas(class_names)


def _commas(class_names: Sequence[str]) -> str:
    """A hint where a class cannot be named at all."""
    if not any("," in name for name in class_names):
        return ""
    return " (a class with a comma in its name cannot be written here)"
