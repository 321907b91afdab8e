"""Trains on the made-up GPUs of ``fake_gpu``, run after run: python gpu_worker.py DATA OUT CASES

CASES is a JSON object: the flags of each run by its name. Each run prints one line, ``CASE`` and a JSON
object: the error that it ended with, the counters of the driver, the copies to the host and the waits
of the main thread between two calls of the train function in an epoch, and how much GPU memory
TensorFlow may allocate.
"""

from __future__ import annotations

import itertools
import json
import sys
import traceback
from typing import Any

from fake_gpu import read_counters
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
    # Kernels that do nothing give meaningless numbers, so the checks for NaN are switched off.
    StopOnNaN._check = lambda self, step, logs: None  # type: ignore[method-assign]
    saver._check_finite = lambda state: None
    counts_at_steps: list[tuple[int, int, int]] = []
    real_begin = EachStep.on_train_batch_begin

    def begin(self: EachStep, batch: int, logs: Any = None) -> None:
        real_begin(self, batch, logs)
        now = read_counters()
        counts_at_steps.append((batch, now["main_to_host"], now["main_waits"]))

    EachStep.on_train_batch_begin = begin  # type: ignore[method-assign]
    for name, flags in cases.items():
        before, error = read_counters(), ""
        counts_at_steps.clear()
        config = TrainConfig(data_dir=data, run_dir=f"{out}/{name}", **{**PLAIN, **flags})
        try:
            with open_session(config) as session:
                session.train()
        except Exception:
            error = traceback.format_exc()
        after = read_counters()
        result = {
            "name": name,
            "error": error,
            "counts": {key: after[key] - before[key] for key in after},
            # (copies to the host, waits) of the main thread between two calls in an epoch
            "between": [
                (later[1] - earlier[1], later[2] - earlier[2])
                for earlier, later in itertools.pairwise(counts_at_steps)
                if later[0] > 0
            ],
            "memory": gpu_memory_limits(),
        }
        sys.stdout.write(f"CASE {json.dumps(result)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
