"""seedtf: from a folder of labelled images to a served image classifier, in TensorFlow.

The data of an image passes through the package in this order::

    files -> images/ and data/ (catalog, split, store) -> order -> augment/ -> batches
          -> model/ -> training/ -> runs/ -> evaluation/ -> export/

Each command has a module in ``commands/`` that reads its flags and calls a function of the library.

``import seedtf`` alone imports no module of the package. A public name is imported when it is first
used (PEP 562), so a script that needs only ``TrainConfig`` starts without TensorFlow.

Example:
    >>> import seedtf
    >>> seedtf.TrainConfig(data_dir="sample").model
    'ResNet50'
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedtf import callbacks
    from seedtf.augment.mixing import Mixing
    from seedtf.augment.policy import Policy as Augment
    from seedtf.config.train_config import TrainConfig
    from seedtf.datasets import image_datasets
    from seedtf.evaluation.classifier import open_classifier as load
    from seedtf.evaluation.embed import embed_images
    from seedtf.evaluation.evaluate_run import evaluate_run
    from seedtf.export.export import export_run
    from seedtf.probing.probe import probe
    from seedtf.training.lr_finder.run import find_learning_rate as lr_find
    from seedtf.training.train import TrainResult, train_and_evaluate

__version__ = "0.1.0"

__all__ = [
    "Augment",
    "Mixing",
    "TrainConfig",
    "TrainResult",
    "__version__",
    "callbacks",
    "embed_images",
    "evaluate_run",
    "export_run",
    "image_datasets",
    "load",
    "lr_find",
    "probe",
    "train_and_evaluate",
]

# Public name -> (module, name in that module); an empty name stands for the module itself.
_PUBLIC = {
    "Augment": ("seedtf.augment.policy", "Policy"),
    "Mixing": ("seedtf.augment.mixing", "Mixing"),
    "TrainConfig": ("seedtf.config.train_config", "TrainConfig"),
    "TrainResult": ("seedtf.training.train", "TrainResult"),
    "callbacks": ("seedtf.callbacks", ""),
    "embed_images": ("seedtf.evaluation.embed", "embed_images"),
    "evaluate_run": ("seedtf.evaluation.evaluate_run", "evaluate_run"),
    "export_run": ("seedtf.export.export", "export_run"),
    "image_datasets": ("seedtf.datasets", "image_datasets"),
    "load": ("seedtf.evaluation.classifier", "open_classifier"),
    "lr_find": ("seedtf.training.lr_finder.run", "find_learning_rate"),
    "probe": ("seedtf.probing.probe", "probe"),
    "train_and_evaluate": ("seedtf.training.train", "train_and_evaluate"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use and stores it as an ordinary attribute."""
    if name not in _PUBLIC:
        close = difflib.get_close_matches(name, _PUBLIC, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
    if name != "TrainConfig":
        # All names but TrainConfig may import Keras and Matplotlib. The user's settings of these two
        # libraries may not suit seedtf, so they are checked or overridden first.
        importlib.import_module("seedtf.compat.keras_settings").check_keras_settings()
        importlib.import_module("seedtf.compat.matplotlib").import_matplotlib()
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
