"""``seedtf benchmark gpu``: checks a GPU against the CPU and measures how much of it training uses."""

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

__all__ = ["GpuConfig", "describe", "run", "shares"]


_NOT_SHOWN = ("ok", "seconds")


@dataclass(frozen=True)
class GpuConfig(Flags):
    """The flags of ``seedtf benchmark gpu``."""

    data_dir: str = option("sample", "Folder with one sub-folder of images per class, or sample.")
    model: str = option(
        "ResNet50", "A keras.applications network, in upper or lower case, or tiny."
    )
    image_size: int = option(
        224, "Side in pixels of the images of a step and an epoch, 32 to 1024.", low=32, high=1024
    )
    seconds: int = option(
        1200, "Longest time for all parts together, 20 to 7200.", low=20, high=7200
    )
    only: str = option("", "Parts to run, separated by commas; empty for all.")
    out: str = option("", "JSON file that is written after each part; empty for none.")
    json: bool = option(False, "Print one JSON object instead of the table.")


def run(arguments: list[str]) -> int:
    """Runs the parts, prints the table and returns the exit code: 0 if no part failed, else 1."""
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
            report(name, describe(result))

    results = run_parts(parts, seconds=config.seconds, out=out, on_result=show)
    failed = [
        name for name, found in results.items() if "error" in found or not found.get("ok", True)
    ]
    table = [*shares(results), f"failed    {', '.join(failed) or 'nothing'}"]
    print_benchmark({"parts": results, "failed": failed}, table, as_json=config.json)
    return 1 if failed else 0


def describe(found: Mapping[str, Any]) -> str:
    """One part in words."""
    if "error" in found:
        return f"failed: {' '.join(str(found['error']).split())[-160:]}"
    parts = []
    if "ok" in found:
        parts.append("as on the CPU" if found["ok"] else f"differs: {_differences(found)}")
    if "device" in found and isinstance(found["device"], str):
        parts.append(
            f"{found['device']}, {format_bytes(found['memory_bytes'])}, "
            f"{found['bfloat16_flops'] / 1e12:.0f} TFLOP/s in bfloat16, "
            f"{found['bytes_per_second'] / 1e12:.2f} TB/s"
        )
    if "host_uint8" in found:
        parts.append(f"augmentation: {found['host']:,.0f} images/s on the host")
        parts.append(f"{found['device']:,.0f} on the device")
    if "epoch_seconds" in found:
        parts.append(f"{found['epoch_seconds']:.2f} s an epoch")
    if "images_per_second" in found:
        parts.append(f"{found['images_per_second']:,.0f} images/s")
    if "first_step_seconds" in found:
        parts.append(f"first step after {found['first_step_seconds']:.0f} s")
        parts.append(f"{format_bytes(found['peak_bytes'])} of memory")
    return ", ".join(parts)


def _differences(found: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {value}" for name, value in found.items() if name not in _NOT_SHOWN)


def shares(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How much of the two limits of the card each step reaches."""
    card = results.get("card", {})
    if "bfloat16_flops" not in card:
        return []
    lines = []
    for name, found in results.items():
        if "step_seconds" not in found:
            continue
        matrices = found["flops"] / found["step_seconds"] / card["bfloat16_flops"]
        text = f"{matrices:5.1%} of the products that the card can make"
        if "bytes" in found:
            memory = found["bytes"] / found["step_seconds"] / card["bytes_per_second"]
            text += f", {memory:.1%} of its memory bandwidth, {found['kernels']:,} kernels a step"
        lines.append(f"{name:24} {text}")
    return lines
