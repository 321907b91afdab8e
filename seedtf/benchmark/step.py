"""Times train steps of seedtf and of stock Keras on a constant batch, without an input pipeline."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.model.families import check_image_size
from seedtf.model.network import build_network, resolve_model_name
from seedtf.model.precision import choose_jit, choose_precision
from seedtf.training.machine import gpu_compute_capabilities
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.trainer import Trainer

__all__ = [
    "StepTime",
    "Variant",
    "compare_steps",
    "make_step",
    "request_steps",
    "start_variant",
    "start_worker",
]

_WARM_UP_STEPS = 2
_CHILD = "seedtf.benchmark.children.step"

Step = Callable[[], float]


@dataclass(frozen=True)
class Variant:
    """One configuration of the train step.

    Attributes:
        model: a name of ``available_models()``.
        image_size: side of the images in pixels.
        batch_size: images in a step.
        precision: a value of ``--precision``. For stock Keras, ``auto`` means float32.
        jit_compile: a value of ``--jit_compile``. For stock Keras, ``auto`` means Keras's default.
        stock: whether to time stock Keras instead of seedtf: the network of keras.applications with
            Keras's own ``compile`` and train step.
        classes: number of classes.
        optimizer: a value of ``--optimizer``. Stock Keras always uses Adam.
    """

    model: str
    image_size: int
    batch_size: int
    precision: str = "auto"
    jit_compile: str = "auto"
    stock: bool = False
    classes: int = 12
    optimizer: str = "adam"

    @property
    def name(self) -> str:
        """The name of the variant in the table."""
        implementation = "stock Keras" if self.stock else "seedtf"
        return f"{implementation}, {self.image_size}², {self.precision}, XLA {self.jit_compile}"


@dataclass(frozen=True)
class StepTime:
    """The measured times of a variant.

    Attributes:
        variant: the name of the variant.
        milliseconds: median wall-clock time of a step, including the time to read its loss.
        images_per_second: the batch size divided by the median time.
        cpu_milliseconds: median CPU time of a step, summed over all threads of the process.
        relative: speed relative to the first variant with the same image size; 2 is twice as fast.
    """

    variant: str
    milliseconds: float
    images_per_second: float
    cpu_milliseconds: float
    relative: float


def compare_steps(
    variants: Sequence[Variant], rounds: int, steps: int, stock_environment: Mapping[str, str]
) -> list[StepTime]:
    """Times variants of the train step in turn, so that a change of the machine's load affects all.

    Each variant has its own process, which waits while another variant is timed.

    Args:
        variants: the variants to time.
        rounds: how often each variant has its turn.
        steps: number of steps in a turn.
        stock_environment: the environment variables for the processes of stock Keras, without those
            that seedtf sets for TensorFlow.

    Returns:
        The times of each variant, in the order of ``variants``.

    Raises:
        UserError: a variant cannot be built.
    """
    wall_seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    cpu_seconds: dict[Variant, list[float]] = {variant: [] for variant in variants}
    with contextlib.ExitStack() as stack:
        workers = {
            variant: stack.enter_context(
                start_variant(variant, stock_environment if variant.stock else os.environ)
            )
            for variant in variants
        }
        # All workers build and trace their model before the first one is timed.
        for worker in workers.values():
            request_steps(worker, _WARM_UP_STEPS)
        for _ in range(rounds):
            for variant, worker in workers.items():
                for wall, cpu in request_steps(worker, steps):
                    wall_seconds[variant].append(wall)
                    cpu_seconds[variant].append(cpu)
    return _summarize(wall_seconds, cpu_seconds)


def start_variant(
    variant: Variant, environment: Mapping[str, str]
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """A context manager of a worker process that runs steps of a variant on request."""
    command = [sys.executable, "-m", _CHILD, json.dumps(asdict(variant))]
    # The workers share a GPU. Without TF_FORCE_GPU_ALLOW_GROWTH, the first worker would take nearly all
    # memory of the GPU.
    defaults = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return start_worker(command, {**defaults, **environment})


@contextlib.contextmanager
def start_worker(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen]:
    """Starts a process that ``request_steps`` can use, and kills it after the ``with`` block."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as worker:
        try:
            yield worker
        finally:
            worker.kill()


