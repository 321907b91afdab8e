"""Builds, saves and loads a network: input scaling, body and head.

The body comes from keras.applications or KerasHub, or is that of ``Tiny``.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from seedtf.compat.keras import check_keras_version, keep_random_states_in_variables, with_values
from seedtf.compat.keras_settings import check_keras_settings
from seedtf.errors import UserError, first_line
from seedtf.files import atomic_path
from seedtf.model.archive import check_model_archive
from seedtf.model.batch_norm import fuse_batch_norm
from seedtf.model.families import (
    TINY,
    check_image_size,
    is_supported,
    match_model_name,
    scaling_mode,
)
from seedtf.model.hub import KerasHubBackbone, load_preset_weights
from seedtf.model.input_scaling import InputScaling
from seedtf.model.presets import Preset, find_preset
from seedtf.model.residuals import zero_init_residuals
from seedtf.model.weights import load_weights
from seedtf.report import warn

__all__ = [
    "HEAD",
    "InputScaling",
    "available_models",
    "build_features",
    "build_network",
    "load_model",
    "pooled_body",
    "resolve_model_name",
    "save_model",
    "set_body_trainable",
    "with_head",
]

HEAD = "logits"
"""Name of the dense layer that is the head."""


def available_models() -> tuple[str, ...]:
    """Returns the sorted names of all networks: those of keras.applications, and ``"Tiny"``.

    Example:
        >>> {"ResNet50", "EfficientNetB0", "Tiny"} <= set(available_models())
        True
    """
    supported = [name for name in dir(keras.applications) if is_supported(name)]
    return tuple(sorted([*supported, TINY]))


def resolve_model_name(name: str) -> str:
    """Returns the name of a network as keras.applications spells it.

    Raises:
        UserError: there is no such network; the message suggests similar names.

    Example:
        >>> resolve_model_name("resnet50")
        'ResNet50'
    """
    return match_model_name(name, available_models())


def build_features(model: str | Preset, image_size: int, weights: str) -> keras.Model:
    """Builds a network without its head: from pixels to the last feature map.

    Args:
        model, image_size, weights: as for ``build_network``.

    Returns:
        A model that maps ``image``, float32 ``[B, S, S, 3]`` RGB in 0–255, to features
        ``[B, h, w, C]``; batch normalization is fused.

    Raises:
        UserError: for the same reasons as in ``build_network``.

    Example:
        >>> build_features("tiny", 16, "none").output_shape
        (None, 2, 2, 64)
    """
    network = build_network(model=model, num_classes=2, image_size=image_size, weights=weights)
    return keras.Model(network.input, network.get_layer("pool").input, name=network.name)


def build_network(
    *,
    model: str | Preset,
    num_classes: int,
    image_size: int,
    weights: str,
    bn_momentum: float | None = None,
    sync_bn: bool = False,
    zero_init_residual: bool = False,
) -> keras.Model:
    """Builds a classifier: input scaling, body, global average pooling, dense head, softmax.

    The layers of a body of keras.applications keep their names and are layers of the functional model
    itself, not of a nested model. A backbone of KerasHub is one layer, ``backbone``. Batch
    normalization is fused, and every layer is trainable.

    Args:
        model: a name from ``available_models()``, in upper or lower case; the folder, the address or
            the name of a preset (see ``find_preset``); or the ``Preset`` itself.
        num_classes: K, the width of the head.
        image_size: S, the side of the square input in pixels.
        weights: ``"none"`` for random weights; ``"imagenet"`` for the weights that Keras downloads, or
            for the weights of a preset, whatever they were trained on; or the path of a ``.keras``,
            ``.weights.h5`` or legacy ``.h5`` file (see ``load_weights``).
        bn_momentum: momentum of every batch normalization; None keeps the network's own values.
        sync_bn: whether batch statistics are computed over all replicas of a distribution strategy.
        zero_init_residual: whether every residual branch starts with the output 0. This has an effect
            on random weights only (see ``zero_init_residuals``).

    Returns:
        A model with the network's name in lower case. It maps ``image``, float32 ``[B, S, S, 3]``
        RGB in 0–255 (``predict`` accepts uint8 too), to float32 ``[B, K]`` probabilities under
        every global dtype policy.

    Raises:
        UserError: the model is unknown, does not accept the image size, or needs KerasHub, which is not
            installed; the weights cannot be downloaded or loaded; or seedtf does not work with the
            settings of Keras (see ``check_keras_settings``).

    Example:
        >>> network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
        >>> network.name, network.output_shape
        ('tiny', (None, 3))
    """
    check_keras_settings()
    preset = model if isinstance(model, Preset) else None
    if isinstance(model, str):
        preset = find_preset(model, with_weights=weights == "imagenet")
    name = preset.name if preset else resolve_model_name(str(model))
    keep_random_states_in_variables()
    image = keras.Input((image_size, image_size, 3), dtype="float32", name="image")
    if preset:
        features = _build_preset_body(preset, image, weights)
    else:
        check_image_size(name, image_size)
        scaled = InputScaling(scaling_mode(name), name="input_scaling")(image)
        if name == TINY:
            features = _build_tiny_body(scaled, weights)
        else:
            features = _build_body(name, scaled, weights)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    network = with_head(keras.Model(image, pooled, name=name.lower()), num_classes)
    fuse_batch_norm(network, bn_momentum, synchronized=sync_bn)
    if weights == "none" and zero_init_residual:
        zero_init_residuals(network.get_layer("backbone").backbone if preset else network)
    if weights not in ("none", "imagenet"):
        load_weights(network, weights, head=HEAD)
        _warn_of_missing_scaling(name)
    return network


def pooled_body(network: keras.Model) -> keras.Model:
    """Returns a classifier without its head: a model that outputs pooled features, float ``[B, C]``."""
    return keras.Model(network.input, network.get_layer("pool").output, name=network.name)


def with_head(body: keras.Model, num_classes: int) -> keras.Model:
    """Returns ``body``, which ends with pooled features, followed by a new dense head and softmax."""
    logits = keras.layers.Dense(num_classes, dtype="float32", name=HEAD)(body.output)
    output = keras.layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    return keras.Model(body.input, output, name=body.name)


def set_body_trainable(model: keras.Model, trainable: bool) -> None:
    """Freezes or unfreezes every layer but the head. Compile the model afterwards.

    A frozen batch normalization runs in inference mode, as in Keras.
    """
    for layer in model.layers:
        if layer.name != HEAD:
            layer.trainable = trainable


def save_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    values: Sequence[np.ndarray] | None = None,
) -> None:
    """Writes ``model`` to the file ``path`` (``*.keras``) atomically; the folder must exist.

    Args:
        model: a built network.
        path: the file to create or replace.
        values: an array for each variable, which is written in place of the variable's current value.
            With copies of the variables, a background thread can save the model while the model trains.
            Needs Keras 3.
    """
    with atomic_path(path) as temporary, with_values(model, values):
        model.save(temporary)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """Reads a model that ``save_model`` wrote, without compiling it; no code in the file is executed.

    Raises:
        UserError: the file is missing or damaged, is not a model of seedtf, was written by another
            major version of Keras, or needs KerasHub, which cannot be imported.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such model file; pass the path of a .keras file")
    remedy = "the file is damaged or not a seedtf model; pass a .keras file that seedtf wrote"
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise UserError(f"{path}: {remedy}")
    check_keras_version(path)
    try:
        check_model_archive(path)
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except UserError as error:  # KerasHub is not installed
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged archive can fail in any part of zip, JSON, HDF5 or Keras
        raise UserError(f"{path}: {remedy} ({first_line(error)})") from error
    if not {"image", HEAD, "probabilities"} <= {layer.name for layer in model.layers}:
        raise UserError(f"{path}: {remedy} (it has no layers named image, {HEAD}, probabilities)")
    fuse_batch_norm(model)  # KerasHub creates a backbone with the batch normalization of Keras
    return model


