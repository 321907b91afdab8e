"""Reads TFRecords of ``tf.train.Example`` with encoded images, as of TFDS or of ImageNet scripts."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.data.catalog import Fault
from seedtf.data.pack.records import ClassNamer, ImageNamer, Record, Records
from seedtf.errors import UserError, first_line

__all__ = ["is_tfrecord", "tfrecord_records"]

_IMAGES, _FILES = ("image/encoded", "image"), ("image/filename", "file_name", "filename")
_LABELS = ("image/class/text", "image/class/label", "label")


def is_tfrecord(name: str) -> bool:
    """Whether a file name has the suffix of a TFRecord, or is like ``train-00000-of-01024``.

    Example:
        >>> is_tfrecord("a.tfrecord.gz"), is_tfrecord("train-00000-of-01024"), is_tfrecord("a.tar")
        (True, True, False)
    """
    name = os.path.basename(name).lower()
    pattern = r".*\.(tfrecords?|tfrec)(\.gz|-\d+-of-\d+)?|[^.]+-\d+-of-\d+"
    return re.fullmatch(pattern, name) is not None


def tfrecord_records(
    path: str, folder: str, side: str, name_class: ClassNamer, label_key: str
) -> Records:
    """Yields the images of a TFRecord, in their order.

    The image is the feature ``image/encoded`` or ``image``. Its label is ``image/class/text``,
    ``image/class/label`` or ``label``. Its name is ``image/filename``, ``file_name`` or ``filename``,
    if there is one.

    Args:
        path: the file, which may be compressed with gzip.
        folder: the folder in the pack with which the names of the images begin.
        side: the side of all images; empty if there is no split.
        name_class: converts class numbers to names.
        label_key: the feature of the label; empty for the usual features.

    Raises:
        UserError: the file is damaged, or its first record has no image feature or no ``label_key``.
    """
    import_tensorflow()
    tf = importlib.import_module("tensorflow")
    with open(path, "rb") as file:
        compression = "GZIP" if file.read(2) == b"\x1f\x8b" else ""
    name_image, label_keys = ImageNamer(folder), (label_key,) if label_key else _LABELS
    try:
        for number, raw in enumerate(tf.data.TFRecordDataset(path, compression)):
            features = tf.train.Example.FromString(raw.numpy()).features.feature
            if not number:
                _check_features(path, features, label_key)
            data = _first_value(features, _IMAGES)
            shown = f"{folder}/{number:07}"
            if not isinstance(data, bytes) or not data:
                yield Fault(shown, "no image", f"no {_IMAGES[0]}")
                continue
            label = _to_text(_first_value(features, label_keys))
            name = name_image(_to_text(_first_value(features, _FILES)), data)
            if not name:
                yield Fault(shown, "not an image", "neither name nor bytes are those of an image")
            elif not label:
                yield Fault(name, "no label", f"no {label_keys[0]}")
            else:
                yield Record(name, name_class(label), side, data)
    except (tf.errors.OpError, ValueError) as error:
        raise _damaged(path, error) from None
    except Exception as error:  # TensorFlow has no public name for protobuf's DecodeError.
        if type(error).__name__ != "DecodeError":
            raise
        raise _damaged(path, error) from None


def _check_features(path: str, features: Any, label_key: str) -> None:
    names = ", ".join(sorted(features)[:8])
    if not any(name in features for name in _IMAGES):
        wanted = " or ".join(_IMAGES)
        raise UserError(f"{path}: no feature {wanted}, only {names}; rename the feature of images")
    if label_key and label_key not in features:
        raise UserError(f"--label_column={label_key}: {path} has only the features {names}")


def _first_value(features: Any, names: tuple[str, ...]) -> bytes | int | None:
    """The first value of the first of the features ``names`` that has any; None if none has."""
    for name in names:
        if name in features:
            values = features[name].bytes_list.value or features[name].int64_list.value
            if values:
                return bytes(values[0]) if isinstance(values[0], bytes) else int(values[0])
    return None


def _to_text(value: bytes | int | None) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value)


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path}: damaged TFRecord ({first_line(error, 80)}); copy it again")
