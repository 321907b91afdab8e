"""``seedtf benchmark pipeline``: images per second of the pipeline, with and without augmentation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from seedtf.commands.arguments import parse_config
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option

__all__ = ["PipelineConfig", "run"]

_VARIANTS = {
    "fused": "augmented on the host with compiled code",
    "tf_image": "augmented on the host with plain TensorFlow ops",
    "device": "not augmented on the host, which sends uint8 images to the device",
}


@dataclass(frozen=True)
class PipelineConfig(Flags):
    """The flags of ``seedtf benchmark pipeline``."""

    data_dir: str = option(
        "", "Folder with one sub-folder of images per class; empty for images of coloured noise."
    )
    image_size: int = option(
        224, "Side of the augmented images in pixels, 8 to 2048.", low=8, high=2048
    )
    batch_size: int = option(64, "Images in a batch, 1 or more.", low=1)
    rotate: float = option(
        180.0, "Largest rotation in either direction, 0 to 180 degrees.", low=0, high=180
    )
    mixup: float = option(0.0, "Parameter a of MixUp, 0 to 10; 0 is off.", low=0, high=10)
    cutmix: float = option(0.0, "Parameter a of CutMix, 0 to 10; 0 is off.", low=0, high=10)
    random_erasing: float = option(
        0.0, "Fraction of the images in which a rectangle is erased, 0 to 1.", low=0, high=1
    )
    seconds: float = option(2.0, "Seconds of one measurement, 0.05 to 600.", low=0.05, high=600.0)
    rounds: int = option(
        5, "Measurements of each variant, 1 to 100; medians are shown.", low=1, high=100
    )
    json: bool = option(False, "Print one JSON object instead of the table.")


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    config = parse_config(PipelineConfig, "benchmark pipeline", arguments)
    import_tensorflow()
    from seedtf.augment.mixing import Mixing
    from seedtf.augment.policy import Policy
    from seedtf.benchmark.pipeline import load_sample, make_batches, measure_rates

    store = load_sample(config.data_dir, config.image_size)
    size, batch = config.image_size, min(config.batch_size, len(store.catalog))
    policy = Policy(rotate=config.rotate)
    mixing = Mixing(config.mixup, config.cutmix, config.random_erasing)
    datasets = {
        variant: make_batches(store, size, batch, policy, variant, mixing=mixing)
        for variant in _VARIANTS
    }
    rates = measure_rates(datasets, batch, seconds=config.seconds, rounds=config.rounds)
    result = {
        "images": config.data_dir or "noise",
        "from_size": store.size,
        "to_size": size,
        "batch_size": batch,
        "mixing": dataclasses.asdict(mixing),
        "rates": [dataclasses.asdict(rate) for rate in rates],
    }
    table = [
        f"images  {len(store.catalog)} of {result['images']}, {store.size}² uint8 -> {size}² "
        f"float32, batches of {batch}",
        f"{'images/s':>10} {'per core':>10}  variant",
        *(
            f"{rate.images_per_second:10,.0f} {rate.images_per_cpu_second:10,.0f}  "
            f"{_VARIANTS[rate.way]}"
            for rate in rates
        ),
    ]
    print_benchmark(result, table, as_json=config.json)
    return 0
