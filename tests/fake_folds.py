"""Stands in for the commands that ``seedtf folds`` starts: ``fake_folds.py COMMAND ARGUMENT…``.

COMMAND is one of these:

- ``divide`` assigns eight images to folds.
- ``train`` writes a made-up history of four epochs. On resume, it adds only the missing epochs.
- ``evaluate`` writes the histories of all folds, as JSON, to the file of the predictions.

Two environment variables control ``train``. FAKE_SLEEP is the duration of an epoch in seconds.
FAKE_TRAINED is the path of a file, to which ``train`` adds the name of each fold that it finishes.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from seedtf.runs.folds import FoldRow, FoldsPaths
from seedtf.runs.paths import RunPaths

EPOCHS = 4


def divide(arguments: list[str]) -> None:
    folder = next(
        argument.removeprefix("--out=")
        for argument in reversed(arguments)
        if argument.startswith("--out=")
    )
    num_folds = next(
        int(argument.removeprefix("--folds="))
        for argument in arguments
        if argument.startswith("--folds=")
    )
    paths = FoldsPaths(Path(folder))
    paths.write_settings(num_folds, {"data_dir": "d", "model": "tiny", "zoom_out": 0.1})
    paths.write_table(FoldRow(f"{n}.png", "oak", str(n % num_folds), "") for n in range(8))


def train(arguments: list[str]) -> None:
    flag, _, value = arguments[0].partition("=")
    if flag == "--resume":
        run_dir = Path(value)
    else:
        lines = Path(value).read_text().splitlines()
        run_dir = Path(dict(line[2:].partition("=")[::2] for line in lines)["run_dir"])
        run_dir.mkdir(parents=True)
    run = RunPaths(run_dir)
    run.state.mkdir(exist_ok=True)
    if not run.history.exists():
        run.history.write_text("epoch,lr,loss,accuracy,val_loss,val_accuracy\n")
    run.config.write_text("{}")
    epochs_done = len(run.history.read_text().splitlines()) - 1
    for epoch in range(epochs_done + 1, EPOCHS + 1):
        time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
        with run.history.open("a") as file:
            file.write(f"{epoch},0.1,1.0,0.5,{1 / epoch!r},{1 - 1 / (epoch + 1)!r}\n")
    if "FAKE_TRAINED" in os.environ:
        with open(os.environ["FAKE_TRAINED"], "a", encoding="utf-8") as file:
            file.write(f"{run.root.name}\n")


def evaluate(arguments: list[str]) -> None:
    paths = FoldsPaths(Path(arguments[0]))
    folds = range(paths.read_settings()["folds"])
    histories = {number: paths.fold(number).history.read_text() for number in folds}
    paths.predictions.write_text(json.dumps(histories))


if __name__ == "__main__":
    # 75 is the exit code of a command that a signal has interrupted.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    {"divide": divide, "train": train, "evaluate": evaluate}[sys.argv[1]](sys.argv[2:])