def _build_preset_body(preset: Preset, image: Any, weights: str) -> Any:
    """Returns the features ``[B, h, w, C]`` of a preset's backbone applied to scaled pixels."""
    size = image.shape[1]
    preset.sizes.check(preset.name, size)
    scaled = InputScaling("affine", preset.scale, preset.offset, name="input_scaling")(image)
    backbone = KerasHubBackbone(preset.backbone_for(size), name="backbone")
    features = backbone(scaled)
    if weights == "imagenet":
        load_preset_weights(backbone, preset, size)
    return features


def _build_body(name: str, scaled: Any, weights: str) -> Any:
    """Returns the last feature map of a network of keras.applications applied to ``scaled``."""
    constructor = getattr(keras.applications, name)
    shape = tuple(scaled.shape[1:])
    if weights != "imagenet":
        return constructor(
            include_top=False, weights=None, input_tensor=scaled, input_shape=shape
        ).output
    try:
        return constructor(
            include_top=False, weights="imagenet", input_tensor=scaled, input_shape=shape
        ).output
    except Exception as error:  # Keras raises a bare Exception when a download fails
        # The message of `error` itself is mostly the URL.
        cause = first_line(error.__context__ or error)
        raise UserError(
            f"--weights=imagenet could not be downloaded ({cause}); pass "
            "--weights=none to train from scratch or --weights=PATH with a .keras or .weights.h5 "
            "file"
        ) from error


def _warn_of_missing_scaling(name: str) -> None:
    """Warns that weights from a file may need an input layer that the network does not have.

    With ``weights="imagenet"`` Keras adds a Rescaling layer to EfficientNetB0 to B7. This layer has no
    weights, so a weights file does not show whether its network had the layer.
    """
    if re.fullmatch(r"EfficientNetB\d", name):
        warn(
            f"{name}: if these weights were trained from ImageNet weights, their network had one more "
            "input layer, which divides by the square root of the standard deviations; this layer is "
            "built only with --weights=imagenet, and the first epochs will correct for its absence"
        )


def _build_tiny_body(scaled: Any, weights: str) -> Any:
    """Returns the features ``[B, S/8, S/8, 64]`` of three strided convolutions of ``scaled``."""
    if weights == "imagenet":
        raise UserError(
            "--weights=imagenet: Tiny has no ImageNet weights; pass --weights=none or --weights=PATH"
        )
    features = scaled
    for block, filters in enumerate((16, 32, 64), start=1):
        features = keras.layers.Conv2D(
            filters, 3, strides=2, padding="same", use_bias=False, name=f"conv{block}"
        )(features)
        features = keras.layers.BatchNormalization(name=f"conv{block}_bn")(features)
        features = keras.layers.ReLU(name=f"conv{block}_relu")(features)
    return features
