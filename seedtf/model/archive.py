"""Judges a model or weights file before Keras sees it: nothing but layers and numbers may be in it.

Keras builds what a file's configuration says and allocates what it claims. So the parts of the
archive, the classes named in it and the sizes claimed are looked at first; nothing is extracted.
"""

from __future__ import annotations

import json
import math
import os
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import h5py

__all__ = ["check_archived_weights", "check_hdf5", "check_model_archive"]

_WEIGHTS = "model.weights.h5"
_PARTS = frozenset({"metadata.json", "config.json", _WEIGHTS})
# where the classes of keras.applications and of seedtf live, in Keras 2.15 and 3
_MODULES = re.compile(
    r"keras|keras\.(layers|initializers|activations|regularizers|constraints|mixed_precision)|"
    r"keras\.src\.(models|engine|applications|ops)\..+|seedtf\.model\.\w+"
)
# what keras.applications is made of; Lambda, TFSMLayer and the like hold code or read other files
_LAYERS = re.compile(
    "Activation|Add|Concatenate|Cropping2D|Dense|Dropout|Flatten|InputLayer|LeakyReLU|Multiply|"
    "Permute|ReLU|Rescaling|Reshape|Softmax|ZeroPadding2D|(Batch|Layer)?Normalization|"
    "(Depthwise|Separable)?Conv2D|(Global)?(Average|Max)Pooling2D"
)
_PLAIN = frozenset({"__keras_tensor__", "__tuple__"})
_MOST_ITEMS, _MOST_DEPTH = 100_000, 50


def check_model_archive(path: str | os.PathLike[str]) -> None:
    """Raises ValueError (or what zip, JSON and HDF5 raise) unless ``path`` is like ``save_model``'s."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sorted(names) != sorted(_PARTS):
            raise ValueError(f"its parts are {', '.join(map(repr, names[:4])) or 'none'}")
        _check_stored(archive, path)
        config = json.loads(archive.read("config.json"))
        config.pop("compile_config", None)  # a loaded model is not compiled
        for each in _objects(config):
            _check_class(each)
        with archive.open(_WEIGHTS) as weights:
            check_hdf5(weights, archive.getinfo(_WEIGHTS).file_size)
        if sum(map(_parameters, _objects(config))) > os.path.getsize(path):
            raise ValueError("its layers claim more numbers than the file holds")


def check_archived_weights(path: str | os.PathLike[str]) -> None:
    """As ``check_model_archive``, for the weights alone in the ``.keras`` file of any Keras model."""
    with zipfile.ZipFile(path) as archive:
        _check_stored(archive, path)
        with archive.open(_WEIGHTS) as weights:
            check_hdf5(weights, archive.getinfo(_WEIGHTS).file_size)


def check_hdf5(file: str | IO[bytes], size: int) -> None:
    """Raises ValueError when a part of an HDF5 file of ``size`` bytes lies outside it, or claims more.

    Links to other files, arrays of Python objects and arrays larger than the file are refused.
    """
    with h5py.File(file, "r") as opened:
        claimed = items = 0
        for dataset in _datasets(opened, 0):
            items += 1
            claimed += math.prod(dataset.shape or ()) * dataset.dtype.itemsize
            if dataset.external or dataset.is_virtual or dataset.dtype.kind == "O":
                raise ValueError(f"{dataset.name} holds no plain numbers")
            if claimed > size or items > _MOST_ITEMS:
                raise ValueError("its arrays claim more numbers than the file holds")
        if not items:
            raise ValueError("it holds no weights")


def _check_stored(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> None:
    # Keras stores, it never compresses; so no archive unpacks to more than its own size
    if sum(part.file_size for part in archive.infolist()) > os.path.getsize(path):
        raise ValueError("its parts are larger than the file")


def _objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Every serialised object in a configuration, itself first."""
    if depth > _MOST_DEPTH:
        raise ValueError("its configuration is nested too deeply")
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _objects(each, depth + 1)


def _check_class(each: dict[str, Any]) -> None:
    module, name = each.get("module"), each["class_name"]
    known = name in _PLAIN if module is None else bool(_MODULES.fullmatch(str(module)))
    if not known or (module == "keras.layers" and not _LAYERS.fullmatch(name)):
        raise ValueError(
            f"it names {module or 'no module'} {name!r}, which no network of seedtf has"
        )


def _parameters(each: dict[str, Any]) -> int:
    """How many numbers a dense or convolution layer claims, about; 0 for other objects."""
    config = each.get("config")
    if not isinstance(config, dict):
        return 0
    outputs = config.get("units", config.get("filters"))
    kernel = math.prod(config.get("kernel_size", [1]))
    if outputs is None:
        return abs(kernel)
    shape = (each.get("build_config") or {}).get("input_shape")
    if not shape:
        raise ValueError(f"its layer {config.get('name')!r} has no input shape")
    if "Separable" in each["class_name"]:
        return abs(shape[-1] * (kernel + outputs))
    return abs(kernel * shape[-1] * outputs // config.get("groups", 1))


def _datasets(group: h5py.Group, depth: int) -> Iterator[h5py.Dataset]:
    if depth > _MOST_DEPTH:
        raise ValueError("its groups are nested too deeply")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link to elsewhere")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield item
        else:
            yield from _datasets(item, depth + 1)
