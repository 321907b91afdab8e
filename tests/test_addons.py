"""TensorFlow Addons: its ops equal those of seedtf, and its optimizers train, stop and resume.

Without Addons, only two things are tested here: the errors of the flags that need Addons, and the
optimizer lamb. ``make test-addons`` runs the other tests in an environment with Addons.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from seedtf.augment import fused as augment
from seedtf.augment import reference as reference_ops
from seedtf.augment.policy import Parameters, Policy
from seedtf.commands.main import main
from seedtf.compat.keras import build_optimizer
from seedtf.compat.tensorflow import has_addons, import_addons
from seedtf.data.pipeline import make_augmentation
from seedtf.data.sample.write import write_sample
from seedtf.model.network import build_network, load_model
from seedtf.runs.open import load_run, open_validation
from seedtf.training import callbacks as cb
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.state import (
    capture_state,
    load_newest_state,
    restore_optimizer,
    restore_weights,
)
from seedtf.training.trainer import Trainer

needs_addons = pytest.mark.skipif(
    not has_addons(), reason="TensorFlow Addons is not installed; make test-addons has it"
)
without_addons = pytest.mark.skipif(has_addons(), reason="TensorFlow Addons is installed")

OPTIMIZERS = ("lamb", "radam", "lookahead", "ranger", "swa")
SIZE = 16


# without TensorFlow Addons


@without_addons
@pytest.mark.parametrize(
    "flag", [*(f"--optimizer={name}" for name in OPTIMIZERS[1:]), "--augment_impl=addons"]
)
def test_a_flag_that_needs_addons_names_what_to_install(
    flag, tiny_folder, tmp_path, capsys
) -> None:
    run_dir = tmp_path / "run"
    code = main(
        ["train", f"--data_dir={tiny_folder}", "--weights=none", f"--run_dir={run_dir}", flag]
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2
    assert line.startswith(f"seedtf train: {flag}: needs TensorFlow Addons")
    assert "Python 3.10 or 3.11" in line
    assert "pip install 'seedtf[addons]'" in line
    assert not run_dir.exists()


@without_addons
def test_without_addons_lamb_is_the_optimizer_of_keras() -> None:
    assert type(make_optimizer("lamb", 0.1)) is keras.optimizers.Lamb


# the ops


def noise_images(count: int, height: int, width: int) -> tf.Tensor:
    """Images of random pixels, which are the hardest to resample."""
    draw = np.random.default_rng(count * height + width)
    return tf.constant(draw.integers(0, 256, (count, height, width, 3)), tf.uint8)


SIZES = [((16, 16), (16, 16)), ((24, 17), (12, 20)), ((12, 12), (29, 23))]
BATCH = 4


def float_lists(low: float, high: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high, width=32), min_size=BATCH, max_size=BATCH)


PARAMETERS = st.builds(
    lambda **lists: Parameters(
        **{name: tf.constant(each, tf.float32) for name, each in lists.items()}
    ),
    scale_x=float_lists(0.125, 1),
    scale_y=float_lists(0.125, 1),
    center_x=float_lists(0.125, 0.875),
    center_y=float_lists(0.125, 0.875),
    rotate=float_lists(-3.125, 3.125),
    shear=float_lists(-0.75, 0.75),
    flip_x=st.lists(st.sampled_from([-1.0, 1.0]), min_size=BATCH, max_size=BATCH),
    flip_y=st.lists(st.sampled_from([-1.0, 1.0]), min_size=BATCH, max_size=BATCH),
    brightness=float_lists(-128, 128),
    contrast=float_lists(0, 2),
    saturation=float_lists(0, 2),
    hue=float_lists(-3.125, 3.125),
)


@functools.cache
def compile_for(out_size: tuple[int, int]) -> Callable[[tf.Tensor, Parameters], tf.Tensor]:
    return tf.function(
        lambda images, parameters: augment.augment_images(images, parameters, out_size),
        jit_compile=True,
        autograph=False,
    )


@needs_addons
@given(st.sampled_from(SIZES), PARAMETERS)
def test_the_compiled_augmentation_equals_addons(sizes, parameters) -> None:
    in_size, out_size = sizes
    images = noise_images(BATCH, *in_size)
    ours = compile_for(out_size)(images, parameters).numpy()
    theirs = reference_ops.make_chain("addons")(images, parameters, out_size).numpy()
    assert ours.shape == theirs.shape == (BATCH, *out_size, 3)
    # Both mirror the image beyond its edges, so that the pixels there are equal too.
    assert np.abs(ours - theirs).max() <= 255e-3


@needs_addons
@given(PARAMETERS)
def test_the_color_matrix_equals_addons_op(parameters) -> None:
    images = tf.cast(noise_images(BATCH, 5, 6), tf.float32)
    plain = parameters._replace(brightness=tf.zeros([BATCH]), contrast=tf.ones([BATCH]))
    matrix = augment.color_matrices(plain)
    ours = tf.einsum("bij,bhwj->bhwi", matrix[:, :, :3], images) + matrix[:, None, None, :, 3]
    adjust = import_addons("this test").image.adjust_hsv_in_yiq
    for index, hue, saturation in zip(range(BATCH), plain.hue, plain.saturation, strict=True):
        theirs = adjust(images[index], hue, saturation)
        assert np.abs(ours[index] - theirs).max() <= 255e-5


@needs_addons
def test_augment_impl_fused_and_augment_impl_addons_give_the_same_pixels() -> None:
    policy = Policy(rotate=180, shear=30, saturation=1, hue=180, contrast=0.5).scaled(1)
    images, epoch = noise_images(6, SIZE, SIZE), tf.constant(3, tf.int64)
    records = tf.range(6, dtype=tf.int64)
    fused, chain = (make_augmentation(policy, 5, SIZE, impl) for impl in ("fused", "addons"))
    ours, theirs = fused(images, epoch, records), chain(images, epoch, records)
    assert np.abs(ours - theirs).max() <= 255e-3
    mapped = tf.data.Dataset.from_tensors((images, epoch, records)).map(chain)
    assert mapped.element_spec == tf.TensorSpec([6, SIZE, SIZE, 3], tf.float32)


# the optimizers


def training_data() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.uniform(0, 255, (32, SIZE, SIZE, 3)).astype(np.float32), draw.integers(0, 3, 32)


def compiled_trainer(name: str, policy: str = "float32") -> Trainer:
    keras.utils.set_random_seed(1)
    keras.mixed_precision.set_global_policy(policy)
    try:
        trainer = Trainer(
            build_network(model="tiny", num_classes=3, image_size=SIZE, weights="none")
        )
        optimizer = make_optimizer(name, 0.01, averaged_from=0, steps_per_epoch=2)
        trainer.compile(
            optimizer,
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return trainer


def train(trainer: Trainer, epochs: int) -> float:
    """Trains in batches of 8 and returns the loss of the last epoch."""
    images, labels = training_data()
    fitted = trainer.fit(images, labels, batch_size=8, epochs=epochs, shuffle=False, verbose=0)
    return fitted.history["loss"][-1]


@needs_addons
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "float32") for name in OPTIMIZERS),
        ("ranger", "mixed_float16"),
        ("swa", "mixed_bfloat16"),
    ],
)
def test_a_restored_optimizer_continues_exactly(name, policy) -> None:
    first = compiled_trainer(name, policy)
    first_loss = train(first, epochs=1)
    train(first, epochs=1)
    state = capture_state(first, epoch=2, step=0, facts={})
    last_loss = train(first, epochs=8)
    assert last_loss < first_loss

    second = compiled_trainer(name, policy)
    restore_weights(second.network, state)
    restore_optimizer(second, state)
    assert train(second, epochs=8) == last_loss
    final_states = [
        capture_state(trainer, epoch=10, step=0, facts={}) for trainer in (first, second)
    ]
    for group in ("weights", "optimizer"):
        assert are_equal(*(final.arrays[group] for final in final_states))


# A slot is a variable that an optimizer keeps for a weight, such as a moment.
@needs_addons
@pytest.mark.parametrize(
    ("name", "slots_per_variable", "policy"),
    [
        ("lamb", 2, "float32"),
        ("radam", 2, "float32"),
        ("lookahead", 3, "float32"),
        ("ranger", 3, "float32"),
        ("swa", 3, "float32"),
        ("swa", 3, "mixed_float16"),
    ],
)
def test_the_state_has_the_slots_of_an_optimizer_and_of_its_inner_optimizer(
    name, slots_per_variable, policy
) -> None:
    trainer = compiled_trainer(name, policy)
    build_optimizer(trainer.optimizer, trainer.network.trainable_variables)
    found = capture_state(trainer, epoch=0, step=0, facts={}).arrays["optimizer"]
    # Keras starts with a loss scale of 2**15.
    loss_scales = [each for each in found if each.shape == () and each == 2**15]
    assert len(loss_scales) == (policy == "mixed_float16")
    # Besides the slots: the step count, the loss scale, and the steps since the scale last changed.
    expected = (
        slots_per_variable * len(trainer.network.trainable_variables) + 1 + 2 * len(loss_scales)
    )
    assert len(found) == expected


@needs_addons
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_that_is_set_is_used_by_the_next_step(name) -> None:
    trainer = compiled_trainer(name)
    train(trainer, epochs=1)
    before = [each.numpy() for each in trainer.network.trainable_variables]
    trainer.optimizer.learning_rate = 0.0
    assert float(trainer.optimizer.learning_rate) == 0.0
    trainer.train_on_batch(*training_data())
    assert are_equal([each.numpy() for each in trainer.network.trainable_variables], before)


# the whole program


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("data") / "s", images_per_class=5, image_size=20)


def train_arguments(data: Path, run_dir: Path, *more: str) -> list[str]:
    small = ["--model=tiny", "--weights=none", f"--image_size={SIZE}", "--batch_size=16"]
    where = [f"--data_dir={data}", f"--run_dir={run_dir}"]
    return ["train", *where, *small, "--lr=0.01", "--schedule=cosine", *more]


def read_history(run_dir: Path) -> list[dict[str, str]]:
    with (run_dir / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights_of(run_dir: Path, name: str) -> list[np.ndarray]:
    return [each.numpy() for each in load_model(run_dir / "checkpoints" / name).weights]


def arrays_of_newest_state(run_dir: Path) -> dict[str, list[np.ndarray]]:
    state, warnings = load_newest_state(run_dir / "state")
    assert not warnings
    return state.arrays


def are_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return [each.tobytes() for each in first] == [each.tobytes() for each in second]


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Makes the next run stop before this step as if SIGTERM came; epoch and step count from 0."""
    original = cb.SaveState.on_train_batch_begin

    def begin(self: cb.SaveState, batch: int, logs: object = None) -> None:
        if (self._position.epoch, batch) == (epoch, step):
            self._stop.signal_name = "SIGTERM"
        original(self, batch, logs)

    monkeypatch.setattr(cb.SaveState, "on_train_batch_begin", begin)


