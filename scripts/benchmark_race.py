"""Trains on the same images with seedtf and other tools ("the race"); compares accuracy and minutes.

    pip install '.[hub]'
    python -m venv peers && peers/bin/pip install -r scripts/benchmark_race_requirements.txt
    python scripts/benchmark_race.py prepare seedlings efficientnet_lite0_imagenet/ --out=race \
      --python=peers/bin/python
    python scripts/benchmark_race.py run all --out=race
    python scripts/benchmark_race.py report race

All tools get the same training and validation images, as folders of symbolic links, and the same image
size, number of epochs and cores. With pretrained weights they also get the same network and weights.
Each tool runs in a process of its own. This script reads the accuracies from the table that the tool
writes after each epoch. ``run`` does not repeat finished trainings, so the same command continues after
an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from race.summary import draw, load_results, table
from race.watch import Record, read_accuracies, watch

RUNNERS = Path(__file__).resolve().parent / "race"
SETTINGS, WEIGHTS = ("default", "best"), ("pretrained", "scratch")
PREPARED = "race.json"


@dataclass(frozen=True)
class Training:
    """One training of the race.

    Attributes:
        prepared: the values of race.json, which ``prepare`` wrote.
        data: the folder with the sub-folders ``train`` and ``val``.
        out: the folder of the results of this training.
        setting: ``default`` or ``best``: which flags are used.
        pretrained: whether training starts from ImageNet weights.
        image_size: side in pixels.
        epochs: number of epochs.
    """

    prepared: dict[str, Any]
    data: Path
    out: Path
    setting: str
    pretrained: bool
    image_size: int
    epochs: int

    @property
    def is_best(self) -> bool:
        """Whether the tool's best flags are used instead of its defaults."""
        return self.setting == "best"


def seedtf_command(training: Training) -> list[str]:
    """The command line of ``seedtf train``."""
    flags = [f"--data_dir={training.data / 'train'}", f"--val_dir={training.data / 'val'}"]
    flags += [f"--model={training.prepared['preset']}", f"--run_dir={training.out / 'run'}"]
    flags += [f"--image_size={training.image_size}", f"--epochs={training.epochs}"]
    flags += [] if training.pretrained else ["--weights=none"]
    # --progressive_sizes trains half of the epochs with smaller images. From random weights at 64 px,
    # these have 32 px, which lowered the accuracy by 14 points in one run.
    flags += ["--progressive_sizes=auto"] if training.is_best and training.pretrained else []
    return [sys.executable, "-u", str(RUNNERS / "seedtf_train.py"), str(training.out), *flags]


def timm_command(training: Training) -> list[str]:
    """The command line of timm's ``train.py``, or of its stand-in ``race/timm_train.py``."""
    weights_file = f"pretrained_cfg_overlay={{'file': {training.prepared['weights']!r}}}"
    num_classes, size = training.prepared["classes"], training.image_size
    flags = "--train-split train --val-split val --model tf_efficientnet_lite0"
    flags += f" --num-classes {num_classes}"
    flags += f" --img-size {size} --epochs {training.epochs} --experiment run"
    if training.is_best:
        flags += f" --opt adamw --lr {2.5e-3 if training.pretrained else 1e-3} --weight-decay 0.05"
        flags += " --batch-size 32 --warmup-epochs 1 --sched-on-updates --scale 0.6 1 --vflip 0.5"
        flags += " --channels-last --workers 2"
    folders = ["--data-dir", str(training.data), "--output", str(training.out)]
    weights = ["--pretrained", "--model-kwargs", weights_file] if training.pretrained else []
    python, script = training.prepared["python"], training.prepared["timm_script"]
    return [python, "-u", script, *flags.split(), *folders, *weights]


def script_command(script: str, training: Training) -> list[str]:
    """The command line of one of the scripts in ``race/``."""
    is_keras = script == "keras_script.py"
    network = training.prepared["preset" if is_keras else "weights"]
    names = ("setting", "data", "out", "image_size", "epochs")
    flags = [f"--{name}={getattr(training, name)}" for name in names]
    flags += [f"--network={network}", f"--pretrained={int(training.pretrained)}"]
    python = sys.executable if is_keras else training.prepared["python"]
    return [python, "-u", str(RUNNERS / script), *flags]


@dataclass(frozen=True)
class Tool:
    """A tool of the race.

    Attributes:
        make_command: returns the command line of a training.
        history: the path, in the folder of the training, of a CSV file with a row for each epoch.
        column: the column with the validation accuracies in that file.
        packages: the packages whose versions are recorded, separated by spaces.
        scale: the factor that turns the values of the column into accuracies from 0 to 1.
    """

    make_command: Callable[[Training], list[str]]
    history: str
    column: str
    packages: str
    scale: float = 1.0


