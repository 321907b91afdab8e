"""``image_datasets``: the input pipeline of ``seedtf train``, for your own Keras script."""

from __future__ import annotations

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
        train: augmented batches of one epoch; each iteration over it yields the next epoch, in another
            order. Images are float32 ``[B, S, S, 3]`` in 0–255. Labels are int32 ``[B]``, or float32
            ``[B, K]`` with ``mixing``.
        val: batches of the validation images, each image once and not augmented; the last batch may
            be short. Images are float32 ``[B, S, S, 3]`` in 0–255, labels int32 ``[B]``.
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
    give the same batches. A training epoch leaves out the images that do not fill a last batch; the
    order decides which images these are, so they change from epoch to epoch.

    Args:
        data_dir: a folder of class folders or one of the other layouts of ``--data_dir``; ``sample``
            for the embedded sample images.
        image_size: S, the side of the square images in pixels, 8 to 2048.
        batch_size: images in a batch.
        augment: a ``seedtf.Augment``, the range of each random operation; None for no augmentation.
        mixing: a ``seedtf.Mixing``: MixUp, CutMix and Random Erasing; None for none of them.
        val_fraction: the fraction of each class that is used for validation, in (0, 1).
        val_dir: folder of the validation images; ``val_fraction`` is then not used.
        labels_csv: table of files and labels, instead of class folders.
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
    val_batches = -(-len(split.val) // batch_size)
    val = val.apply(tf.data.experimental.assert_cardinality(val_batches))
    return ImageDatasets(train, val, class_names)