def request_steps(worker: subprocess.Popen, steps: int) -> list[tuple[float, float]]:
    """The wall-clock and CPU seconds of each of ``steps`` steps, which a worker runs now.

    Raises:
        UserError: the worker reported an error, or it has ended.
    """
    assert worker.stdin is not None and worker.stdout is not None  # ``start_worker`` makes pipes
    worker.stdin.write(f"{steps}\n")
    worker.stdin.flush()
    reply = json.loads(worker.stdout.readline() or '"a benchmark process ended unexpectedly"')
    if isinstance(reply, str):
        raise UserError(reply)
    return reply


def make_step(variant: Variant) -> Step:
    """A function that runs one train step of a variant and returns the loss.

    The model is built, compiled and traced before this function returns. Keras's global precision
    policy is changed.

    Raises:
        UserError: the network is unknown, or does not support images this small.
    """
    model = _build_stock_model(variant) if variant.stock else _build_seedtf_model(variant)
    rng = np.random.default_rng(0)
    shape = (variant.batch_size, variant.image_size, variant.image_size, 3)
    images = rng.integers(0, 256, shape).astype(np.float32)
    labels = (np.arange(variant.batch_size) % variant.classes).astype(np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    if tf.config.list_physical_devices("GPU"):  # a step must not wait for the copy of its batch
        batches = batches.apply(tf.data.experimental.prefetch_to_device("/gpu:0"))
    model.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    iterator = iter(batches)
    return lambda: float(np.mean(model.train_function(iterator)["loss"]))


def _build_seedtf_model(variant: Variant) -> keras.Model:
    """A model built and compiled as seedtf trains it."""
    capabilities = gpu_compute_capabilities()
    precision = choose_precision(variant.precision, capabilities)
    keras.mixed_precision.set_global_policy(precision.policy)
    network = build_network(
        model=variant.model,
        num_classes=variant.classes,
        image_size=variant.image_size,
        weights="none",
        bn_momentum=0.9,
    )
    trainer = Trainer(network)
    trainer.compile_for(
        make_optimizer(variant.optimizer, 1e-3, averaged_from=0, steps_per_epoch=100),
        jit_compile=choose_jit(variant.jit_compile, len(capabilities)).enabled,
    )
    return trainer


def _build_stock_model(variant: Variant) -> keras.Model:
    """A model built and compiled with Keras's defaults."""
    name = resolve_model_name(variant.model)
    check_image_size(name, variant.image_size)
    policy = "float32" if variant.precision == "auto" else variant.precision
    keras.mixed_precision.set_global_policy(policy)
    image = keras.Input((variant.image_size, variant.image_size, 3))
    constructor = getattr(keras.applications, name)
    body = constructor(include_top=False, weights=None, input_tensor=image)
    pooled = keras.layers.GlobalAveragePooling2D()(body.output)
    output = keras.layers.Dense(variant.classes, activation="softmax", dtype="float32")(pooled)
    model = keras.Model(image, output)
    options = {} if variant.jit_compile == "auto" else {"jit_compile": variant.jit_compile == "on"}
    model.compile(
        keras.optimizers.Adam(1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        **options,
    )
    return model


def _summarize(
    wall_seconds: Mapping[Variant, list[float]], cpu_seconds: Mapping[Variant, list[float]]
) -> list[StepTime]:
    reference: dict[int, float] = {}
    rows = []
    for variant, times in wall_seconds.items():
        seconds = statistics.median(times)
        rows.append(
            StepTime(
                variant=variant.name,
                milliseconds=1e3 * seconds,
                images_per_second=variant.batch_size / seconds,
                cpu_milliseconds=1e3 * statistics.median(cpu_seconds[variant]),
                relative=reference.setdefault(variant.image_size, seconds) / seconds,
            )
        )
    return rows
