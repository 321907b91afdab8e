"""Measures the augmented images per second of seedtf and of other libraries.

    pip install . -r scripts/benchmark_peers_requirements.txt
    python -m venv torch && torch/bin/pip install -r scripts/benchmark_peers_torch_requirements.txt
    python scripts/benchmark_peers.py --python=torch=torch/bin/python

All libraries get the same uint8 images of 256² pixels in memory, and make float32 batches of 64 images
of 224² pixels. The augmentation is random crop, stretch, flips, rotation, brightness, contrast,
saturation and hue, with two exceptions. Libraries marked "(no rotation)" in the table do not rotate,
because they would need another pass for it. ImageDataGenerator gets images of 224² pixels; it zooms
instead of cropping, and changes neither contrast, saturation nor hue.

Each library runs in a process of its own, with the same number of threads. The processes take turns: in
each round, every library is measured once. The table has the speed of seedtf divided by that of each
library, as the median over the rounds. Between its turns a process is paused (SIGSTOP) with its child
processes, because it would otherwise fill its queues while another library is measured. The libraries
of the environment "torch" are only measured with ``--python``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from peers.catalog import ENVIRONMENTS, OURS, PEERS
from peers.work import BATCH_SIZE, IN_SIZE, OUT_SIZE
from peers.worker import WITHOUT_AVX512, Worker, use_cores, worker_loop

ONE_CORE = "seedtf, one core"


def start(
    name: str, threads: int, cores: set[int], pythons: dict[str, str], avx512: bool
) -> Worker:
    """Starts and warms up the process of a library on ``cores``, in the Python of its environment."""
    python = pythons[{**PEERS, **OURS}[name].environment]
    command = [python, __file__, f"--worker={name}", f"--threads={threads}"]
    command.append("--cores=" + ",".join(map(str, sorted(cores))))
    return Worker(name, command, threads, {} if avx512 else WITHOUT_AVX512)


def measure(
    names: list[str], pythons: dict[str, str], arguments: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, dict[str, str]]]:
    """Returns images per second in every round by name, and the package versions by environment.

    All processes are warmed up before the first round.
    """
    threads, avx512 = arguments.threads, not arguments.without_avx512
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    rates: dict[str, list[float]] = {name: [] for name in [*names, ONE_CORE]}
    versions: dict[str, dict[str, str]] = {}
    workers: dict[str, Worker] = {}
    try:
        for name in names:
            workers[name] = start(name, threads, cores, pythons, avx512)
            versions[{**PEERS, **OURS}[name].environment] = json.loads(workers[name].greeting)
        workers[ONE_CORE] = start("seedtf", 1, {min(cores)}, pythons, avx512)
        for _ in range(arguments.rounds):
            for name, worker in workers.items():
                rates[name].append(float(worker.ask(f"{arguments.seconds}")))
    finally:  # otherwise the paused processes would outlive this one
        for worker in workers.values():
            worker.kill()
    return rates, versions


def report(rates: dict[str, list[float]]) -> tuple[list[str], dict[str, Any]]:
    """Returns the lines of the table, and the medians and ratios as JSON values."""
    seedtf_rates = rates["seedtf"]
    lines = [f"{'images/s':>10} {'seedtf is':>10} {'target':>8}"]
    result: dict[str, Any] = {"images_per_second": {}, "ratios": {}}

    def add_line(rate: float, ratio: str, target: str, title: str) -> None:
        lines.append(f"{rate:10,.0f} {ratio:>10} {target:>8}  {title}")

    for name, values in rates.items():
        median = statistics.median(values)
        result["images_per_second"][name] = median
        if name in PEERS:
            ratio = statistics.median(
                ours / theirs for ours, theirs in zip(seedtf_rates, values, strict=True)
            )
            result["ratios"][name] = ratio
            peer, suffix = PEERS[name], "" if ratio >= PEERS[name].target else " MISSED"
            add_line(median, f"{ratio:.1f} ×", f"{peer.target:.0f} ×", peer.title + suffix)
        elif name in OURS:
            add_line(median, "", "", OURS[name].title)
        else:
            scaling = statistics.median(
                all_cores / one for all_cores, one in zip(seedtf_rates, values, strict=True)
            )
            result["scaling"] = scaling
            suffix = "" if scaling >= 1.8 else " MISSED"
            add_line(median, f"{scaling:.2f} ×", "1.8 ×", f"seedtf on one core{suffix}")
    return lines, result


def read_pythons(parser: argparse.ArgumentParser, values: list[str]) -> dict[str, str]:
    """The path of the Python of each environment, by name; that of seedtf is the running Python."""
    pythons = {"seedtf": sys.executable}
    for value in values:
        name, _, path = value.partition("=")
        if name not in ENVIRONMENTS or name in pythons:
            others = ", ".join(other for other in ENVIRONMENTS if other != "seedtf")
            parser.error(f"--python={value}: write NAME=PATH, at most once for each of {others}")
        if not Path(path).is_file():
            parser.error(f"--python={value}: {path or 'an empty path'} is not a file")
        # Links are not resolved, because the Python of a venv is a link to one outside the venv.
        pythons[name] = str(Path(path).absolute())
    return pythons


def read_peers(
    parser: argparse.ArgumentParser, value: str | None, pythons: dict[str, str]
) -> list[str]:
    """The names in ``--peers``; without this flag, all peers whose environment has a Python."""
    if value is None:
        return [name for name, peer in PEERS.items() if peer.environment in pythons]
    names = [name for name in value.split(",") if name]
    if unknown := sorted(set(names) - set(PEERS)):
        parser.error(f"--peers={','.join(unknown)}: unknown; choose from {', '.join(PEERS)}")
    for name in names:
        if (environment := PEERS[name].environment) not in pythons:
            file = ENVIRONMENTS[environment].requirements
            parser.error(f"--peers={name}: give --python={environment}=PATH, a Python for which "
                         f"scripts/{file} was installed")  # fmt: skip
    return names


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each library; medians are printed"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds per turn")
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of each library")
    parser.add_argument(
        "--peers", help="libraries, separated by commas; default: all with a Python"
    )
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH",
                        help="the Python of the environment NAME, which can only be torch")  # fmt: skip
    parser.add_argument("--without_avx512", action="store_true",
                        help="limit XLA, oneDNN, PyTorch, MKL and OpenCV to AVX2, but not the other "
                             "libraries, such as DALI and NumPy")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        use_cores(arguments.cores)
        peer = {**PEERS, **OURS}[arguments.worker]
        packages = ENVIRONMENTS[peer.environment].packages
        worker_loop(peer.make_batches(arguments.threads), packages)
        return
    pythons = read_pythons(parser, arguments.python)
    names = read_peers(parser, arguments.peers, pythons)
    rates, versions = measure([*OURS, *names], pythons, arguments)
    lines, result = report(rates)
    if arguments.json:
        print(json.dumps({"versions": versions, **result}))
        return
    print(f"{IN_SIZE}² uint8 -> {OUT_SIZE}² float32, batches of {BATCH_SIZE}, "
          f"{arguments.threads} threads, median of {arguments.rounds} rounds of {arguments.seconds:g} s"
          f"{', without AVX-512' if arguments.without_avx512 else ''}")  # fmt: skip
    print("\n".join(lines))
    for environment, installed in versions.items():
        packages = (f"{name} {version}" for name, version in installed.items())
        print(f"{environment}: {', '.join(packages)}")


if __name__ == "__main__":
    main()
