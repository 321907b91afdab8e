"""``seedtf benchmark gpu``: compares a GPU with the CPU, and measures how well training uses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedtf.commands.arguments import parse_config
from seedtf.commands.benchmark import print_benchmark
from seedtf.compat.tensorflow_env import import_tensorflow
from seedtf.config.flags import Flags, option
from seedtf.errors import UserError
from seedtf.report import format_bytes, report

__all__ = ["GpuConfig", "describe_result", "run", "utilization_lines"]

_NO_DIFFERENCES = ("ok", "seconds")
"""Keys of a result that are not shown after ``differs:``, because they are no differences."""


@dataclass(frozen=True)
class GpuConfig(Flags):
    """The flags of ``seedtf benchmark gpu``."""

    data_dir: str = option("sample", "Folder with one sub-folder of images per class, or sample.")
    model: str = option(
        "ResNet50", "Name of a keras.applications network, in upper or lower case, or tiny."
    )
    image_size: int = option(224, "Side of the images in pixels, 32 to 1024.", low=32, high=1024)
    seconds: int = option(
        1200, "Longest time for all parts together, 20 to 7200.", low=20, high=7200
    )
    only: str = option("", "Names of the parts to run, separated by commas; empty for all.")
    out: str = option("", "JSON file that is rewritten after each part; empty for none.")
    json: bool = option(False, "Print one JSON object instead of the table.")


def run(arguments: list[str]) -> int:
    """Runs the parts and prints the table; returns 1 if a part failed or found a difference, else 0."""
    config = parse_config(GpuConfig, "benchmark gpu", arguments)
    from seedtf.benchmark.gpu.parts import choose_parts, list_parts

    parts = choose_parts(list_parts(config.model, config.image_size, config.data_dir), config.only)
    out = Path(config.out) if config.out else None
    if out is not None and not out.absolute().parent.is_dir():
        raise UserError(f"--out={out}: its folder does not exist; create it or pass another file")
    import_tensorflow()
    import tensorflow as tf

    from seedtf.benchmark.gpu.session import run_parts
    from seedtf.model.network import resolve_model_name

    resolve_model_name(config.model)
    if not tf.config.list_physical_devices("GPU"):
        raise UserError(
            "seedtf benchmark gpu: TensorFlow sees no GPU on this machine; seedtf benchmark step "
            "measures a CPU, and pip install 'seedtf[cuda]' brings the libraries of a GPU"
        )

    def show(name: str, result: Mapping[str, Any]) -> None:
        if not config.json:
            report(name, describe_result(result))

    results = run_parts(parts, seconds=config.seconds, out=out, on_result=show)
    failed = [
        name for name, result in results.items() if "error" in result or not result.get("ok", True)
    ]
    table = [*utilization_lines(results), f"failed    {', '.join(failed) or 'nothing'}"]
    print_benchmark({"parts": results, "failed": failed}, table, as_json=config.json)
    return 1 if failed else 0


def describe_result(result: Mapping[str, Any]) -> str:
    """The result of one part, as one line for the console."""
    if "error" in result:
        return f"failed: {' '.join(str(result['error']).split())[-160:]}"
    texts = []
    if "ok" in result:
        same = "resumes exactly" if "resumed" in result else "as on the CPU"
        texts.append(same if result["ok"] else f"differs: {_differences(result)}")
    # "device" is the description of the GPU in one part, but in the part about the pipeline it is the
    # images/s of augmentation on the device.
    if "device" in result and isinstance(result["device"], str):
        texts.append(
            f"{result['device']}, {format_bytes(result['memory_bytes'])}, "
            f"{result['bfloat16_flops'] / 1e12:.0f} TFLOP/s in bfloat16, "
            f"{result['bytes_per_second'] / 1e12:.2f} TB/s"
        )
    if "host_uint8" in result:
        texts.append(f"augmentation: {result['host']:,.0f} images/s on the host")
        texts.append(f"{result['device']:,.0f} on the device")
    if "epoch_seconds" in result:
        texts.append(f"{result['epoch_seconds']:.2f} s an epoch")
    if "images_per_second" in result:
        texts.append(f"{result['images_per_second']:,.0f} images/s")
    if "first_step_seconds" in result:
        texts.append(f"first call took {result['first_step_seconds']:.0f} s")
        texts.append(f"{format_bytes(result['peak_bytes'])} of memory")
    return ", ".join(texts)


def _differences(result: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {value}" for name, value in result.items() if name not in _NO_DIFFERENCES
    )


def utilization_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each train step: the fractions of the card's FLOP/s and memory bandwidth in use.

    Both limits were measured on this card. The limit of the FLOP/s is that in bfloat16, whatever the
    precision of the step.
    """
    card = results.get("card", {})
    if "bfloat16_flops" not in card:
        return []
    lines = []
    for name, result in results.items():
        if "step_seconds" not in result:
            continue
        compute = result["flops"] / result["step_seconds"] / card["bfloat16_flops"]
        text = f"{compute:5.1%} of the FLOP/s of the card in bfloat16"
        if "bytes" in result:
            memory = result["bytes"] / result["step_seconds"] / card["bytes_per_second"]
            text += f", {memory:.1%} of its memory bandwidth, {result['kernels']:,} kernels a step"
        lines.append(f"{name:24} {text}")
    return lines
