"""``seedtf benchmark step``: times the train step alone, and compares it with a plain Keras model."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, replace

from seedtf.commands.arguments import parse_config
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.config.network_flags import JIT_COMPILE, PRECISIONS
from seedtf.errors import UserError

__all__ = ["StepConfig", "run"]

_CHOICES = {"precision": PRECISIONS, "jit_compile": JIT_COMPILE}


@dataclass(frozen=True)
class StepConfig(Flags):
    """The flags of ``seedtf benchmark step``; lists are separated by commas."""

    model: str = option(
        "ResNet50", "Name of a keras.applications network, in upper or lower case, or tiny."
    )
    image_size: str = option("224", "Sides of the images in pixels, 8 to 2048, such as 96,160.")
    batch_size: int = option(32, "Images per step, 1 or more.", low=1)
    precision: str = option("auto", f"Number formats: any of {', '.join(PRECISIONS)}.")
    jit_compile: str = option(
        "auto", f"Whether to compile with XLA: any of {', '.join(JIT_COMPILE)}."
    )
    stock: bool = option(
        True, "Also time the keras.applications network with the defaults of Keras."
    )
    rounds: int = option(
        5, "Rounds, each of which times every variant, 1 to 1000.", low=1, high=1000
    )
    steps: int = option(4, "Steps per variant and round, 1 to 10000.", low=1, high=10000)
    threads: int = option(0, "Compute threads, 1 to 1024, or 0 for one per core.", low=0, high=1024)
    json: bool = option(False, "Print one JSON object instead of the table.")

    def check_together(self) -> None:
        """Raises UserError if a list contains a value that is not allowed."""
        super().check_together()
        for name, choices in _CHOICES.items():
            for value in getattr(self, name).split(","):
                if value not in choices:
                    raise UserError(f"--{name}={value}: choose from {', '.join(choices)}")
        self.sizes()

    def sizes(self) -> list[int]:
        """The sizes in ``image_size``; raises UserError if one is not a number or is out of range."""
        words = self.image_size.split(",")
        if not all(word.isdecimal() and 8 <= int(word) <= 2048 for word in words):
            raise UserError(f"--image_size={self.image_size}: pass whole numbers from 8 to 2048")
        return [int(word) for word in words]


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    config = parse_config(StepConfig, "benchmark step", arguments)
    # The plain Keras model runs without the variables that import_tensorflow sets.
    environment = dict(os.environ)
    import_tensorflow()
    import keras
    import tensorflow as tf

    from seedtf.benchmark.step import Variant, compare_steps
    from seedtf.model.families import check_image_size
    from seedtf.model.network import resolve_model_name
    from seedtf.runs.records import describe_devices

    name = resolve_model_name(config.model)
    os.environ["TF_NUM_INTRAOP_THREADS"] = environment["TF_NUM_INTRAOP_THREADS"] = str(
        config.threads
    )
    variants = []
    for size in config.sizes():
        check_image_size(name, size)
        variant = Variant(name, size, config.batch_size)
        if config.stock and hasattr(keras.applications, name):
            variants.append(replace(variant, stock=True))
        for precision in config.precision.split(","):
            for jit in config.jit_compile.split(","):
                variants.append(replace(variant, precision=precision, jit_compile=jit))
    times = compare_steps(variants, config.rounds, config.steps, environment)
    result = {
        "model": name,
        "batch_size": config.batch_size,
        "device": describe_devices(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "steps": [dataclasses.asdict(row) for row in times],
    }
    width = max(len(row.variant) for row in times)
    table = [
        f"model     {name}, constant batches of {config.batch_size}",
        f"device    {result['device']}; TensorFlow {tf.__version__}, Keras {keras.__version__}",
        f"{'':{width}} {'ms':>9} {'images/s':>10} {'CPU ms':>9} {'speed':>7}",
        *(
            f"{row.variant:{width}} {row.milliseconds:9.1f} {row.images_per_second:10.1f} "
            f"{row.cpu_milliseconds:9.0f} {row.relative:7.2f}"
            for row in times
        ),
    ]
    print_benchmark(result, table, as_json=config.json)
    return 0