@needs_addons
def test_a_run_with_addons_can_be_resumed_evaluated_exported_and_used_to_predict(
    data, tmp_path, monkeypatch, capsys
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    more = ("--epochs=3", "--freeze_epochs=1", "--optimizer=lookahead", "--augment_impl=addons")
    assert main(train_arguments(data, whole, *more)) == 0
    assert "lookahead around adam of TensorFlow Addons" in capsys.readouterr().out
    assert json.loads((whole / "env.json").read_text())["tensorflow-addons"].startswith("0.23")

    with monkeypatch.context() as patch:
        stop_at(patch, epoch=2, step=2)
        assert main(train_arguments(data, resumed, *more)) == 75
    assert main(["train", f"--resume={resumed}"]) == 0
    assert (resumed / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    resumed_arrays, whole_arrays = (arrays_of_newest_state(run) for run in (resumed, whole))
    for group in ("weights", "optimizer"):
        assert are_equal(resumed_arrays[group], whole_arrays[group])
    assert are_equal(weights_of(resumed, "best.keras"), weights_of(whole, "best.keras"))

    assert main(["evaluate", str(whole)]) == 0
    accuracy = json.loads((whole / "report" / "report.json").read_text())["accuracy"]
    best = min(read_history(whole), key=lambda row: float(row["val_loss"]))
    assert accuracy == pytest.approx(float(best["val_accuracy"]), abs=1e-6)
    table = tmp_path / "predictions.csv"
    assert main(["predict", str(whole), str(data), f"--out={table}"]) == 0
    assert len(table.read_text().splitlines()) == 1 + 12 * 5  # a header, and 12 classes of 5 images
    assert main(["export", str(whole)]) == 0
    (row,) = json.loads((whole / "export" / "parity.json").read_text())["rows"]
    assert (row["format"], row["kept"], row["runtime"]) == (
        "saved_model",
        True,
        f"tensorflow {tf.__version__}",
    )


def validation_loss(run_dir: Path, name: str) -> float:
    run = load_run(run_dir)
    store, records = open_validation(run)
    images = tf.cast(store.read(tf.constant(records)), tf.float32)
    probabilities = load_model(run_dir / "checkpoints" / name)(images, training=False).numpy()
    truth = probabilities[np.arange(len(records)), store.catalog.labels[records]]
    return float(-np.log(truth).mean())


@needs_addons
def test_swa_validates_and_saves_the_average_but_trains_without_it(
    data, tmp_path, monkeypatch, capsys
) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    trained: list[list[np.ndarray]] = []  # the weights without averaging at the end of each epoch
    original = cb.SaveState.on_epoch_end

    def record(self: cb.SaveState, epoch: int, logs: object = None) -> None:
        trained.append([each.numpy() for each in self.model.network.trainable_variables])
        original(self, epoch, logs)

    more = ("--epochs=5", "--optimizer=swa")
    with monkeypatch.context() as patch:
        patch.setattr(cb.SaveState, "on_epoch_end", record)
        assert main(train_arguments(data, whole, *more)) == 0
    assert "averaged at the end of every epoch from epoch 4 on" in capsys.readouterr().out
    # The saved models are the averaged ones that were validated.
    rows = read_history(whole)
    lowest = min(float(row["val_loss"]) for row in rows)
    assert validation_loss(whole, "last.keras") == pytest.approx(
        float(rows[-1]["val_loss"]), rel=1e-4
    )
    assert validation_loss(whole, "best.keras") == pytest.approx(lowest, rel=1e-4)
    last = load_model(whole / "checkpoints" / "last.keras")
    for index, variable in enumerate(last.trainable_variables):
        mean = (trained[3][index] + trained[4][index]) / 2
        np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-5, atol=1e-6)
    # The state for resuming has the weights without averaging.
    network = build_network(
        model="tiny", num_classes=len(load_run(whole).class_names), image_size=SIZE, weights="none"
    )
    restore_weights(network, load_newest_state(whole / "state")[0])
    assert are_equal([each.numpy() for each in network.trainable_variables], trained[4])
    statistics = zip(network.non_trainable_variables, last.non_trainable_variables, strict=True)
    assert not any(np.array_equal(one.numpy(), other.numpy()) for one, other in statistics)

    with monkeypatch.context() as patch:
        stop_at(patch, epoch=4, step=1)
        assert main(train_arguments(data, resumed, *more)) == 75
    assert main(["train", f"--resume={resumed}"]) == 0
    assert (resumed / "history.csv").read_bytes() == (whole / "history.csv").read_bytes()
    assert are_equal(weights_of(resumed, "last.keras"), weights_of(whole, "last.keras"))
