"""Keras: as in its guides to transfer learning and to image classification; ``best`` has the recipe."""

from __future__ import annotations

import keras
import keras_hub
from keras import layers
from race_runner import Race, main


def network(
    race: Race,
    classes: int,
    augment: list[layers.Layer],
    dropout: float,
    training: bool | None = None,
) -> keras.Model:
    """EfficientNet-Lite0 and a new head; with ``training=False`` its batch norms never change."""
    body = keras_hub.models.Backbone.from_preset(race.network, load_weights=race.pretrained)
    inputs = x = keras.Input((race.image_size, race.image_size, 3))
    for layer in augment:
        x = layer(x)
    x = layers.Rescaling(1 / 128, offset=-127 / 128)(x)
    x = layers.GlobalAveragePooling2D()(body(x, training=training))
    outputs = layers.Dense(classes, activation="softmax")(layers.Dropout(dropout)(x))
    model = keras.Model(inputs, outputs)
    model.body = body
    return model


def default(race: Race) -> None:
    """A frozen body for half of the epochs, then all layers at a low rate; or all from scratch."""
    size = (race.image_size, race.image_size)
    train = keras.utils.image_dataset_from_directory(race.data / "train", image_size=size)
    val = keras.utils.image_dataset_from_directory(race.data / "val", image_size=size)
    augment = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)]
    training = False if race.pretrained else None
    model = network(race, len(train.class_names), augment, dropout=0.2, training=training)
    callbacks = [keras.callbacks.CSVLogger(race.out / "history.csv", append=True)]
    callbacks += [keras.callbacks.LambdaCallback(on_train_batch_end=race.first_step)]
    loss, half = "sparse_categorical_crossentropy", 0
    if race.pretrained:
        half = race.epochs // 2
        model.body.trainable = False
        model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
        model.fit(train, validation_data=val, epochs=half, callbacks=callbacks)
        model.body.trainable = True
    model.compile(
        keras.optimizers.Adam(1e-5 if race.pretrained else 3e-4), loss, metrics=["accuracy"]
    )
    model.fit(
        train, validation_data=val, initial_epoch=half, epochs=race.epochs, callbacks=callbacks
    )


def best(race: Race) -> None:
    """All layers from the first step, AdamW with warm-up and cosine decay, and decoded images kept."""
    size = (race.image_size, race.image_size)
    options = {"image_size": size, "label_mode": "categorical"}
    train = keras.utils.image_dataset_from_directory(
        race.data / "train", batch_size=None, **options
    )
    val = keras.utils.image_dataset_from_directory(race.data / "val", **options)
    classes, images = len(train.class_names), train.cardinality().numpy()
    train = train.cache().shuffle(images).batch(32, drop_remainder=True).prefetch(2)
    augment = [layers.RandomFlip(), layers.RandomRotation(0.5, fill_mode="reflect")]
    model = network(race, classes, augment, dropout=0.0)
    steps, peak = race.epochs * train.cardinality().numpy(), 2.5e-3 if race.pretrained else 1e-3
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, int(0.7 * steps), warmup_target=peak, warmup_steps=int(0.3 * steps)
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(optimizer, loss, metrics=["accuracy"])
    callbacks = [keras.callbacks.CSVLogger(race.out / "history.csv")]
    callbacks += [keras.callbacks.LambdaCallback(on_train_batch_end=race.first_step)]
    model.fit(train, validation_data=val.cache(), epochs=race.epochs, callbacks=callbacks)


if __name__ == "__main__":
    main({"default": default, "best": best})