TOOLS = {
    "seedtf": Tool(seedtf_command, "run/history.csv", "val_accuracy", "seedtf tensorflow keras"),
    "keras": Tool(partial(script_command, "keras_script.py"), "history.csv", "val_accuracy",
                  "keras tensorflow keras-hub"),
    "fastai": Tool(partial(script_command, "fastai_learner.py"), "history.csv", "accuracy",
                   "fastai timm torch torchvision"),
    "timm": Tool(timm_command, "run/summary.csv", "eval_top1", "timm torch torchvision", 0.01),
    "ultralytics": Tool(partial(script_command, "ultralytics_classify.py"), "run/results.csv",
                        "metrics/accuracy_top1", "ultralytics timm torch torchvision"),
}  # fmt: skip


def prepare(arguments: argparse.Namespace) -> None:
    """Links the training and validation images of seedtf's split, and converts the weights for timm."""
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    from seedtf.config.train_config import TrainConfig
    from seedtf.training.setup import load_training_data

    out = arguments.out.resolve()
    if (out / "data").exists():
        raise SystemExit(f"--out={out}: is prepared already; pass another folder or delete it")
    config = TrainConfig(data_dir=str(arguments.images), image_size=32, cache="ram")
    dataset = load_training_data(config)
    catalog, counts = dataset.store.catalog, {}
    for side, indices in (("train", dataset.split.train), ("val", dataset.split.val)):
        num_seen: dict[str, int] = {}
        for index in indices:
            name = catalog.class_names[catalog.labels[index]]
            num_seen[name] = num_seen.get(name, 0) + 1
            if num_seen[name] <= arguments.per_class:
                target = out / "data" / side / name / Path(catalog.paths[index]).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(Path(catalog.root).resolve() / catalog.paths[index])
        counts[side] = len(list((out / "data" / side).glob("*/*")))
    python = str(arguments.python.absolute())
    for command in (
        [sys.executable, str(RUNNERS / "keras_weights.py"), str(arguments.preset), str(out)],
        [python, str(RUNNERS / "timm_weights.py"), str(out)],
    ):
        subprocess.run(command, check=True)
    prepared = {
        "classes": len(catalog.class_names),
        **counts,
        "python": python,
        "preset": str(arguments.preset.resolve()),
        "weights": str(out / "weights.pth"),
        "timm_script": str((arguments.timm_script or RUNNERS / "timm_train.py").resolve()),
    }
    (out / PREPARED).write_text(json.dumps(prepared, indent=1))
    print(f"prepared  {counts['train']} training and {counts['val']} validation images")


def run(arguments: argparse.Namespace) -> None:
    """Runs all trainings that are not finished yet, one after the other; with ``--again``, all."""
    names = list(TOOLS) if "all" in arguments.tool else arguments.tool
    root = arguments.out.resolve()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    has_failed = False
    for weights in arguments.weights:
        for setting in arguments.setting:
            for name in names:
                out = root / "results" / f"{name}-{setting}-{weights}"
                if not arguments.again and _is_finished(out / "result.json"):
                    print(f"kept      {out.name}")
                    continue
                result = _train(name, setting, weights, out, arguments)
                (out / "result.json").write_text(json.dumps(result, indent=1))
                accuracies = [f"{row['accuracy']:.3f}" for row in result["history"]]
                state = "finished " if result["finished"] else f"exit {result['exit_code']} "
                print(
                    f"{state:10}{out.name}: {result['seconds']:.0f} s, {' '.join(accuracies)}",
                    flush=True,
                )
                has_failed |= not result["finished"]
    if has_failed:
        raise SystemExit("not all trainings were finished; see output.txt in the folders above")


def _is_finished(path: Path) -> bool:
    return path.exists() and json.loads(path.read_text())["finished"]


