"""``--steps_per_execution``: several steps in one call of the train function train as single steps do.

A run that was stopped between two calls resumes exactly, and the check for a loss of NaN names the step
within a call. A chunk holds the batches of one call.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from figures import replace_figures

from seedtf.compat.keras import KERAS_2, build_metrics, build_optimizer, metrics_variables
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import device_chunks, device_dataset
from seedtf.data.store import keep_in_memory
from seedtf.errors import DivergedError, StoppedError, UserError
from seedtf.model.network import build_network
from seedtf.training.callbacks import EachStep, Position, SaveState, StopOnNaN
from seedtf.training.optim.step_rates import StepRates
from seedtf.training.state import load_newest_state
from seedtf.training.train import train_and_evaluate
from seedtf.training.trainer import LazyMetric, Trainer

FLAGS: dict[str, Any] = {
    "model": "tiny",
    "weights": "none",
    "image_size": 16,
    "batch_size": 3,
    "epochs": 2,
    "placement": "device",
}


def test_chunks_have_the_batches_in_order_and_end_at_the_end_of_an_epoch() -> None:
    order = BatchIndices(17, 3, seed=4)  # five batches in an epoch
    batches = [(int(epoch), rows.numpy().tolist()) for epoch, rows in order.dataset().take(20)]
    for length, first_step in ((1, 0), (2, 3), (9, 1), (4, 12)):
        found: list[tuple[int, list[int]]] = []
        for epoch, indices, count in order.chunks(length, first_step):
            assert indices.shape == (length, 3)
            assert int(count) == min(length, 5 - (first_step + len(found)) % 5)
            found += [(int(epoch), rows) for rows in indices.numpy().tolist()[: int(count)]]
            if len(found) >= 8:
                break
        assert found == batches[first_step : first_step + len(found)]


def test_chunks_have_the_labels_of_single_batches() -> None:
    """The labels may be the soft ones of ``--teacher`` and ``--pseudo_labels``."""
    images, hard = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6, dtype=np.int32) % 2
    catalog = Catalog(Path(), [f"{row}.png" for row in range(6)], hard, ("elm", "oak"), ())
    soft = np.random.default_rng(0).random((6, 2), np.float32)
    for soft_labels in (None, soft):
        store = replace(keep_in_memory(catalog, images), soft_labels=soft_labels)
        order, records = BatchIndices(5, 2, seed=1), np.array([0, 1, 3, 4, 5])
        single = device_dataset(store, records, order, with_images=False).take(2)
        ((_, chunk), _), *_ = device_chunks(store, records, order, length=2).take(1)
        np.testing.assert_array_equal(chunk, [labels for _, labels in single])


@pytest.fixture(scope="module")
def train(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Path]]:
    """A function that trains with ``FLAGS`` and others, or resumes a run; returns the run folder."""

    def train_tiny(resume: str = "", **flags: Any) -> Path:
        folder = tmp_path_factory.mktemp("runs") / "run"
        new = TrainConfig(data_dir=str(tiny_folder), run_dir=str(folder), **{**FLAGS, **flags})
        return Path(train_and_evaluate(TrainConfig(resume=resume) if resume else new).run_dir)

    with pytest.MonkeyPatch.context() as patch:
        replace_figures(patch.setattr)
        yield train_tiny


@pytest.fixture(scope="module")
def whole(train: Callable[..., Path]) -> Path:
    """An uninterrupted run with two steps per call and five per epoch; the third call has one step."""
    return train(steps_per_execution=2)


def read_history(folder: Path) -> bytes:
    return (folder / "history.csv").read_bytes()


@pytest.mark.skipif(KERAS_2, reason="Keras 2.15 makes its own train function")
def test_steps_in_one_call_train_as_single_steps_do() -> None:
    draw = np.random.default_rng(0)
    images = draw.uniform(0, 255, (5, 4, 16, 16, 3)).astype(np.float32)
    labels = draw.integers(0, 3, (5, 4)).astype(np.int32)
    single, several = (make_trainer() for _ in range(2))
    several.steps_per_call = 3
    for first, second in zip(several.network.variables, single.network.variables, strict=True):
        first.assign(second)
    batches = zip(images, labels, strict=True)
    steps = [single.train_function(iter(dataset_of([batch]))) for batch in batches]
    expected = np.array([[float(step["loss"]), float(step["accuracy"])] for step in steps])
    several.make_train_function(force=True)
    found = []
    for start, count in ((0, 3), (3, 2)):  # the second call has two steps and is filled up to three
        rows = [*range(start, start + count), *[0] * (3 - count)]
        call = dataset_of([((images[rows], labels[rows]), np.int32(count))])
        logs = several.train_function(iter(call))
        found += [*zip(logs["loss"].numpy()[:count], logs["accuracy"].numpy()[:count], strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for first, second in zip(several.network.variables, single.network.variables, strict=True):
        np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=1e-4, atol=1e-6)
    assert int(several.optimizer.iterations) == 5


def make_trainer() -> Trainer:
    trainer = Trainer(build_network(model="tiny", num_classes=3, image_size=16, weights="none"))
    trainer.rates = StepRates(5)
    trainer.rates.start_epoch([0.1, 0.2, 0.05, 0.1, 0.3])
    trainer.compile_for(keras.optimizers.SGD(0.5), jit_compile=False)
    build_optimizer(trainer.optimizer, trainer.trainable_variables)
    build_metrics(trainer)
    trainer.reset_metrics()
    trainer.make_train_function()
    return trainer


def dataset_of(elements: list[Any]) -> tf.data.Dataset:
    """A dataset of the elements, which have equal shapes."""
    stacked = tf.nest.map_structure(lambda *parts: np.stack(parts), *elements)
    return tf.data.Dataset.from_tensor_slices(stacked)


@pytest.mark.skipif(KERAS_2, reason="Keras 2.15 makes its own train function")
def test_a_run_that_was_stopped_between_two_calls_resumes_exactly(
    train: Callable[..., Path], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SaveState.on_train_batch_begin

    def stop_in_epoch_2(self: SaveState, batch: int, logs: Any = None) -> None:
        if (self._position.epoch, batch) == (1, 2):
            signal.raise_signal(signal.SIGTERM)
        original(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(SaveState, "on_train_batch_begin", stop_in_epoch_2)
        with pytest.raises(StoppedError, match="step 2 of epoch 2") as stopped:
            train(steps_per_execution=2)
    resumed = train(resume=str(stopped.value).rpartition("--resume=")[2])
    assert read_history(resumed) == read_history(whole)
    states = [load_newest_state(folder / "state")[0] for folder in (resumed, whole)]
    assert states[0] is not None and states[1] is not None
    for group, arrays in states[1].arrays.items():
        for found, expected in zip(states[0].arrays[group], arrays, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_callbacks_see_each_step_of_a_call_and_no_padding_after_the_last_step() -> None:
    seen: list[Any] = []
    position = Position(resumed_epoch=1, resumed_step=3)
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(("begin", position.step)),
        on_train_batch_end=lambda batch, logs: seen.append((position.step_of(batch), logs["loss"])),
        on_epoch_end=lambda epoch, logs: seen.append(("end", position.step, logs)),
    )
    each = EachStep([position, watch], steps=3, steps_per_call=2)
    each.on_epoch_begin(1)
    each.on_train_batch_begin(0)
    each.on_train_batch_end(0, {"loss": tf.constant([0.5, 0.25])})
    each.on_train_batch_begin(1)
    each.on_train_batch_end(1, {"loss": tf.constant([0.125, 9.0])})  # 9.0 is padding
    each.on_epoch_end(1, {"loss": 1.0})
    assert seen == [
        *[("begin", 3), (3, 0.5), (4, 0.25)],
        *[("begin", 5), (5, 0.125), ("end", 5, {"loss": 1.0})],
    ]


def test_the_step_of_the_first_non_finite_loss_in_a_call_is_named() -> None:
    position = Position()
    stop = StopOnNaN(position, lambda epoch, step: 0.5 + step, lambda epoch, step: [f"file {step}"])
    each = EachStep([position, stop], steps=8, steps_per_call=4)
    each.on_epoch_begin(2)
    each.on_train_batch_begin(1)
    with pytest.raises(DivergedError, match=r"epoch 3, step 7: .* rate of 6\.5; batch: file 6"):
        each.on_train_batch_end(1, {"loss": np.float32([1.0, 1.0, np.nan, np.nan])})


def test_a_third_call_waits_for_the_first_metrics_and_an_error_of_a_callback_is_raised() -> None:
    computed = [threading.Event() for _ in range(3)]
    seen: list[float] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: record(logs["loss"]))

    def record(loss: float) -> None:
        seen.append(loss)
        if loss == 2.0:
            raise DivergedError("the second")

    class PendingMetric:
        def __init__(self, call: int) -> None:
            self.call = call

        def numpy(self) -> np.ndarray:
            assert computed[self.call].wait(60.0)
            return np.float32(self.call + 1)

    each = EachStep([watch], steps=9, calls_ahead=2)
    for call in (0, 1):
        each.on_train_batch_begin(call)
        each.on_train_batch_end(call, {"loss": PendingMetric(call)})
    third = threading.Thread(target=each.on_train_batch_begin, args=(2,))
    third.start()
    third.join(0.1)
    assert third.is_alive() and seen == []
    computed[0].set()
    third.join(10.0)
    assert not third.is_alive() and seen == [1.0]
    computed[1].set()
    with pytest.raises(DivergedError, match="the second"):
        each.on_epoch_end(0)
    each.on_train_end()


def test_keras_leaves_lazy_metrics_on_the_device() -> None:
    trainer = make_trainer()
    trainer.lazy_metrics = True
    for make in (trainer.make_train_function, trainer.make_test_function):
        make(force=True)
    images, labels = np.zeros((4, 16, 16, 3), np.float32), np.zeros(4, np.int32)
    seen: list[Any] = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: seen.append(logs))
    batches = dataset_of([(images, labels)] * 2)
    trainer.fit(batches, validation_data=batches, callbacks=[watch], verbose=0)
    assert len(seen) == 2 and all(type(each["loss"]) is LazyMetric for each in seen)
    logs = trainer.history.history
    assert all(np.isfinite(logs[name]).all() for name in ("loss", "val_loss", "val_accuracy"))


@pytest.mark.skipif(KERAS_2, reason="with Keras 2.15 the error asks for Keras 3")
def test_several_steps_per_call_with_images_from_the_host_are_refused(
    train: Callable[..., Path],
) -> None:
    for flags in ({"placement": "host"}, {"cache": "off"}):
        with pytest.raises(
            UserError, match="--steps_per_execution=2: needs a train step that looks up its images"
        ):
            train(steps_per_execution=2, **flags)


def test_metrics_can_be_built_before_the_first_step() -> None:
    trainer = Trainer(build_network(model="tiny", num_classes=3, image_size=16, weights="none"))
    trainer.compile_for(keras.optimizers.SGD(0.1), jit_compile=False)
    before = [variable.numpy() for variable in trainer.network.variables]
    build_metrics(trainer)
    assert len(metrics_variables(trainer)) == 4
    trainer.reset_metrics()
    assert not any(float(variable.numpy()) for variable in metrics_variables(trainer))
    for variable, value in zip(trainer.network.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.skipif(KERAS_2, reason="Keras 2.15 makes its own functions")
def test_a_short_validation_batch_is_filled_up_without_changing_the_result() -> None:
    images = np.random.default_rng(0).uniform(0, 255, (10, 16, 16, 3)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(10, dtype=np.int32) % 3)).batch(
        4
    )
    network = build_network(model="tiny", num_classes=3, image_size=16, weights="none")
    results = []
    for padded_size in (0, 4):
        trainer = Trainer(network)
        trainer.pad_validation_to = padded_size
        trainer.compile_for(keras.optimizers.SGD(0.1), jit_compile=True)
        results.append(trainer.evaluate(batches, verbose=0, return_dict=True))
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert trainer.test_function is not None
    compiled = trainer._compiled_call
    assert compiled is not None and compiled.experimental_get_tracing_count() == 1
