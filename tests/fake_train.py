"""Stands in for ``seedtf train`` in tests of ``seedtf tune``: writes a made-up history.

The environment variable ``FAKE`` is a JSON object that says which trials misbehave:

- ``exit`` maps the number of a trial to its exit code. With exit code 2, the trial ends at once; with
  any other code, it ends after its last epoch.
- ``signal`` is [trial, epoch, signal number]. After this epoch, the trial sends the signal to the
  process of the search.
- ``hang`` is the number of a trial that sleeps for 30 s after each epoch.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    flag, _, value = sys.argv[1].partition("=")
    plan = json.loads(os.environ.get("FAKE", "{}"))
    # 75 is the exit code of a training that a signal has interrupted.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
    if flag == "--resume":
        run_dir = Path(value)
        flags = json.loads((run_dir / "config.json").read_text())
    else:
        lines = Path(value).read_text().splitlines()
        flags = dict(line[2:].partition("=")[::2] for line in lines)
        run_dir = Path(flags["run_dir"])
    trial = int(run_dir.name.removeprefix("trial-"))
    exit_code = plan.get("exit", {}).get(str(trial))
    if exit_code == 2:
        print("seedtf train: --model=oak: no such network\nnoise of the exit", file=sys.stderr)
        return 2
    history = run_dir / "history.csv"
    if flag == "--flagfile":
        (run_dir / "checkpoints").mkdir(parents=True)
        (run_dir / "checkpoints" / "best.keras").touch()
        (run_dir / "config.json").write_text(json.dumps(flags))
        history.write_text("epoch,lr,loss,accuracy,val_loss,val_accuracy\n")
    epochs_done = len(history.read_text().splitlines()) - 1
    for epoch in range(epochs_done + 1, int(flags["epochs"]) + 1):
        # The best values are lr=0.001 and the smallest crop, and the loss falls with every epoch.
        loss = (math.log10(float(flags["lr"])) + 3) ** 2 + float(flags["crop"]) + 1 / epoch
        with history.open("a") as file:
            file.write(f"{epoch},0.1,1.0,0.5,{loss!r},{1 / (1 + loss)!r}\n")
        if plan.get("signal", [])[:2] == [trial, epoch]:
            os.kill(os.getppid(), plan["signal"][2])
            time.sleep(30)
        if plan.get("hang") == trial:
            time.sleep(30)
    return exit_code or 0


if __name__ == "__main__":
    sys.exit(main())
