"""``seedtf benchmark serving EXPORT``: loads an export and times its predictions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from seedtf.commands.arguments import parse_config
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError

__all__ = ["ServingConfig", "run"]

POSITIONALS = ("export",)

_BATCH_SIZES = (1, 8, 32)
_NUM_CALLERS = (1, 2, 4, 8)


@dataclass(frozen=True)
class ServingConfig(Flags):
    """The export and the flags of ``seedtf benchmark serving``."""

    export: str = option("", "Folder of an exported model, or the folder that holds its versions.")
    image: str = option("", "Image to send; empty generates a JPEG of 512×512 pixels.")
    seconds: float = option(
        2.0,
        "Seconds to measure each pair of batch size and number of callers, 0.05 to 600.",
        low=0.05,
        high=600.0,
    )
    json: bool = option(False, "Print one JSON object instead of the table.")


def run(arguments: list[str]) -> int:
    """Measures, prints the table and returns the exit code."""
    config = parse_config(ServingConfig, "benchmark serving", arguments, POSITIONALS)
    import_tensorflow()
    import tensorflow as tf

    from seedtf.benchmark.serving import Send, measure_all
    from seedtf.export.warmup import example_jpeg
    from seedtf.runs.saved_model import ServingSignature, find_saved_model

    saved_model = find_saved_model(config.export)

    try:
        encoded = Path(config.image).read_bytes() if config.image else example_jpeg(512)
    except OSError as error:
        raise UserError(f"--image={config.image}: {error.strerror}; pass an image") from None
    signature = ServingSignature(saved_model)
    status = signature(tf.constant([encoded]))["status"].numpy()[0].decode()
    if status != "ok":
        raise UserError(f"--image={config.image}: {status}; pass an image that can be decoded")

    def make_send(batch_size: int) -> Send:
        request = tf.constant([encoded] * batch_size)

        def send() -> object:
            return signature(request)["probabilities"].numpy()

        return send

    measured_loads = measure_all(make_send, _BATCH_SIZES, _NUM_CALLERS, config.seconds)
    result = {
        "export": str(saved_model),
        "image_bytes": len(encoded),
        "loads": [dataclasses.asdict(load) for load in measured_loads],
    }
    table = [
        f"export    {saved_model}",
        f"image     {config.image or 'generated, 512×512 JPEG'}, {len(encoded)} bytes",
        f"{'batch':>6} {'callers':>8} {'images/s':>10} {'p50 ms':>9} {'p99 ms':>9} {'requests':>9}",
        *(
            f"{load.batch_size:6} {load.callers:8} {load.images_per_second:10.1f} "
            f"{load.p50_ms:9.2f} {load.p99_ms:9.2f} {load.requests:9}"
            for load in measured_loads
        ),
    ]
    print_benchmark(result, table, as_json=config.json)
    return 0
