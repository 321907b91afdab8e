"""Trains EfficientNet-Lite0 with Keras for scripts/benchmark_race.py.

``default`` trains as Keras's guides do, ``best`` with the recipe of scripts/measured/race.md.
"""

from __future__ import annotations

import keras
import keras_hub
from keras import layers
from race_runner import RaceArgs, main


def build_network(
    args: RaceArgs,
    num_classes: int,
    augment: list[layers.Layer],
    dropout: float,
    training: bool | None = None,
) -> keras.Model:
    """EfficientNet-Lite0 with a new head for ``num_classes`` classes."""
    body = keras_hub.models.Backbone.from_preset(args.network, load_weights=args.pretrained)
    inputs = x = keras.Input((args.image_size, args.image_size, 3))
    for layer in augment:
        x = layer(x)
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(x)
    # ``training=False``, as in the guide to transfer learning, has no effect during ``fit`` in Keras 3:
    # the batch normalisation layers use inference mode only while they are frozen (keras-team/keras,
    # issue 20285).
    x = layers.GlobalAveragePooling2D()(body(x, training=training))
    outputs = layers.Dense(num_classes, activation="softmax")(layers.Dropout(dropout)(x))
    model = keras.Model(inputs, outputs)
    model.body = body
    return model


def default(args: RaceArgs) -> None:
    """Pretrained: half of the epochs with a frozen body, then all layers. From scratch: all layers."""
    size = (args.image_size, args.image_size)
    train = keras.utils.image_dataset_from_directory(args.data / "train", image_size=size)
    val = keras.utils.image_dataset_from_directory(args.data / "val", image_size=size)
    augment = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)]
    training = False if args.pretrained else None
    model = build_network(args, len(train.class_names), augment, dropout=0.2, training=training)
    callbacks = [keras.callbacks.CSVLogger(args.out / "history.csv", append=True)]
    callbacks += [keras.callbacks.LambdaCallback(on_train_batch_end=args.record_first_step)]
    loss, frozen_epochs = "sparse_categorical_crossentropy", 0
    if args.pretrained:
        frozen_epochs = args.epochs // 2
        model.body.trainable = False
        model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
        model.fit(train, validation_data=val, epochs=frozen_epochs, callbacks=callbacks)
        model.body.trainable = True
    model.compile(
        keras.optimizers.Adam(1e-5 if args.pretrained else 3e-4), loss, metrics=["accuracy"]
    )
    model.fit(
        train, validation_data=val, initial_epoch=frozen_epochs, epochs=args.epochs, callbacks=callbacks
    )  # fmt: skip


def best(args: RaceArgs) -> None:
    """Trains all layers from the first step with AdamW, warm-up and cosine decay; caches the images."""
    size = (args.image_size, args.image_size)
    options = {"image_size": size, "label_mode": "categorical"}
    train = keras.utils.image_dataset_from_directory(
        args.data / "train", batch_size=None, **options
    )
    val = keras.utils.image_dataset_from_directory(args.data / "val", **options)
    num_classes, num_images = len(train.class_names), train.cardinality().numpy()
    train = train.cache().shuffle(num_images).batch(32, drop_remainder=True).prefetch(2)
    augment = [layers.RandomFlip(), layers.RandomRotation(0.5, fill_mode="reflect")]
    model = build_network(args, num_classes, augment, dropout=0.0)
    steps, peak = args.epochs * train.cardinality().numpy(), 2.5e-3 if args.pretrained else 1e-3
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, int(0.7 * steps), warmup_target=peak, warmup_steps=int(0.3 * steps)
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"])
    callbacks = [keras.callbacks.CSVLogger(args.out / "history.csv")]
    callbacks += [keras.callbacks.LambdaCallback(on_train_batch_end=args.record_first_step)]
    model.fit(train, validation_data=val.cache(), epochs=args.epochs, callbacks=callbacks)


if __name__ == "__main__":
    main({"default": default, "best": best})
