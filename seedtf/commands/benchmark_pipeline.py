"""``seedtf benchmark pipeline``: training batches a second, and what a device leaves to the host."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seedtf.commands.arguments import parse_config
from seedtf.commands.quiet import import_tensorflow
from seedtf.options import check_ranges, default_cache_dir, option

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PipelineConfig", "run"]

_DRAWN, _DRAWN_SIZE = 256, 256
_WAYS = {
    "fused": "augmented on the host, compiled",
    "tf_image": "augmented on the host, plain TensorFlow ops",
    "device": "left to the device: uint8 leaving the host",
}


@dataclass(frozen=True)
class PipelineConfig:
    """The pictures and the flags of ``seedtf benchmark pipeline``."""

    data_dir: str = option("", "Class folders to take pictures from; else coloured noise.")
    image_size: int = option(
        224, "Side of the augmented images in pixels, 8 to 2048.", low=8, high=2048
    )
    batch_size: int = option(64, "Pictures in a batch, 1 or more.", low=1)
    rotate: float = option(
        180.0, "Largest rotation either way in degrees, 0 to 180.", low=0, high=180
    )
    seconds: float = option(2.0, "Time of a turn, 0.05 to 600.", low=0.05, high=600.0)
    rounds: int = option(5, "Turns of each way; medians are shown; 1 to 100.", low=1, high=100)
    json: bool = option(False, "Print one JSON object in place of the table.")

    def __post_init__(self) -> None:
        """Checks every field; raises UserError naming the flag, the value and the range."""
        check_ranges(self)


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    config = parse_config(PipelineConfig, "benchmark pipeline", arguments)
    import_tensorflow()
    from seedtf.benchmark.pipeline import batches, measure
    from seedtf.data.augment import Policy

    pictures = _pictures(config)
    policy = Policy(rotate=config.rotate)
    size, batch = config.image_size, min(config.batch_size, len(pictures))
    datasets = {way: batches(pictures, size, batch, policy, way) for way in _WAYS}
    rates = measure(datasets, batch, seconds=config.seconds, rounds=config.rounds)
    result = {
        "pictures": config.data_dir or "noise",
        "from_size": pictures.shape[1],
        "to_size": size,
        "batch_size": batch,
        "rates": [dataclasses.asdict(rate) for rate in rates],
    }
    if config.json:
        print(json.dumps(result))
        return 0
    source = (
        f"{len(pictures)} of {config.data_dir}" if config.data_dir else f"{len(pictures)} of noise"
    )
    print(f"pictures  {source}, {pictures.shape[1]}² uint8 -> {size}² float32, batches of {batch}")
    print(f"{'images/s':>10} {'a core':>10}  way")
    for rate in rates:
        line = f"{rate.images_per_second:10,.0f} {rate.images_per_cpu_second:10,.0f}"
        print(f"{line}  {_WAYS[rate.way]}")
    print(f"RESULT {json.dumps(result)}", flush=True)
    return 0


def _pictures(config: PipelineConfig) -> np.ndarray:
    """uint8 ``[N, S, S, 3]``: noise of 256², or the folder's pictures at the size of training."""
    import numpy as np

    from seedtf.benchmark.pipeline import draw_pictures

    if not config.data_dir:
        return draw_pictures(_DRAWN, _DRAWN_SIZE)
    from seedtf.data.catalog import scan_folder
    from seedtf.data.store import CachePlan, build_store

    catalog = scan_folder(config.data_dir)
    catalog = catalog.take(np.linspace(0, len(catalog) - 1, min(_DRAWN, len(catalog))).astype(int))
    plan = CachePlan("ram", 0, "")
    store = build_store(catalog, config.image_size, plan, default_cache_dir())
    return np.asarray(store.read(np.arange(len(store.catalog))))
