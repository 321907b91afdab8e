"""``seedtf benchmark startup``: time to the first step, time to build the cache, memory of a run."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError

__all__ = ["StartupConfig", "run"]

# The last quarter of the epochs is compared with the second quarter. The first epoch is not counted, so
# with fewer epochs the two quarters would be the same epoch.
_MIN_EPOCHS = 4


@dataclass(frozen=True)
class StartupConfig(Flags):
    """The flags of ``seedtf benchmark startup``."""

    data_dir: str = option("", "Folder with one sub-folder of images per class.")
    model: str = option("ResNet50", "Name of a keras.applications network, in upper or lower case.")
    image_size: int = option(
        224, "Side in pixels that images are resized to, 8 to 2048.", low=8, high=2048
    )
    batch_size: int = option(32, "Images per step, 1 or more.", low=1)
    rounds: int = option(3, "Repetitions of each measurement, 1 to 100.", low=1, high=100)
    epochs: int = option(
        20,
        f"Epochs over which the growth of memory is measured, {_MIN_EPOCHS} or more; 0 skips it.",
        low=0,
    )
    json: bool = option(False, "Print one JSON object instead of the table.")

    def check_together(self) -> None:
        """Raises UserError if ``data_dir`` is missing or ``epochs`` is too small."""
        super().check_together()
        if not self.data_dir:
            raise UserError("--data_dir is missing; pass a folder of images")
        if 0 < self.epochs < _MIN_EPOCHS:
            raise UserError(
                f"--epochs={self.epochs}: too few to measure the growth of memory; pass {_MIN_EPOCHS} "
                "or more, or 0 to skip it"
            )


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    config = parse_config(StartupConfig, "benchmark startup", arguments)
    import_tensorflow()
    import keras

    from seedtf.benchmark import startup
    from seedtf.data.catalog import scan_folder
    from seedtf.model.families import check_image_size
    from seedtf.model.network import resolve_model_name
    from seedtf.runs.records import describe_devices

    name = resolve_model_name(config.model)
    check_image_size(name, config.image_size)
    if not hasattr(keras.applications, name):
        raise UserError(
            f"--model={name}: the plain Keras script to compare with needs a network of "
            "keras.applications; pass one of them"
        )
    num_classes = len(scan_folder(config.data_dir).class_names)
    with tempfile.TemporaryDirectory() as cache:
        flags = [
            f"--data_dir={config.data_dir}",
            f"--image_size={config.image_size}",
            f"--batch_size={config.batch_size}",
            *("--cache=disk", f"--cache_dir={cache}", "--weights=none"),
        ]
        keras_arguments = (name, config.image_size, config.batch_size, num_classes)
        start = startup.measure_start([*flags, f"--model={name}"], keras_arguments, config.rounds)
        # The smallest network is enough: a larger network needs more memory, but memory does not grow
        # more from epoch to epoch.
        growth = (
            startup.measure_growth([*flags, "--model=tiny"], config.epochs)
            if config.epochs
            else None
        )
    cache_builds = [
        startup.measure_cache_build(config.data_dir, config.image_size, mode, config.rounds)
        for mode in ("ram", "disk")
    ]
    result = {
        "device": describe_devices(),
        "start": dataclasses.asdict(start),
        "builds": [
            {**dataclasses.asdict(build), "memory_ratio": build.memory_ratio}
            for build in cache_builds
        ],
        "growth": None if growth is None else {"sizes": growth.sizes, "share": growth.fraction},
    }
    table = [
        f"device    {result['device']}",
        f"start     {start.seedtf:.2f} s to the first step with a warm cache; a plain Keras script "
        f"{start.plain:.2f} s; ratio {start.ratio:.3f}",
        *(
            f"cache     {build.mode}: {build.seconds:.2f} s; decoding the files without a cache "
            f"{build.pass_seconds:.2f} s; ratio {build.ratio:.3f}; at its peak, the build added "
            f"{build.peak_bytes / 2**20:.0f} MiB of memory for {build.decoded_bytes / 2**20:.0f} MiB "
            f"of pixels; ratio {build.memory_ratio:.3f}"
            for build in cache_builds
        ),
    ]
    if growth is not None:
        table.append(
            f"memory    {growth.fraction:+.2%} from the second to the last quarter of {config.epochs} "
            f"epochs; {growth.sizes[-1] / 2**20:.0f} MiB at the start of the last epoch"
        )
    print_benchmark(result, table, as_json=config.json)
    return 0
