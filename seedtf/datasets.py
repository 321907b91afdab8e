"""``image_datasets``: the input pipeline of ``seedtf train``, for your own Keras script."""

from __future__ import annotations

import math
import os
from typing import NamedTuple

import tensorflow as tf

from seedtf.augment.mixing import Mixing, make_mixer
from seedtf.augment.policy import Policy as Augment
from seedtf.config.train_config import TrainConfig
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import eval_dataset, make_augmentation, train_dataset
from seedtf.errors import UserError
from seedtf.training.setup import load_training_data

__all__ = ["ImageDatasets", "image_datasets"]


class ImageDatasets(NamedTuple):
    """The result of ``image_datasets``, a tuple ``(train, val, class_names)``.

    Attributes:
        train: augmented batches of one epoch. The first iteration over the dataset yields the first
            epoch, the second iteration the second epoch, and so on; each epoch has another order.
            Images are float32 ``[B, S, S, 3]`` in 0–255. Labels are int32 ``[B]``; with ``mixing``
            they are probabilities, float32 ``[B, K]``.
        val: batches of the validation images, which are not augmented. Each image occurs once, so the
            last batch may be smaller. Images are float32 ``[B, S, S, 3]`` in 0–255, labels int32
            ``[B]``.
        class_names: the names of the K classes; label i means ``class_names[i]``.
    """

    train: tf.data.Dataset
    val: tf.data.Dataset
    class_names: tuple[str, ...]


def image_datasets(
    data_dir: str | os.PathLike[str],
    *,
    image_size: int,
    batch_size: int = 32,
    augment: Augment | None = Augment(),  # noqa: B008  immutable, so all calls may share it
    mixing: Mixing | None = None,
    val_fraction: float = 0.15,
    val_dir: str | os.PathLike[str] = "",
    labels_csv: str | os.PathLike[str] = "",
    cache: str = "auto",
    seed: int = 0,
) -> ImageDatasets:
    """Makes training and validation batches of a folder of images, as ``seedtf train`` does.

    Both datasets have a known cardinality, so ``fit`` needs no ``steps_per_epoch``. The same arguments
    give the same batches. A training epoch has only full batches. The images that are left over at its
    end are not used in this epoch; they are other images in each epoch, because the order changes.

    Args:
        data_dir: a folder of class folders or one of the other layouts of ``--data_dir``; ``sample``
            for the embedded sample images.
        image_size: S, the side of the square images in pixels, 8 to 2048.
        batch_size: images in a batch.
        augment: the ranges of the random operations, a ``seedtf.Augment``; None for no augmentation.
            ``Augment(rotate=180)`` has the ranges of ``--recipe=finetune``.
        mixing: the settings of MixUp, CutMix and random erasing, a ``seedtf.Mixing``; None to use
            none of the three.
        val_fraction: the fraction of each class that is used for validation, in (0, 1).
        val_dir: folder of the validation images; if it is given, ``val_fraction`` is not used.
        labels_csv: a table of files and labels, for images that are not in class folders.
        cache: where decoded images are kept: ``auto``, ``ram``, ``disk`` or ``off``.
        seed: the root seed of the split, the order, the augmentation and the mixing.

    Raises:
        UserError: anything that the user can correct, such as a folder without images.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> for species, color in [("maize", "green"), ("wheat", "yellow")]:
        ...     Path("field", species).mkdir(parents=True)
        ...     for number in range(5):
        ...         Image.new("RGB", (20 + number, 16), color).save(f"field/{species}/{number}.png")
        >>> train, val, class_names = image_datasets("field", image_size=16, batch_size=4)
        layout    class folders in field
        >>> images, labels = next(iter(train))
        >>> images.shape, labels.dtype.name, class_names
        (TensorShape([4, 16, 16, 3]), 'int32', ('maize', 'wheat'))
        >>> int(train.cardinality()), int(val.cardinality())
        (2, 1)
    """
    config = TrainConfig(
        data_dir=os.fspath(data_dir),
        image_size=image_size,
        batch_size=batch_size,
        val_fraction=val_fraction,
        val_dir=os.fspath(val_dir),
        labels_csv=os.fspath(labels_csv),
        cache=cache,
        seed=seed,
    )
    data = load_training_data(config)
    store, split, class_names = data.store, data.split, data.store.catalog.class_names
    if batch_size > len(split.train):
        raise UserError(
            f"batch_size={batch_size}: there are {len(split.train)} training images; pass a smaller "
            "batch_size"
        )
    train = train_dataset(
        store,
        split.train,
        BatchIndices(len(split.train), batch_size, seed=seed),
        make_augmentation(augment or Augment().scaled(0.0), seed, image_size, "fused"),
        mixer=make_mixer(mixing, seed, len(class_names)) if mixing else None,
        one_epoch=True,
    )
    val = eval_dataset(store, split.val, batch_size)
    num_val_batches = math.ceil(len(split.val) / batch_size)
    val = val.apply(tf.data.experimental.assert_cardinality(num_val_batches))
    return ImageDatasets(train, val, class_names)
