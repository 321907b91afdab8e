"""``Embedder``: a network without its head, pretrained or from a run, which computes features."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from seedtf.errors import UserError
from seedtf.images.header import MAX_PIXELS, STRETCH
from seedtf.model.families import check_image_size, short_name, weights_licence
from seedtf.model.network import build_network, pooled_body, resolve_model_name
from seedtf.model.presets import Preset, find_preset
from seedtf.model.weights import check_weights_file
from seedtf.runs.folder import find_run, resolve_weights
from seedtf.runs.open import load_run
from seedtf.runs.paths import RunPaths
from seedtf.runs.presets import read_preset, read_weights_licence

__all__ = ["DEFAULT_SIZE", "Embedder", "open_embedder"]

DEFAULT_SIZE = 224
"""Side of the images in pixels, if neither the user, nor the run, nor the network determines it."""

_WEIGHTS_SUFFIXES = (".json", ".h5", ".safetensors")


@dataclass(frozen=True)
class Embedder:
    """A network without its head.

    The network is built only when ``build`` is called, so features in the cache need no network.

    Attributes:
        name: the name of the network, as shown to the user.
        image_size: side S of the network's input in pixels.
        key: a hash of everything that the features depend on, except the images.
        build: builds and returns the model. It maps images, float32 ``[B, S, S, 3]`` RGB in 0–255, to
            features ``[B, D]``: the last feature map, averaged over height and width.
        model, weights: the values of ``--model`` and ``--weights`` that start a training with this
            network.
        licence: the licence of the weights; empty if the weights are random or the licence is unknown.
        max_pixels: images with a larger width × height are refused.
        fit: how images are made square, see ``images.decode.resize_image``.
        preset: the preset of KerasHub that the network was loaded from, or None.
    """

    name: str
    image_size: int
    key: str
    build: Callable[[], keras.Model]
    model: str
    weights: str
    licence: str = ""
    max_pixels: int = MAX_PIXELS
    preset: Preset | None = None
    fit: str = STRETCH


def open_embedder(model: str, image_size: int = 0, weights: str = "imagenet") -> Embedder:
    """Checks ``--model``, ``--image_size`` and ``--weights``, and returns the network that they name.

    Args:
        model: a network as for training, a run folder, or a ``.keras`` file in a run folder.
        image_size: side of the images in pixels. For a run, 0 means the image size of the run. For a
            network, 0 means the only size that it accepts, or 224 if it accepts several.
        weights: as for training; ignored for a run, which has its own weights.

    Raises:
        UserError: the network is unknown, does not accept the image size, or lacks a file; or ``model``
            is a folder of several runs.

    Example:
        >>> embedder = open_embedder("tiny", 16, weights="none")
        >>> embedder.build().output_shape
        (None, 64)
    """
    if not model:
        raise UserError("--model: is missing; pass the name of a network, a folder, or a run")
    if model.endswith(".keras") or RunPaths.of(model).classes.is_file():
        return _open_run(model, image_size)
    weights = os.path.abspath(resolve_weights(weights)) if _is_path(weights) else weights
    preset = find_preset(model, with_weights=weights == "imagenet")
    name = preset.name if preset else resolve_model_name(model)
    size = image_size or (preset.sizes.only if preset else 0) or DEFAULT_SIZE
    if preset:
        preset.sizes.check(name, size)
        licence = preset.licence
    else:
        check_image_size(name, size)
        licence = weights_licence(name)
    identity = [name, weights]
    if _is_path(weights):
        check_weights_file(Path(weights))
        identity.append(_hash_files([Path(weights)]))
        licence = _read_licence(weights)
    elif preset:
        files = sorted(Path(preset.folder).glob("*"))
        identity.append(_hash_files([file for file in files if file.suffix in _WEIGHTS_SUFFIXES]))

    def build() -> keras.Model:
        if weights == "none":
            # Every process must draw the same weights, because all processes share the cached features.
            keras.utils.set_random_seed(0)
        return pooled_body(
            build_network(model=preset or name, num_classes=2, image_size=size, weights=weights)
        )

    return Embedder(
        name,
        size,
        _make_key(*identity, str(size)),
        build,
        preset.source if preset else name,
        weights,
        "" if weights == "none" else licence,
        preset=preset,
    )


def _open_run(model: str, image_size: int) -> Embedder:
    """The embedder of a run, with its best model or the checkpoint that ``model`` names."""
    run = load_run(model)
    if run.members:
        raise UserError(f"--model={model}: averages several runs; pass one of them")
    if image_size not in (0, run.image_size):
        raise UserError(
            f"--image_size={image_size}: the run was trained at {run.image_size}; leave the flag out"
        )
    file = run.checkpoint or run.paths.best
    if not file.is_file():
        raise UserError(f"--model={model}: the run has no best model yet; pass another run")
    return Embedder(
        f"{short_name(str(run.settings['model']))} of {run.run_dir}",
        run.image_size,
        _make_key(_hash_files([file]), str(run.image_size)),
        lambda: pooled_body(run.load_model()),
        str(run.settings["model"]),
        os.path.abspath(file),
        read_weights_licence(run.run_dir),
        run.max_pixels,
        read_preset(run.run_dir),
        fit=run.fit,
    )


def _is_path(weights: str) -> bool:
    return weights not in ("none", "imagenet")


def _read_licence(weights: str) -> str:
    """The licence of a file of weights, as recorded in its run folder; empty if it is unknown."""
    try:
        return read_weights_licence(find_run(weights)[0])
    except UserError:  # the file is not in a run folder
        return ""


def _hash_files(files: list[Path]) -> str:
    """A hash of the names, sizes and contents of files."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _make_key(*parts: str) -> str:
    """A hash of ``parts`` and of the versions of the libraries that compute the features."""
    versions = [importlib.metadata.version(name) for name in ("keras", "tensorflow")]
    return hashlib.blake2b("\0".join([*parts, *versions]).encode(), digest_size=16).hexdigest()
