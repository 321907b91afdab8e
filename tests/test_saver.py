"""Checkpoints and states are written in order while training continues; each has one step's values."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from seedtf.errors import DivergedError
from seedtf.model.network import build_network, load_model
from seedtf.training.saver import Saver
from seedtf.training.state import StateFolder, load_newest_state
from seedtf.training.trainer import Trainer


@pytest.fixture
def trainer() -> Trainer:
    network = build_network(model="tiny", num_classes=3, image_size=8, weights="none")
    trainer = Trainer(network)
    trainer.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", jit_compile=False
    )
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def set_weights_to_zero(trainer: Trainer) -> None:
    for variable in trainer.network.variables:
        variable.assign(tf.zeros_like(variable))


def copy_weights(trainer: Trainer) -> list[np.ndarray]:
    return [each.numpy() for each in trainer.network.variables]


def save(saver: Saver, trainer: Trainer, *paths: Path) -> None:
    """Saves checkpoints with these paths, and a state after one complete epoch."""
    for path in paths:
        saver.save_checkpoint(trainer.network, path)
    saver.save_state(trainer, epoch=1, step=0, facts={})


def test_files_have_the_weights_of_the_save_call_even_if_training_continues(
    trainer, tmp_path
) -> None:
    saver, expected = Saver(StateFolder(tmp_path / "state")), copy_weights(trainer)
    best, last = tmp_path / "best.keras", tmp_path / "last.keras"
    saver.save_checkpoint(trainer.network, best)
    saver.save_checkpoint(trainer.network, last)
    saver.save_state(trainer, epoch=1, step=0, facts={"history": "x"})
    set_weights_to_zero(trainer)
    saver.wait()
    saver.close()
    for path in (best, last):
        for actual, value in zip(load_model(path).variables, expected, strict=True):
            np.testing.assert_array_equal(actual, value)
    state, warnings = load_newest_state(tmp_path / "state")
    assert state is not None and not warnings and state.facts == {"history": "x"}
    for actual, value in zip(state.arrays["weights"], expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    assert not any(each.numpy().any() for each in trainer.network.variables)


def test_with_averaged_checkpoints_the_state_holds_the_trained_weights(trainer, tmp_path) -> None:
    saver = Saver(StateFolder(tmp_path / "state"), averaged=True)
    averaged = copy_weights(trainer)
    saver.save_checkpoint(trainer.network, tmp_path / "last.keras")
    set_weights_to_zero(trainer)  # in place of trained weights
    saver.save_state(trainer, epoch=1, step=0, facts={})
    saver.wait()
    saver.close()
    np.testing.assert_array_equal(load_model(tmp_path / "last.keras").variables[0], averaged[0])
    state, _ = load_newest_state(tmp_path / "state")
    assert state is not None and not state.arrays["weights"][0].any()


def test_the_state_is_written_after_its_checkpoints(trainer, tmp_path, monkeypatch) -> None:
    best, last = tmp_path / "best.keras", tmp_path / "last.keras"
    folder, existing_at_write = StateFolder(tmp_path / "state"), []
    monkeypatch.setattr(
        folder, "write", lambda state: existing_at_write.append([best.exists(), last.exists()])
    )
    saver = Saver(folder)
    save(saver, trainer, best, last)
    saver.wait()
    saver.close()
    assert existing_at_write == [[True, True]]


def test_a_failed_write_is_raised_by_the_next_call_and_no_state_follows(trainer, tmp_path) -> None:
    saver = Saver(StateFolder(tmp_path / "state"))
    save(saver, trainer, tmp_path / "gone" / "last.keras")
    with pytest.raises(OSError, match="gone"):
        save(saver, trainer, tmp_path / "last.keras")
    saver.close()
    assert load_newest_state(tmp_path / "state") == (None, [])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weights_are_not_written(trainer, tmp_path, value) -> None:
    saver = Saver(StateFolder(tmp_path / "state"))
    kernel = trainer.network.get_layer("logits").kernel
    kernel.assign(np.where(np.arange(kernel.shape[1]) == 1, value, kernel.numpy()))
    save(saver, trainer, tmp_path / "last.keras")
    # After one complete epoch, the state is at step 0 of epoch 2.
    with pytest.raises(DivergedError, match="epoch 2, step 0: a value of the state is not finite"):
        saver.wait()
    saver.close()
    assert not (tmp_path / "last.keras").exists()
    assert load_newest_state(tmp_path / "state") == (None, [])
