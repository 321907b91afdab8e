"""The two lanes: all that differs between Keras 3 (TensorFlow 2.21) and Keras 2.15 (TensorFlow 2.15).

TensorFlow Addons 0.23 runs in the second one only. Nothing here imports TensorFlow or Keras before a
function is called; what serves the older lane alone says so.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from seedtf.errors import UserError

__all__ = [
    "DECODES_WEBP",
    "KERAS_2",
    "all_variables",
    "build_optimizer",
    "check_written_here",
    "has_addons",
    "import_addons",
    "innermost_optimizer",
    "keep_random_states",
    "metrics_variables",
    "optimizer_variables",
    "silence_first_xla_log",
    "with_values",
]

KERAS_VERSION = importlib.metadata.version("keras")

KERAS_2 = KERAS_VERSION.startswith("2.")
"""Whether this is the lane of Keras 2.15."""

DECODES_WEBP = not KERAS_2
"""Whether TensorFlow's decoder, which the exported graph needs, knows WebP; 2.15's does not."""


def has_addons() -> bool:
    """Whether TensorFlow Addons is installed beside the Keras that it works with."""
    return KERAS_2 and importlib.util.find_spec("tensorflow_addons") is not None


def import_addons(wanted: str) -> Any:
    """The module ``tensorflow_addons``, without its notice that its development has ended.

    Args:
        wanted: the flag with its value that needs it, for the message.

    Raises:
        UserError: it is not installed, or beside a Keras that it does not work with.
    """
    if not has_addons():
        raise UserError(
            f"{wanted}: needs TensorFlow Addons, which is not installed here; in an environment of "
            "Python 3.10 or 3.11: pip install 'seedtf[addons]'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons  # noqa: PLC0415  of the older lane alone

    return tensorflow_addons


def silence_first_xla_log() -> None:
    """Compiles a trifle with stderr turned aside, unless the user asked for TensorFlow's log.

    TensorFlow 2.15 tells of its first compilation with XLA there, whatever the log level.
    """
    if not KERAS_2 or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":
        return
    import tensorflow as tf  # noqa: PLC0415

    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        tf.function(lambda: tf.constant(0.0), jit_compile=True, autograph=False)()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def keep_random_states() -> None:
    """Makes layers built from now on draw from variables, which a saved state can hold.

    Keras 3 does by itself. Keras 2.15 otherwise draws dropout from a state inside TensorFlow's
    operations, which nothing can read.
    """
    if KERAS_2:
        import keras  # noqa: PLC0415

        keras.backend.experimental.enable_tf_random_generator()


def all_variables(model: Any) -> list[Any]:
    """Weights, moving statistics and random states of a model whose layers lie flat in it."""
    if not KERAS_2:
        return list(model.variables)
    # Keras 2.15 leaves the random states out of `variables`
    makers = [getattr(layer, "_random_generator", None) for layer in model.layers]
    states = [getattr(maker, "_generator", None) for maker in makers]
    return [*model.variables, *(each.state for each in states if each is not None)]


def with_values(model: Any, values: Sequence[Any] | None) -> AbstractContextManager[Any]:
    """Inside, and in this thread alone, the variables of a model read as ``values``; None: as they are.

    Keras 2.15 has no such thing.
    """
    if values is None:
        return nullcontext()
    import keras  # noqa: PLC0415
    import tensorflow as tf  # noqa: PLC0415

    with tf.device("/cpu:0"):
        return keras.StatelessScope(
            state_mapping=list(zip(all_variables(model), values, strict=True))
        )


def metrics_variables(model: Any) -> list[Any]:
    """The running sums of a compiled model's metrics."""
    if not KERAS_2:
        return list(model.metrics_variables)
    return [variable for metric in model.metrics for variable in metric.variables]


def innermost_optimizer(optimizer: Any) -> Any:
    """The optimizer inside Keras's loss scaling, or ``optimizer`` itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_optimizer(optimizer: Any, variables: list[Any]) -> None:
    """Creates the slots and the step count before the first step."""
    # TensorFlow Addons' optimizers are of the kind that Keras 2.11 replaced and calls legacy
    if hasattr(optimizer, "_create_all_weights"):
        optimizer._create_all_weights(variables)
    else:
        optimizer.build(variables)


def optimizer_variables(optimizer: Any) -> list[Any]:
    """Slots, step count and loss scale of a built optimizer, in a fixed order."""
    if not KERAS_2:
        return list(optimizer.variables)
    inner = innermost_optimizer(optimizer)
    # of the legacy kind `weights` alone holds the slots of a wrapped optimizer too
    own = inner.weights if hasattr(inner, "_create_all_weights") else inner.variables
    scale = getattr(optimizer, "_loss_scale", None)
    return [*own, *(() if scale is None else (scale.current_loss_scale, scale.counter))]


def check_written_here(path: Path) -> None:
    """Raises UserError when the ``.keras`` file was written by the Keras of the other lane.

    The two name their classes differently. A file that cannot be read is left to its reader.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            writer = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError):
        return
    if writer.partition(".")[0] in {"2", "3"} - {KERAS_VERSION.partition(".")[0]}:
        raise UserError(
            f"{path}: written by Keras {writer[:20]}, here is Keras {KERAS_VERSION}; use the "
            "environment that it was trained in"
        )
