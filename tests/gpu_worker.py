"""Trains several runs on the fake GPUs of ``fake_gpu.py``: ``python gpu_worker.py DATA OUT CASES``.

CASES is a JSON object that maps the name of each run to its flags. Each run prints one line, which is
``CASE`` and a JSON object with these keys:

- ``name``: the name of the run.
- ``error``: the traceback of the exception that ended the run, or "".
- ``counts``: what the stub driver counted during the run, by the names of ``read_counters``.
- ``between``: for every two successive calls of the train function in an epoch, what the main thread
  did between them: [number of copies to the host, number of waits].
- ``memory``: the bytes that TensorFlow may allocate on each GPU, from ``gpu_memory_limits``.
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

DEFAULTS = {"model": "tiny", "weights": "none", "image_size": 16, "batch_size": 4, "epochs": 2}


def main(data: str, out: str, cases: dict[str, dict[str, Any]]) -> None:
    import_tensorflow()
    from seedtf.config.train_config import TrainConfig
    from seedtf.training import saver
    from seedtf.training.callbacks import EachStep, StopOnNaN
    from seedtf.training.train import open_session

    replace_figures(setattr)
    # The kernels of the stub libraries compute nothing, so the checks for NaN are switched off.
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
        config = TrainConfig(data_dir=data, run_dir=f"{out}/{name}", **{**DEFAULTS, **flags})
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
