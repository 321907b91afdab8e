"""Measures how fast an export of seedtf, a bare ``tf.function`` and other runtimes classify JPEGs.

    pip install '.[export,hub]' openvino==2026.4.1
    python -m venv peers && peers/bin/pip install -r scripts/benchmark_serving_peers_requirements.txt
    python scripts/benchmark_serving_peers.py --python=peers/bin/python

A request has the bytes of 1, 8 or 32 JPEG files, and a runtime answers with the probabilities of the
network. Each runtime runs in a process of its own on ``--threads`` cores. The processes take turns, and
are paused (SIGSTOP) between their turns. The table has images per second, and the median (p50) and 99th
percentile (p99) of the milliseconds that a request takes. These figures are computed in each round, and
their medians over the rounds are printed.

All runtimes but timm have the same random weights. The script ends with an error if their probabilities
for an image that needs no resizing differ by more than 0.001. timm has other weights, and its ResNet-50
computes a little more: in timm the 3×3 convolutions have the strides, in Keras the 1×1 convolutions
before them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.worker import Worker, use_cores
from serving_peers.runtimes import NETWORKS, RUNTIMES, Setup, worker_loop

BATCH_SIZES = (1, 8, 32)
TOLERANCE = 1e-3
FIGURES = ("images_per_second", "p50_ms", "p99_ms")
TF_FUNCTIONS = ("tensorflow", "frozen")


@dataclass(frozen=True)
class Turn:
    """What was measured of a runtime in one turn.

    Attributes:
        runtime: a key of ``RUNTIMES``.
        kind: which images: their side in pixels, or the name of their folder.
        batch_size: number of images in a request.
        figures: the measured values, by the names in ``FIGURES``.
    """

    runtime: str
    kind: str
    batch_size: int
    figures: Mapping[str, float]


def measure(
    workers: Mapping[str, Worker], kinds: Sequence[str], arguments: argparse.Namespace
) -> list[Turn]:
    """Measures each worker once per round for each kind of images and batch size."""
    turns = []
    for number in range(arguments.rounds):
        for kind in kinds:
            for size in BATCH_SIZES:
                for name, worker in workers.items():
                    request = {"kind": kind, "batch_size": size, "callers": arguments.callers}
                    answer = worker.ask(json.dumps({**request, "seconds": arguments.seconds}))
                    turns.append(Turn(name, kind, size, json.loads(answer)))
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    return turns


def summarize(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The medians over the rounds, as a row for each runtime, kind of images and batch size."""
    groups: dict[tuple[str, str, int], list[Turn]] = {}
    for turn in turns:
        groups.setdefault((turn.kind, turn.runtime, turn.batch_size), []).append(turn)
    return [
        {
            **{"kind": kind, "runtime": runtime, "batch_size": size},
            **{name: statistics.median(turn.figures[name] for turn in each) for name in FIGURES},
        }
        for (kind, runtime, size), each in groups.items()
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table for each kind of images.

    Its last line is the rate of seedtf divided by that of the faster of ``TF_FUNCTIONS``.
    """
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = {(row["runtime"], row["batch_size"]): row for row in rows if row["kind"] == kind}
        runtimes = dict.fromkeys(name for name, _ in of_kind)
        sizes = sorted({size for _, size in of_kind})
        title = f"JPEG {kind}²" if kind.isdigit() else f"JPEG {kind}"
        lines.append(f"{title:31}" + "".join(f"{f'requests of {size}':>27}" for size in sizes))
        lines.append(f"{'':31}" + f"{'images/s':>11}{'p50 ms':>8}{'p99 ms':>8}" * len(sizes))
        for name in runtimes:
            cells = [
                f"{row['images_per_second']:11.1f}{row['p50_ms']:8.1f}{row['p99_ms']:8.1f}"
                for row in (of_kind[name, size] for size in sizes)
            ]
            lines.append(f"{RUNTIMES[name].title:31}" + "".join(cells))
        rates = {key: row["images_per_second"] for key, row in of_kind.items()}
        peers = [name for name in TF_FUNCTIONS if name in runtimes]
        if peers and "seedtf" in runtimes:
            ratios = [
                rates["seedtf", size] / max(rates[name, size] for name in peers) for size in sizes
            ]
            lines.append(
                f"{'seedtf / faster tf.function':31}"
                + "".join(f"{f'{ratio:.2f} ×':>11}{'':16}" for ratio in ratios)
            )
        lines.append("")
    return [line.rstrip() for line in lines]


def largest_difference(probabilities: Mapping[str, Sequence[float]]) -> float:
    """The largest difference of a probability between any two runtimes with the same weights."""
    same = [values for name, values in probabilities.items() if RUNTIMES[name].same_weights]
    return max(max(column) - min(column) for column in zip(*same, strict=True)) if same else 0.0


def check(probabilities: Mapping[str, Sequence[float]]) -> float:
    """Returns the largest difference; raises SystemExit if it is above ``TOLERANCE``."""
    difference = largest_difference(probabilities)
    if difference > TOLERANCE:
        rounded = {name: [round(p, 4) for p in values] for name, values in probabilities.items()}
        raise SystemExit(
            f"probabilities differ by {difference:.2g}, more than {TOLERANCE}: {rounded}"
        )
    return difference


def start(
    folder: Path, names: Sequence[str], arguments: argparse.Namespace, workers: dict[str, Worker]
) -> None:
    """Starts a worker for each name, and adds it to ``workers``."""
    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    for name in names:
        python = arguments.python if RUNTIMES[name].is_torch else sys.executable
        flags = [f"--network={arguments.network}", f"--threads={arguments.threads}"]
        flags += [f"--worker={name}", f"--folder={folder}", f"--cores={','.join(map(str, cores))}"]
        workers[name] = Worker(name, [python, __file__, *flags], arguments.threads)


def benchmark(folder: Path, names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Writes the exports, measures, and prints the result."""
    kinds = [kind for kind in arguments.kinds.split(",") if kind]
    flags = [f"--network={arguments.network}", f"--folder={folder}", f"--kinds={','.join(kinds)}"]
    subprocess.run([sys.executable, __file__, "--export", *flags], check=True)
    workers: dict[str, Worker] = {}
    try:
        start(folder, names, arguments, workers)
        answers = {name: json.loads(worker.ask("{}")) for name, worker in workers.items()}
        difference = check({name: answer["probabilities"] for name, answer in answers.items()})
        versions = {
            package: version
            for answer in answers.values()
            for package, version in answer["versions"].items()
        }
        rows = summarize(measure(workers, [Path(kind).name for kind in kinds], arguments))
    finally:  # otherwise the paused processes would outlive this one
        for worker in workers.values():
            worker.kill()
    if arguments.json:
        result = {"network": arguments.network, "threads": arguments.threads, "rows": rows}
        print(json.dumps({**result, "difference": difference, "versions": versions}))
        return
    network = NETWORKS[arguments.network]
    print(
        f"{network.title} at {network.image_size}², {arguments.threads} threads, callers: "
        f"{arguments.callers}, median of {arguments.rounds} rounds of {arguments.seconds:g} s\n"
    )
    print("\n".join(table(rows)))
    print(f"largest difference of a probability between equal weights: {difference:.1g}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="efficientnet_lite0")
    parser.add_argument("--kinds", default="256,1000", help="sides in pixels, or folders of JPEGs")
    parser.add_argument("--peers", default=",".join(RUNTIMES), help="runtimes, separated by commas")
    parser.add_argument(
        "--python", default="", help="Python with torch; without this flag timm is left out"
    )
    parser.add_argument("--callers", type=int, default=1, help="requests at the same time")
    parser.add_argument(
        "--rounds", type=int, default=5, help="turns of each runtime; medians are printed"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds per turn")
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of each runtime")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    for name in ("--worker", "--cores", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    parser.add_argument("--export", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        from serving_peers.exports import write_exports

        write_exports(arguments.network, Path(arguments.folder), arguments.kinds.split(","))
        return
    if arguments.worker:
        use_cores(arguments.cores)
        setup = Setup(Path(arguments.folder), NETWORKS[arguments.network], arguments.threads)
        worker_loop(arguments.worker, setup, list(BATCH_SIZES))
        return
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := sorted(set(names) - set(RUNTIMES)):
        parser.error(f"--peers={','.join(unknown)}: unknown; choose from {', '.join(RUNTIMES)}")
    names = [name for name in names if arguments.python or not RUNTIMES[name].is_torch]
    # seedtf is not installed in the environment of torch, but seedtf.benchmark.serving is used there.
    paths = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    with tempfile.TemporaryDirectory() as folder:
        benchmark(Path(folder), names, arguments)


if __name__ == "__main__":
    main()
