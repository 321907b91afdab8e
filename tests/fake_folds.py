"""Replaces the commands that ``seedtf folds`` starts: ``fake_folds.py KIND ARGUMENT…``.

``divide`` assigns eight images to folds. ``train`` writes a made-up history of four epochs; on resume,
it adds the missing ones. ``evaluate`` writes all histories, as JSON, in place of the predictions.
FAKE_SLEEP in the environment is the duration of an epoch in seconds, and FAKE_TRAINED is a file that
gets a line for each fold that is trained to its end.
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
    folder = next(value[6:] for value in reversed(arguments) if value.startswith("--out="))
    folds = next(int(value[8:]) for value in arguments if value.startswith("--folds="))
    paths = FoldsPaths(Path(folder))
    paths.write_settings(folds, {"data_dir": "d", "model": "tiny"})
    paths.write_table(FoldRow(f"{n}.png", "oak", str(n % folds), "") for n in range(8))


def train(arguments: list[str]) -> None:
    name, _, value = arguments[0].partition("=")
    if name == "--flagfile":
        lines = Path(value).read_text().splitlines()
        value = dict(line[2:].partition("=")[::2] for line in lines)["run_dir"]
        Path(value).mkdir(parents=True)
    run = RunPaths(Path(value))
    run.state.mkdir(exist_ok=True)
    if not run.history.exists():
        run.history.write_text("epoch,lr,loss,accuracy,val_loss,val_accuracy\n")
    run.config.write_text("{}")
    done = len(run.history.read_text().splitlines()) - 1
    for epoch in range(done + 1, EPOCHS + 1):
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
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    {"divide": divide, "train": train, "evaluate": evaluate}[sys.argv[1]](sys.argv[2:])