def _train(name: str, setting: str, weights: str, out: Path, arguments: argparse.Namespace) -> dict:
    """Trains once in the folder ``out``, which is emptied before; returns the values of result.json."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    root, tool = out.parents[1], TOOLS[name]
    training = Training(
        prepared=json.loads((root / PREPARED).read_text()),
        data=root / "data",
        out=out,
        setting=setting,
        pretrained=weights == "pretrained",
        image_size=arguments.image_size,
        epochs=arguments.epochs,
    )
    command, log = tool.make_command(training), out / "output.txt"

    def first_step_time() -> float | None:
        if name == "timm":  # timm prints its first line about training after the first step
            is_printed = log.exists() and "Train: 0 [" in log.read_text(errors="replace")
            return log.stat().st_mtime if is_printed else None
        path = out / "first_step"
        return float(path.read_text()) if path.exists() else None

    load_before = os.getloadavg()[0]
    record = watch(
        command,
        _environment(root, arguments.threads),
        log,
        get_accuracies=partial(read_accuracies, out / tool.history, tool.column, tool.scale),
        get_first_step=first_step_time,
        limit_seconds=60 * arguments.limit_minutes,
    )
    code_lines = out / "lines"  # written by a script; a command line counts as one line
    return {
        "tool": name,
        "setting": setting,
        "weights": weights,
        "image_size": training.image_size,
        "epochs": training.epochs,
        "load_before": load_before,
        "command": command,
        "lines": int(code_lines.read_text()) if code_lines.exists() else 1,
        "cpu": platform.processor() or platform.machine(),
        "cores": arguments.threads,
        "versions": _versions(command[0], tool.packages.split()),
        "finished": record.exit_code == 0 and len(record.history) >= training.epochs,
        "images_per_second": images_per_second(record, training.prepared["train"]),
        **asdict(record),
    }


def images_per_second(record: Record, num_images: int) -> float | None:
    """Training images per second, from the end of the first epoch to the end of the last one.

    The time of validation is included. None if fewer than two epochs have ended.
    """
    if len(record.history) < 2:
        return None
    seconds = record.history[-1]["seconds"] - record.history[0]["seconds"]
    return num_images * (len(record.history) - 1) / seconds


def _environment(root: Path, threads: int) -> dict[str, str]:
    """The environment variables of a training: number of threads, no downloads, bytecode caches."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    paths = [str(RUNNERS.parents[1]), environment.get("PYTHONPATH", "")]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": str(threads),
        "YOLO_CONFIG_DIR": str(root),
        "YOLO_OFFLINE": "true",
        "HF_HUB_OFFLINE": "1",
    }


def _versions(python: str, packages: list[str]) -> dict[str, str]:
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    output = subprocess.run(
        [python, "-c", code, *packages], capture_output=True, text=True, check=False
    )
    return dict(zip(packages, output.stdout.split(), strict=False))


def report(arguments: argparse.Namespace) -> None:
    """Prints the table of all results so far, and draws race.png."""
    results = load_results(arguments.out / "results")
    if not results:
        raise SystemExit(f"{arguments.out}: no results yet")
    print(table(results))
    draw(results, arguments.out / "race.png")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    prepare_parser = commands.add_parser(
        "prepare", help="links the images and converts the weights"
    )
    prepare_parser.set_defaults(function=prepare)
    prepare_parser.add_argument("images", type=Path, help="folder with one sub-folder per class")
    prepare_parser.add_argument(
        "preset", type=Path, help="EfficientNet-Lite0 as a preset of KerasHub"
    )
    prepare_parser.add_argument("--out", type=Path, required=True, help="new folder for the race")
    prepare_parser.add_argument(
        "--python", type=Path, required=True, help="Python with fastai, timm and Ultralytics"
    )
    prepare_parser.add_argument(
        "--timm_script", type=Path, help="train.py of timm, instead of race/timm_train.py"
    )
    prepare_parser.add_argument(
        "--per_class",
        type=int,
        default=10**9,
        help="largest number of images per class in train and in val, for a short trial",
    )
    run_parser = commands.add_parser("run", help="trains; does not repeat finished trainings")
    run_parser.set_defaults(function=run)
    run_parser.add_argument("tool", nargs="+", choices=["all", *TOOLS], help="tools to train with")
    run_parser.add_argument("--out", type=Path, required=True, help="the prepared folder")
    run_parser.add_argument(
        "--setting", nargs="+", choices=SETTINGS, default=SETTINGS, help="flags of the tools to use"
    )
    run_parser.add_argument(
        "--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS, help="initial weights"
    )
    run_parser.add_argument("--image_size", type=int, default=128, help="side in pixels")
    run_parser.add_argument("--epochs", type=int, default=6, help="number of epochs")
    run_parser.add_argument(
        "--threads", type=int, default=2, help="cores and threads of each training"
    )
    run_parser.add_argument(
        "--limit_minutes", type=float, default=30.0, help="minutes after which a training is killed"
    )
    run_parser.add_argument("--again", action="store_true", help="repeat finished trainings")
    report_parser = commands.add_parser("report", help="prints the table and draws race.png")
    report_parser.set_defaults(function=report)
    report_parser.add_argument("out", type=Path, help="the folder of the race")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that watch() kills the training
    arguments.function(arguments)


if __name__ == "__main__":
    main()
