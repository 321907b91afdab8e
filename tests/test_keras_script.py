"""The parts of seedtf for Keras scripts and notebooks: datasets, learning rates, curves, results."""

from __future__ import annotations

import csv
import dataclasses
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import seedtf
from seedtf.errors import UserError
from seedtf.training.optim.schedules import cyclic_decay, smooth_decay


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten green and ten yellow images of 12 × 12 pixels; the value of blue differs within a class."""
    root = tmp_path_factory.mktemp("field")
    for name, color in (("maize", (0, 200, 0)), ("wheat", (200, 200, 0))):
        (root / name).mkdir()
        for number in range(10):
            pixels = np.full([12, 12, 3], color, np.uint8)
            pixels[..., 2] = number * 10
            keras.utils.save_img(root / name / f"{number}.png", pixels, scale=False)
    return root


@pytest.fixture(autouse=True)
def _own_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build_small_model(num_outputs: int = 1) -> keras.Model:
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    heads = [
        keras.layers.Dense(2, activation="softmax", name=f"head{n}")(pooled)
        for n in range(num_outputs)
    ]
    return keras.Model(image, heads if num_outputs > 1 else heads[0])


def test_each_iteration_yields_every_image_in_a_new_order(folder: Path) -> None:
    train, val, class_names = seedtf.image_datasets(
        folder, image_size=12, batch_size=4, augment=None, val_fraction=0.2
    )
    assert class_names == ("maize", "wheat")
    assert (int(train.cardinality()), int(val.cardinality())) == (4, 1)

    def iterate() -> list[tuple[int, int]]:
        """The label and the blue of each image, in one iteration over the training images."""
        return [
            (int(label), round(float(blue)))
            for images, labels in train
            for label, blue in zip(labels, images[:, 0, 0, 2], strict=True)
        ]

    first, second = iterate(), iterate()
    assert len(set(first)) == 16
    assert set(first) == set(second)
    assert first != second
    # Without augmentation, the pixels are those of the files.
    assert all(blue % 10 == 0 for _, blue in first)
    images, labels = next(iter(val))
    assert images.shape == (4, 12, 12, 3)
    blues = images[:, 0, 0, 2].numpy().round().astype(int).tolist()
    assert not set(zip(labels.numpy().tolist(), blues, strict=True)) & set(first)


def test_the_same_arguments_give_the_same_augmented_batches(folder: Path) -> None:
    def batches() -> list[np.ndarray]:
        train = seedtf.image_datasets(
            folder, image_size=8, batch_size=8, augment=seedtf.Augment(rotate=180), seed=1
        ).train
        return [images.numpy() for _ in range(2) for images, _ in train]

    first, again = batches(), batches()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[2])  # the first batches of two epochs


def test_mixed_labels_are_distributions(folder: Path) -> None:
    mixing = seedtf.Mixing(mixup=0.4)
    train = seedtf.image_datasets(folder, image_size=8, batch_size=8, mixing=mixing).train
    labels = next(iter(train))[1].numpy()
    assert labels.shape == (8, 2)
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, rtol=1e-6)


def test_a_batch_larger_than_the_training_set_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"batch_size=64: there are \d+ training images"):
        seedtf.image_datasets(folder, image_size=8, batch_size=64)


def test_fit_follows_the_schedule_and_draws_curves(folder: Path, tmp_path: Path) -> None:
    train, val, _ = seedtf.image_datasets(folder, image_size=8, batch_size=8)
    model = build_small_model()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        seedtf.callbacks.CyclicDecay(0.1, cycle_epochs=2, min_lr=0.01, per_step=False),
        seedtf.callbacks.LiveCurves(tmp_path / "mine"),
    ]
    history = model.fit(
        train, validation_data=val, epochs=3, verbose=0, callbacks=callbacks
    ).history
    planned = [
        cyclic_decay(e, lr=0.1, min_lr=0.01, cycle_epochs=2, cycle_decay=1.0) for e in range(3)
    ]
    np.testing.assert_allclose(history["lr"], planned)
    with (tmp_path / "mine" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_accuracy"]) for row in rows] == history["val_accuracy"]
    assert [float(row["lr"]) for row in rows] == history["lr"]
    assert (tmp_path / "mine" / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "mine" / "live.html").read_text(encoding="utf-8")
    assert "3 / 3" in page
    assert "finished" in page
    assert "steps / s" in page


def test_the_learning_rate_of_a_model_with_two_outputs_changes_at_every_step(
    tmp_path: Path,
) -> None:
    model = build_small_model(num_outputs=2)
    model.compile("sgd", "sparse_categorical_crossentropy")
    rates = []

    class RecordRates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    images, labels = np.zeros([8, 8, 8, 3], np.float32), np.zeros(8)
    curves = seedtf.callbacks.LiveCurves(tmp_path / "two")
    model.fit(
        images,
        [labels, labels],
        batch_size=4,
        epochs=2,
        verbose=0,
        callbacks=[seedtf.callbacks.SmoothDecay(0.1, min_lr=0.001), RecordRates(), curves],
    )
    expected = [smooth_decay(step / 2, lr=0.1, min_lr=0.001, epochs=2) for step in range(4)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    rows = (tmp_path / "two" / "history.csv").read_text().splitlines()
    loss, accuracy = rows[1].split(",")[2:4]
    assert math.isfinite(float(loss))
    assert accuracy == "nan"
    assert (tmp_path / "two" / "curves.png").is_file()


def test_a_learning_rate_that_changes_every_step_needs_a_known_number_of_steps() -> None:
    model = build_small_model()
    model.compile("sgd", "sparse_categorical_crossentropy")

    def batches():
        yield np.zeros([2, 8, 8, 3], np.float32), np.zeros(2)

    signature = (tf.TensorSpec([2, 8, 8, 3]), tf.TensorSpec([2]))
    unknown_length = tf.data.Dataset.from_generator(batches, output_signature=signature)
    with pytest.raises(ValueError, match="Pass steps_per_epoch to fit"):
        model.fit(unknown_length, verbose=0, callbacks=[seedtf.callbacks.OneCycle(0.1)])


def test_live_curves_refuse_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is a run folder of seedtf train"):
        seedtf.callbacks.LiveCurves(tmp_path)


def test_a_result_shows_its_curves_in_a_notebook(tmp_path: Path) -> None:
    result = seedtf.TrainResult("a<b", 3, 2, 0.5, 0.75, (0.5, 0.9), 1.0, 10.0, "")
    html = result._repr_html_()
    assert "a&lt;b" in html
    assert "best epoch 2 of 3: validation accuracy 0.7500" in html
    assert "<img" not in html
    (tmp_path / "curves.png").write_bytes(b"png")
    assert "data:image/png" in dataclasses.replace(result, run_dir=str(tmp_path))._repr_html_()
