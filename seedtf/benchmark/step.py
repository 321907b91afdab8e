"""The bare train step on one constant batch: no pipeline, no callbacks, beside stock Keras."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from seedtf.errors import UserError
from seedtf.model.network import build_network, resolve_model_name
from seedtf.model.precision import choose_jit, choose_precision
from seedtf.training.machine import gpu_compute_capabilities
from seedtf.training.optim.optimizers import make_optimizer
from seedtf.training.trainer import Trainer

__all__ = [
    "StepTime",
    "Variant",
    "answer",
    "ask",
    "compare_steps",
    "make_step",
    "worker",
    "worker_loop",
    "worker_process",
]

_WARM_UP_STEPS = 2

Step = Callable[[], float]


@dataclass(frozen=True)
class Variant:
    """One way to take a step.

    Attributes:
        model: a name of ``available_models()``.
        image_size: side of the images in pixels.
        batch_size: images in a step.
        precision: a value of ``--precision``; for the stock network float32 under ``auto``.
        jit_compile: a value of ``--jit_compile``; for the stock network Keras's own ``auto``.
        stock: the network of keras.applications as ``compile`` and ``fit`` take it, not seedtf's.
        classes: width of the head.
        optimizer: a value of ``--optimizer``.
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
        """For the table."""
        who = "stock Keras" if self.stock else "seedtf"
        return f"{who}, {self.image_size}², {self.precision}, XLA {self.jit_compile}"


@dataclass(frozen=True)
class StepTime:
    """What was measured of a variant.

    Attributes:
        variant: its name.
        milliseconds: median of a step, its result read.
        images_per_second: at that median.
        cpu_milliseconds: median CPU time of the process in a step, all threads together.
        relative: how many times as fast as the first variant of this image size.
    """

    variant: str
    milliseconds: float
    images_per_second: float
    cpu_milliseconds: float
    relative: float


def compare_steps(
    variants: Sequence[Variant], rounds: int, steps: int, plain: Mapping[str, str]
) -> list[StepTime]:
    """Times every variant: ``rounds`` turns of ``steps`` steps each, all variants in every turn.

    Each has a process of its own, which waits while another is timed.

    Args:
        variants: what to time.
        rounds: turns.
        steps: steps of a variant in a turn.
        plain: the environment of the stock variants, without what seedtf sets for TensorFlow.

    Raises:
        UserError: a variant cannot be built.
    """
    walls: dict[Variant, list[float]] = {each: [] for each in variants}
    processor: dict[Variant, list[float]] = {each: [] for each in variants}
    with contextlib.ExitStack() as stack:
        workers = {
            each: stack.enter_context(worker(each, plain if each.stock else os.environ))
            for each in variants
        }
        for process in workers.values():  # one after the other builds, traces and warms up
            ask(process, _WARM_UP_STEPS)
        for _ in range(rounds):
            for variant, process in workers.items():
                for wall, cpu in ask(process, steps):
                    walls[variant].append(wall)
                    processor[variant].append(cpu)
    return _summary(walls, processor)


def worker(
    variant: Variant, environment: Mapping[str, str]
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    """A process that takes steps of a variant when it is asked to."""
    code = "from seedtf.benchmark.step import answer; answer()"
    command = [sys.executable, "-c", code, json.dumps(asdict(variant))]
    return worker_process(command, {"TF_CPP_MIN_LOG_LEVEL": "3", **environment})


@contextlib.contextmanager
def worker_process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen]:
    """A process whose program ends in ``worker_loop``; killed in the end."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen, steps: int) -> list[tuple[float, float]]:
    """Has a worker take ``steps`` steps: wall and CPU seconds of each.

    Raises:
        UserError: what the worker says in place of times, or that it ended.
    """
    assert process.stdin is not None and process.stdout is not None  # both are pipes
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or '"a measured process ended"')
    if isinstance(answer, str):
        raise UserError(answer)
    return answer


def answer() -> None:
    """A worker's whole life: builds its variant, then takes as many steps as each line says."""
    try:
        step = make_step(Variant(**json.loads(sys.argv[1])))
    except UserError as error:
        print(json.dumps(str(error)), flush=True)
        return
    worker_loop(step)


def worker_loop(step: Callable[[], object]) -> None:
    """Takes as many steps as each line of stdin says, and answers with the times ``ask`` returns."""
    for line in sys.stdin:
        taken = []
        for _ in range(int(line)):
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            taken.append((time.perf_counter() - wall, time.process_time() - cpu))
        print(json.dumps(taken), flush=True)


def make_step(variant: Variant) -> Step:
    """Builds, compiles and traces; the function takes one step and returns the loss.

    Sets Keras's global precision.

    Raises:
        UserError: an unknown network, or one that takes no images so small.
    """
    trainer = _stock(variant) if variant.stock else _ours(variant)
    draw = np.random.default_rng(0)
    shape = (variant.batch_size, variant.image_size, variant.image_size, 3)
    images = draw.integers(0, 256, shape).astype(np.float32)
    labels = (np.arange(variant.batch_size) % variant.classes).astype(np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    trainer.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    iterator = iter(batches)
    return lambda: float(np.mean(trainer.train_function(iterator)["loss"]))


def _ours(variant: Variant) -> keras.Model:
    """As ``Session`` trains."""
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


def _stock(variant: Variant) -> keras.Model:
    """As a script writes it that takes Keras's defaults."""
    policy = "float32" if variant.precision == "auto" else variant.precision
    keras.mixed_precision.set_global_policy(policy)
    image = keras.Input((variant.image_size, variant.image_size, 3))
    constructor = getattr(keras.applications, resolve_model_name(variant.model))
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


def _summary(
    walls: Mapping[Variant, list[float]], processor: Mapping[Variant, list[float]]
) -> list[StepTime]:
    first: dict[int, float] = {}
    found = []
    for variant, times in walls.items():
        seconds = statistics.median(times)
        base = first.setdefault(variant.image_size, seconds)
        found.append(
            StepTime(
                variant.name,
                1e3 * seconds,
                variant.batch_size / seconds,
                1e3 * statistics.median(processor[variant]),
                base / seconds,
            )
        )
    return found
