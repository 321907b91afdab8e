"""Times the ResNet-50 train step of seedtf and of PyTorch, with equal batch sizes and threads.

    pip install . torch==2.13.0
    python scripts/benchmark_torch_step.py

All layers of ResNet-50 are trained with Adam in float32. PyTorch uses the channels-last memory format,
as its documentation advises for CPUs. There are three variants: seedtf, PyTorch in eager mode, and
PyTorch with ``torch.compile`` if that works. Each has a process of its own, and they take turns. The
table has the time of each variant divided by that of seedtf, as the median over the turns.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

NUM_CLASSES = 12
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""The width (channels of the 3×3 convolutions) and number of blocks of each stage of ResNet-50."""


def torch_network(torch: Any) -> Any:
    """ResNet-50 (He et al. 2015), with the strides in the first 1×1 convolutions, as in Keras."""
    nn = torch.nn

    def unit(*sizes: int, stride: int = 1, padding: int = 0) -> list[Any]:
        """A convolution and its batch norm. Sizes: input channels, output channels, kernel size."""
        convolution = nn.Conv2d(*sizes, stride=stride, padding=padding)
        return [convolution, nn.BatchNorm2d(sizes[1])]

    class Block(nn.Module):
        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            outputs = 4 * width
            self.body = nn.Sequential(
                *unit(inputs, width, 1, stride=stride),
                nn.ReLU(inplace=True),
                *unit(width, width, 3, padding=1),
                nn.ReLU(inplace=True),
                *unit(width, outputs, 1),
            )
            self.skip = nn.Identity()
            if inputs != outputs:
                self.skip = nn.Sequential(*unit(inputs, outputs, 1, stride=stride))

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.skip(x))

    layers = [*unit(3, 64, 7, stride=2, padding=3), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, (width, num_blocks) in enumerate(STAGES):
        for block in range(num_blocks):
            layers.append(Block(inputs, width, 2 if stage and not block else 1))
            inputs = 4 * width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, NUM_CLASSES)
    )


def torch_step(size: int, batch: int, threads: int, compiled: bool) -> Callable[[], float]:
    """Returns a function that runs one train step and returns its loss."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = torch_network(torch).to(memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    criterion = torch.nn.CrossEntropyLoss()
    images = torch.rand(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.arange(batch) % NUM_CLASSES

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measure(size: int, batch: int, rounds: int, steps: int, threads: int) -> dict[str, list[float]]:
    """The median wall-clock seconds of a step in each turn, by the name of the variant."""
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    from seedtf.benchmark.step import Variant, request_steps, start_variant, start_worker
    from seedtf.errors import UserError

    # PyTorch reads the first variable, TensorFlow the second.
    limits = {"OMP_NUM_THREADS": str(threads), "TF_NUM_INTRAOP_THREADS": str(threads)}
    environment = {**os.environ, **limits}
    times: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        seedtf_worker = start_variant(Variant("ResNet50", size, batch), environment)
        workers = {"seedtf": stack.enter_context(seedtf_worker)}
        for name in ("eager", "compiled"):
            command = [sys.executable, __file__, f"--worker={name}", f"--image_size={size}"]
            command += [f"--batch_size={batch}", f"--threads={threads}"]
            workers[f"PyTorch, {name}"] = stack.enter_context(start_worker(command, environment))
        for name, worker in list(workers.items()):  # the workers warm up one after another
            try:
                request_steps(worker, 2)
            except UserError as error:
                print(f"{name} left out: {error}", file=sys.stderr)
                del workers[name]
        if "seedtf" not in workers:
            raise SystemExit("seedtf could not be measured, so there is nothing to compare with")
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds = [wall for wall, _ in request_steps(worker, steps)]
                times.setdefault(name, []).append(statistics.median(seconds))
    return times


def report(size: int, batch: int, times: dict[str, list[float]]) -> None:
    """Prints a line for each variant: ms per step, images per second, and time relative to seedtf."""
    for name, values in times.items():
        seconds = statistics.median(values)
        ratio = statistics.median(
            theirs / ours for ours, theirs in zip(times["seedtf"], values, strict=True)
        )
        rate = f"{1e3 * seconds:9.1f} ms {batch / seconds:9.1f} images/s"
        print(f"{size:5}² {rate} {ratio:6.2f} ×  {name}")


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image_size", default="96,150", help="image sizes, separated by commas")
    parser.add_argument("--batch_size", type=int, default=32, help="images per step")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each variant; medians are printed"
    )
    parser.add_argument("--steps", type=int, default=4, help="steps per turn")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of each variant"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.image_size.split(",")]
    batch, threads = arguments.batch_size, arguments.threads
    if arguments.worker:
        from seedtf.benchmark.children.step import worker_loop

        worker_loop(torch_step(sizes[0], batch, threads, arguments.worker == "compiled"))
        return
    print(f"ResNet-50, Adam, float32, batches of {batch}, {threads} threads")
    for size in sizes:
        report(size, batch, measure(size, batch, arguments.rounds, arguments.steps, threads))
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("tensorflow", "torch"))
    print(", ".join(versions))


if __name__ == "__main__":
    main()
