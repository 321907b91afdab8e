"""KerasHub, an optional package: its import, and what seedtf changes in it."""

from __future__ import annotations

from typing import Any

from seedtf.compat.keras import replace_layer_class, set_weights_group_name
from seedtf.errors import UserError, missing_hub

__all__ = [
    "find_position_embeddings",
    "has_keras_hub",
    "import_keras_hub",
    "save_position_embeddings",
]


def has_keras_hub() -> bool:
    """Whether KerasHub is installed; it is not imported, which takes seconds.

    Tried with KerasHub 0.32.0; tested by ``tests/test_hub.py``.
    """
    import importlib.util

    return importlib.util.find_spec("keras_hub") is not None


def import_keras_hub(wanted: str) -> Any:
    """The package ``keras_hub``.

    Args:
        wanted: what needs it, for the error.

    Raises:
        UserError: it is not installed, or does not fit the installed packages.

    Tried with KerasHub 0.32.0; tested by ``test_without_keras_hub_one_line_says_what_to_install``.
    """
    if not has_keras_hub():
        raise missing_hub(wanted)
    try:
        import keras_hub
    except ImportError as error:
        raise UserError(
            f"{wanted}: KerasHub cannot be imported ({error}); run: pip install -U 'seedtf[hub]'"
        ) from error
    return keras_hub


def find_position_embeddings(backbone: Any) -> tuple[Any, Any] | None:
    """The two variables of position embeddings of a DINOv2 backbone; None for another backbone.

    The first one is for the image size of the weights file, and only saved and loaded. The second one
    is computed from it for the size of the images, and used.

    Tried with KerasHub 0.32.0; tested by ``test_trained_position_embeddings_are_saved_exactly``.
    """
    layer: Any = getattr(backbone, "embeddings", None)
    used = getattr(layer, "interpolated_position_embeddings", None)
    return None if used is None else (layer.position_embeddings, used)


def save_position_embeddings(backbone: Any) -> None:
    """Makes a DINOv2 backbone save the position embeddings that it uses, without changing them.

    KerasHub saves them resized to the image size of the first weights, and resizes them again when they
    are loaded. It does so only if the sum of all changes is positive; otherwise it saves the first
    ones. The backbone must have been built with ``position_embedding_shape`` equal to ``image_shape``,
    so that nothing is resized.

    Tried with KerasHub 0.32.0; tested by ``test_trained_position_embeddings_are_saved_exactly``.
    """
    if find_position_embeddings(backbone) is None:
        return
    base: Any = type(backbone.embeddings)

    class ExactEmbedding(base):
        def save_own_variables(self, store: Any) -> None:
            variables = self._trainable_variables + self._non_trainable_variables
            for index, variable in enumerate(variables):
                saved = variable is self.position_embeddings
                store[f"{index}"] = self.interpolated_position_embeddings if saved else variable

    set_weights_group_name(ExactEmbedding, base.__name__)
    replace_layer_class(backbone.embeddings, ExactEmbedding)
