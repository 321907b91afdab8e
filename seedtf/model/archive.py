"""Checks a model or weights file before Keras loads it: only known layers and numbers are allowed.

Keras instantiates every class that the configuration in a file names, and allocates every array that
the file declares. A hostile file could thus run code or fill the memory. So the files in the archive,
the classes and the declared sizes are checked first, without extracting anything.
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

from seedtf.model.backbones import check_backbone

__all__ = ["check_archived_weights", "check_hdf5", "check_model_archive"]

_WEIGHTS = "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", "config.json", _WEIGHTS})
# The modules whose classes the networks of keras.applications and seedtf use, in Keras 2.15 and 3.
_MODULES = re.compile(
    r"keras|keras\.(layers|initializers|activations|regularizers|constraints|mixed_precision)|"
    r"keras\.src\.(models|engine|applications|ops)\..+|seedtf\.model\.\w+"
)
# The layers that keras.applications uses. Lambda, TFSMLayer and some other layers of Keras are not
# allowed, because they contain code or read files.
_LAYERS = re.compile(
    "Activation|Add|Concatenate|Cropping2D|Dense|Dropout|Flatten|InputLayer|LeakyReLU|Multiply|"
    "Permute|ReLU|Rescaling|Reshape|Softmax|ZeroPadding2D|(Batch|Layer)?Normalization|"
    "(Depthwise|Separable)?Conv2D|(Global)?(Average|Max)Pooling2D"
)
_CLASSES_WITHOUT_MODULE = frozenset({"__keras_tensor__", "__tuple__"})
_MAX_DATASETS, _MAX_DEPTH = 100_000, 50
# These arguments of KerasHub's backbones are sides of images; most other numbers are widths of layers.
_IMAGE_SHAPES = ("image_shape", "input_shape", "position_embedding_shape")
_MAX_IMAGE_SIDE = 10_000


def check_model_archive(path: str | os.PathLike[str]) -> None:
    """Raises an error unless the ``.keras`` file ``path`` could have been written by ``save_model``.

    Raises:
        ValueError: the files in the archive, the classes or the sizes are not those of a network of
            seedtf.
        Exception: zip, JSON and HDF5 raise errors of many types for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sorted(names) != sorted(_MEMBERS):
            raise ValueError(f"its members are {', '.join(map(repr, names[:4])) or 'none'}")
        _check_uncompressed(archive, path)
        config = json.loads(archive.read("config.json"))
        config.pop("compile_config", None)  # not used, because a loaded model is not compiled
        for entry in _serialized_objects(config):
            _check_class(entry)
        with archive.open(_WEIGHTS) as weights:
            check_hdf5(weights, archive.getinfo(_WEIGHTS).file_size)
        if sum(map(_count_parameters, _serialized_objects(config))) > os.path.getsize(path):
            raise ValueError("its layers have more parameters than the file can contain")


def check_archived_weights(path: str | os.PathLike[str]) -> None:
    """Checks the weights in the ``.keras`` file of any Keras model, but not its configuration.

    Raises:
        ValueError: the weights are not plain arrays that fit into the file.
        Exception: zip and HDF5 raise errors of many types for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        _check_uncompressed(archive, path)
        with archive.open(_WEIGHTS) as weights:
            check_hdf5(weights, archive.getinfo(_WEIGHTS).file_size)


def check_hdf5(file: str | IO[bytes], size: int) -> None:
    """Raises ValueError unless an HDF5 file contains only plain arrays that fit into its size.

    Soft and external links, arrays stored in other files or composed of other arrays, arrays of Python
    objects, and arrays that together are larger than the file are refused.

    Args:
        file: a path or an open file.
        size: size of the file in bytes.
    """
    with h5py.File(file, "r") as opened:
        declared_bytes = num_datasets = 0
        for dataset in _datasets(opened, 0):
            num_datasets += 1
            declared_bytes += math.prod(dataset.shape or ()) * dataset.dtype.itemsize
            if dataset.external or dataset.is_virtual or dataset.dtype.kind == "O":
                raise ValueError(f"{dataset.name} is not an array of plain numbers")
            if num_datasets > _MAX_DATASETS:
                raise ValueError(f"it has more than {_MAX_DATASETS:,} arrays")
            if declared_bytes > size:
                raise ValueError("its arrays are larger than the file")
        if not num_datasets:
            raise ValueError("it contains no weights")


def _check_uncompressed(archive: zipfile.ZipFile, path: str | os.PathLike[str]) -> None:
    # Keras does not compress the members of an archive, so together they are smaller than the file.
    if sum(member.file_size for member in archive.infolist()) > os.path.getsize(path):
        raise ValueError("its members are larger than the file")


def _serialized_objects(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Yields every serialized Keras object in a configuration, each before the objects inside it."""
    if depth > _MAX_DEPTH:
        raise ValueError("its configuration is nested too deeply")
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _serialized_objects(item, depth + 1)


def _check_class(entry: dict[str, Any]) -> None:
    module, name = entry.get("module"), entry["class_name"]
    if str(module).startswith("keras_hub."):
        check_backbone(entry)
        return
    is_known = (
        name in _CLASSES_WITHOUT_MODULE if module is None else bool(_MODULES.fullmatch(str(module)))
    )
    if not is_known or (module == "keras.layers" and not _LAYERS.fullmatch(name)):
        source = f"of {module}" if module else "without a module"
        raise ValueError(f"it uses {name!r} {source}, which no network of seedtf has")


def _count_parameters(entry: dict[str, Any]) -> int:
    """The approximate number of parameters of a layer.

    For a layer without filters or units, such as pooling, the area of its kernel.
    """
    config = entry.get("config")
    if not isinstance(config, dict):
        return 0
    if str(entry.get("module")).startswith("keras_hub."):
        return _estimate_parameters(config)
    outputs = config.get("units", config.get("filters"))
    kernel = math.prod(config.get("kernel_size", [1]))
    if outputs is None:
        return abs(kernel)
    shape = (entry.get("build_config") or {}).get("input_shape")
    if not shape:
        raise ValueError(f"its layer {config.get('name')!r} has no input shape")
    if "Separable" in entry["class_name"]:
        return abs(shape[-1] * (kernel + outputs))
    return abs(kernel * shape[-1] * outputs // config.get("groups", 1))


def _estimate_parameters(config: dict[str, Any]) -> int:
    """A rough estimate of the number of parameters of a KerasHub backbone with these arguments.

    The estimate is the product of the two largest widths: about the size of the largest weight matrix.
    Usually it is too low. The caller compares the estimate with the file's size in bytes. A parameter
    takes four bytes, so even an estimate that is four times too high does no harm.
    """
    widths = sorted(map(abs, _integers({k: config[k] for k in config if k not in _IMAGE_SHAPES})))
    sides = list(map(abs, _integers([config.get(name) for name in _IMAGE_SHAPES])))
    if max(sides, default=0) > _MAX_IMAGE_SIDE:
        raise ValueError(f"it is for images of {max(sides)} pixels")
    return math.prod(widths[-2:])


def _integers(value: Any) -> Iterator[int]:
    """Every number in nested JSON values, truncated to an integer."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield int(value)
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _integers(item)


def _datasets(group: h5py.Group, depth: int) -> Iterator[h5py.Dataset]:
    if depth > _MAX_DEPTH:
        raise ValueError("its groups are nested too deeply")
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is a link")
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield item
        else:
            yield from _datasets(item, depth + 1)
