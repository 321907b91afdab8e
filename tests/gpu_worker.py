"""Trains on the made-up GPUs of ``fake_gpu``, run after run: python gpu_worker.py DATA OUT CASES

CASES is a JSON object: the flags of each run by its name. Each run is one JSON line on stdout with the
error that it ended with, what the driver counted in it, and for every training step, from the second of
an epoch on, what the main thread had to wait for since the step before it.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from typing import Any

from fake_gpu import counts
from figures import replace_figures

from seedtf.compat.tensorflow import gpu_memory_limits
from seedtf.compat.tensorflow_env import import_tensorflow

PLAIN = {"model": "tiny", "weights": "none", "image_size": 16, "batch_size": 4, "epochs": 2}


def main(data: str, out: str, cases: dict[str, dict[str, Any]]) -> None:
    import_tensorflow()
    from seedtf.config.train_config import TrainConfig
    from seedtf.training import saver
    from seedtf.training.callbacks import EachStep, StopOnNaN
    from seedtf.training.train import open_session

    replace_figures(setattr)
    # The numbers mean nothing, so nothing may depend on them.
    StopOnNaN._check = lambda self, step, logs: None  # type: ignore[method-assign]
    saver._check_finite = lambda state: None
    waits: list[tuple[int, int, int]] = []
    real_begin = EachStep.on_train_batch_begin

    def begin(self: EachStep, batch: int, logs: Any = None) -> None:
        real_begin(self, batch, logs)
        now = counts()
        waits.append((batch, now["main_to_host"], now["main_waits"]))

    EachStep.on_train_batch_begin = begin  # type: ignore[method-assign]
    for name, flags in cases.items():
        before, error = counts(), ""
        waits.clear()
        config = TrainConfig(data_dir=data, run_dir=f"{out}/{name}", **{**PLAIN, **flags})
        try:
            with open_session(config) as session:
                session.train()
        except Exception:
            error = traceback.format_exc()
        after = counts()
        found = {
            "name": name,
            "error": error,
            "counts": {key: after[key] - before[key] for key in after},
            # copies to the host and waits of the main thread between two steps of an epoch
            "between": [
                (later[1] - earlier[1], later[2] - earlier[2])
                for earlier, later in itertools.pairwise(waits)
                if later[0] > 0
            ],
            "memory": gpu_memory_limits(),
        }
        sys.stdout.write(f"CASE {json.dumps(found)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
