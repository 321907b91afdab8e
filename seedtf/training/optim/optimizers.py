"""Creates the optimizer that ``--optimizer`` names, from Keras or TensorFlow Addons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras

from seedtf.compat.keras import KERAS_2, LRScales, layerwise_lr_class
from seedtf.compat.keras_adam import shared_bias_correction_class
from seedtf.compat.tensorflow import import_addons
from seedtf.config.optim_flags import SWA
from seedtf.training.optim.choice import needs_addons

__all__ = ["make_optimizer"]

_KERAS_CLASSES = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "lamb": "Lamb",
}


def make_optimizer(
    name: str,
    lr: float,
    *,
    averaged_from: int = 0,
    steps_per_epoch: int = 1,
    weight_decay: float = 0.0,
    no_decay: Iterable[Any] = (),
    clip_norm: float = 0.0,
    lr_scales: LRScales | None = None,
) -> keras.optimizers.Optimizer:
    """Returns a new optimizer.

    ``sgd`` has Nesterov momentum 0.9. ``lookahead`` and ``swa`` wrap Adam; ``ranger`` wraps
    RectifiedAdam (``radam``). ``lamb`` is the optimizer of Keras 3; with Keras 2.15, it is that of
    TensorFlow Addons.

    Args:
        name: a value of ``--optimizer``.
        lr: the initial learning rate.
        averaged_from: for ``swa``, the first epoch at whose end the weights enter the average. Epochs
            are counted from 0, which is the first epoch that this optimizer trains.
        steps_per_epoch: for ``swa``, the number of steps in an epoch.
        weight_decay: each step first subtracts ``lr * weight_decay * w`` from each weight w (decoupled
            weight decay: Loshchilov and Hutter, arXiv 1711.05101); 0 for none.
        no_decay: the variables without weight decay, see ``no_decay_variables``.
        clip_norm: the largest norm of the gradient over all variables; 0 for no clipping.
        lr_scales: the factor on the learning rate of each variable, which also scales the weight decay
            of the variable; None if every factor is 1.

    Raises:
        ValueError: the optimizer comes from TensorFlow Addons, and decay, clipping or ``lr_scales`` is
            requested; or ``lr_scales`` is given with Keras 2.15. ``check_optimizer`` refuses the flags
            that would lead here.

    Example:
        >>> optimizer = make_optimizer("adamw", 1e-3, weight_decay=0.05)
        >>> type(optimizer).__name__, optimizer.weight_decay
        ('AdamW', 0.05)
    """
    from_addons = needs_addons(name, KERAS_2)
    if (lr_scales is not None and KERAS_2) or (
        from_addons and (weight_decay or clip_norm or lr_scales)
    ):
        raise ValueError(f"{name} has no decay, clipping or layer-wise rates here")
    if from_addons:
        first_averaged_step = (averaged_from + 1) * steps_per_epoch - 1
        return _make_addons_optimizer(name, lr, first_averaged_step, steps_per_epoch)
    optimizer_class = getattr(keras.optimizers, _KERAS_CLASSES[name])
    if issubclass(optimizer_class, keras.optimizers.Adam) and not KERAS_2:
        optimizer_class = shared_bias_correction_class(optimizer_class)
    if lr_scales is not None:
        optimizer_class = layerwise_lr_class(optimizer_class, lr_scales)
    options: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "sgd" else {}
    if clip_norm:
        options["global_clipnorm"] = clip_norm
    optimizer = optimizer_class(lr, **options)
    # The weight decay is always set, because the default of Keras's AdamW is 0.004. Without decay it is
    # None, because with 0 the train step would still contain the operation.
    optimizer.weight_decay = weight_decay or None
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_list=list(no_decay))
    return optimizer


def _make_addons_optimizer(name: str, lr: float, first_averaged_step: int, period: int) -> Any:
    addons = import_addons(f"--optimizer={name}").optimizers
    # The wrappers of Addons accept only Keras's legacy optimizers.
    adam = keras.optimizers.legacy.Adam
    if name == "lamb":
        return addons.LAMB(lr)
    if name == "radam":
        return addons.RectifiedAdam(lr)
    if name == SWA:
        return addons.SWA(adam(lr), start_averaging=first_averaged_step, average_period=period)
    return addons.Lookahead(adam(lr) if name == "lookahead" else addons.RectifiedAdam(lr))
