"""TensorFlow has a GPU kernel for every operation of a train step without XLA."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from seedtf.compat.gpu_kernels import ops_without_gpu_kernel
from seedtf.config.train_config import TrainConfig
from seedtf.seeds import uniform
from seedtf.training.train import open_session

pytestmark = pytest.mark.skipif(
    not tf.test.is_built_with_cuda(), reason="this build of TensorFlow has no GPU kernels"
)


@pytest.mark.parametrize(
    "flags",
    [
        {"precision": "mixed_bfloat16", "mixup": 0.2, "cutmix": 1.0, "ema_horizon": 0.1},
        {"precision": "mixed_float16", "augment_strength": "auto", "class_weights": "auto"},
    ],
    ids=lambda flags: flags["precision"],
)
def test_every_operation_of_a_step_without_xla_has_a_gpu_kernel(
    tiny_folder: Path, tmp_path: Path, flags: dict[str, object]
) -> None:
    policy_before = tf.keras.mixed_precision.global_policy()
    config = TrainConfig(
        data_dir=str(tiny_folder),
        run_dir=str(tmp_path / "run"),
        model="tiny",
        weights="none",
        image_size=16,
        batch_size=4,
        epochs=2,
        placement="device",
        jit_compile="off",
        **flags,
    )
    try:
        with open_session(config) as session:
            session.compile_phase(0)
            session.set_image_size(16)
            (batch,) = session.train_batches(0).take(1)
            step = tf.function(session.trainer.train_step, autograph=False)
            assert ops_without_gpu_kernel(step.get_concrete_function(batch)) == []
    finally:
        tf.keras.mixed_precision.set_global_policy(policy_before)


def test_an_operation_without_gpu_kernel_is_found_in_nested_functions() -> None:
    table = tf.zeros([4, 2], tf.uint8)

    def gather(rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(table, rows)

    compiled = tf.function(gather, jit_compile=True)
    nested = tf.function(
        lambda rows: (tf.function(gather)(rows), tf.nn.relu(tf.cast(rows, tf.float32)))
    )
    rows = tf.TensorSpec([3], tf.int64)
    gather_op = "GatherV2(Taxis=int32, Tindices=int64, Tparams=uint8)"
    # XLA compiles the operations of a function with jit_compile, so that they need no kernel.
    for function, expected in ((tf.function(compiled), []), (nested, [gather_op])):
        assert ops_without_gpu_kernel(function.get_concrete_function(rows)) == expected


def test_every_operation_of_the_random_numbers_has_a_gpu_kernel() -> None:
    seed = tf.constant([1, 2], tf.int64)
    draw = tf.function(lambda records: uniform(seed, records, 12))
    records = tf.TensorSpec([8], tf.int64)
    assert ops_without_gpu_kernel(draw.get_concrete_function(records)) == []
