"""Augmentation in the train step gives the same pixels and history as on the host.

``--placement=host`` augments in the input pipeline, ``--placement=device`` in the train step. With
``device``, the decoded images are either resident (all are in the device's memory) or streamed (each
batch is copied to the device).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from seedtf.augment.policy import Policy
from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import scan_folder
from seedtf.data.dataset import Dataset
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import device_dataset, make_augmentation, train_dataset
from seedtf.data.split import Split
from seedtf.data.store import CachePlan, Store, build_store
from seedtf.errors import UserError
from seedtf.training.batches import make_step_preprocessing, resident_images
from seedtf.training.callbacks import learning_rate
from seedtf.training.machine import Machine
from seedtf.training.plan import Placement, Plan, make_plan
from seedtf.training.resolve import resolve
from seedtf.training.train import train_and_evaluate

SIZE, SEED = 16, 4
RECORDS = np.array([0, 1, 2, 5, 6, 7, 9, 12, 14, 17], np.int64)


@pytest.fixture(scope="module")
def store(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    plan = CachePlan("ram", 0, "")
    return build_store(scan_folder(tiny_folder), SIZE, plan, tmp_path_factory.mktemp("cache"))


def choose_placement(store: Store, num_gpus: int, replicas: int, **flags: object) -> Placement:
    """The placement on ``num_gpus`` GPUs or, if this is 0, on ``replicas`` CPU devices."""
    machine = Machine(gpus=((8, 0),) * num_gpus, cpu_devices=1 if num_gpus else replicas)
    strategy = "mirrored" if replicas > 1 else "none"
    return plan_on(machine, store, strategy=strategy, **flags).placement


def plan_on(machine: Machine, store: Store, gpu_memory: int = 0, **flags: object) -> Plan:
    config = TrainConfig(data_dir="x", model="tiny", image_size=SIZE, batch_size=4, **flags)
    split = Split(RECORDS[:8], RECORDS[8:])
    dataset = Dataset(store, split, CachePlan("ram", 0, ""), len(store.catalog), 0, 0)
    return make_plan(resolve(config, machine), dataset, gpu_memory)


@pytest.mark.parametrize("streamed", [False, True])
def test_the_train_step_augments_to_the_same_pixels_as_the_host(
    store: Store, streamed: bool
) -> None:
    augmentation = make_augmentation(Policy(rotate=90.0), SEED, SIZE, "fused")
    order = BatchIndices(len(RECORDS), 4, seed=SEED)
    host = train_dataset(store, RECORDS, order, augmentation, start_step=1)
    device = device_dataset(store, RECORDS, order, with_images=streamed, start_step=1)
    placement = choose_placement(store, 0, 2 if streamed else 1, placement="device")
    assert placement.resident is not streamed
    images = resident_images(store) if placement.resident else None
    whole_batch = make_augmentation(Policy(rotate=90.0), SEED, SIZE, "fused", whole_batch=True)
    prepare = make_step_preprocessing(whole_batch, images=images)
    step = tf.function(prepare, jit_compile=True)  # as in a compiled train step
    num_steps = 0
    for (images, labels), batch in zip(host.take(4), device.take(4), strict=True):
        step_images, step_labels = step(batch)
        np.testing.assert_allclose(step_images, images, atol=1e-3)
        np.testing.assert_array_equal(step_labels, labels)
        assert ("image" in batch[0]) is streamed
        num_steps += 1
    assert num_steps == 4  # An epoch has two steps, so the steps 1 to 4 are in three epochs.


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("strength", [1.0, "auto"])
def test_augmentation_on_the_device_and_on_the_host_give_the_same_history(
    strength: float | str,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With --augment_strength=auto, each epoch then has another strength.
    monkeypatch.setattr(learning_rate, "next_strength", lambda rows, *_, **__: 0.5 + len(rows))
    histories = []
    for placement in ("host", "device"):
        run = tmp_path / placement
        train_and_evaluate(
            TrainConfig(
                data_dir=str(tiny_folder),
                run_dir=str(run),
                model="tiny",
                weights="none",
                image_size=SIZE,
                batch_size=4,
                epochs=2,
                recipe="original",
                optimizer="sgd",
                placement=placement,
                augment_strength=strength,
            )
        )
        histories.append(np.loadtxt(run / "history.csv", delimiter=",", skiprows=1))
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-5)
    output = capsys.readouterr().out
    assert "; on the host, as requested" in output
    assert "in the train step, which is fed only indices" in output


@pytest.mark.parametrize(
    ("flags", "num_gpus", "replicas", "expected"),
    [
        ({}, 0, 1, "host"),
        ({}, 1, 1, "device, resident"),
        ({}, 2, 2, "device"),
        ({"augment_impl": "tf_image"}, 1, 1, "host"),
        ({"data_service": "a:1"}, 1, 1, "host"),
        ({"placement": "host"}, 1, 1, "host"),
        ({"placement": "device"}, 0, 1, "device, resident"),
    ],
)
def test_the_flags_and_the_number_of_gpus_decide_the_placement(
    store: Store, flags: dict[str, str], num_gpus: int, replicas: int, expected: str
) -> None:
    placement = choose_placement(store, num_gpus, replicas, **flags)
    chosen = f"{placement.name}, resident" if placement.resident else placement.name
    assert chosen == expected
    assert placement.on_device is expected.startswith("device")


@pytest.mark.parametrize("flags", [{"augment_impl": "tf_image"}, {"data_service": "a:1"}])
def test_placement_device_is_refused_with_a_flag_that_needs_the_host(
    store: Store, flags: dict[str, str]
) -> None:
    with pytest.raises(UserError, match=f"--placement=device: --{next(iter(flags))}"):
        choose_placement(store, 0, 1, placement="device", **flags)


NEEDS = "needs a train step that looks up its images itself"


@pytest.mark.parametrize(
    ("machine", "flags", "message"),
    [
        (Machine(keras_2=True), {}, "needs Keras 3; install seedtf without [addons], or pass 1"),
        (
            Machine(cpu_devices=2),
            {"strategy": "mirrored"},
            f"{NEEDS}, which is possible on one device, not on 2; pass --strategy=none, or pass 1",
        ),
        (
            Machine(gpus=((8, 0),)),
            # The images take 18 * 16 * 16 * 3 = 13,824 bytes, and may take a third of 6,000.
            {"gpu_memory": 6000},
            f"{NEEDS}, but the images take 0.0 MB and may take 0.0 MB of the GPU's memory; lower "
            "--image_size, or pass 1",
        ),
        (
            Machine(),
            {"placement": "host"},
            f"{NEEDS}; pass --placement=device with --cache=ram or disk, or pass 1",
        ),
    ],
)
def test_the_error_for_several_steps_per_call_says_what_they_need(
    store: Store, machine: Machine, flags: dict[str, object], message: str
) -> None:
    flags = {"placement": "device", **flags}
    with pytest.raises(UserError) as refused:
        plan_on(machine, store, steps_per_execution=10, **flags)
    assert str(refused.value) == f"--steps_per_execution=10: {message}"
    assert plan_on(machine, store, steps_per_execution=1, **flags).steps_per_execution == 1
