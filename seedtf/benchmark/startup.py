"""What a run takes before its first step, in memory and for its cache: measured in child processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from seedtf.errors import UserError

__all__ = [
    "Build",
    "Growth",
    "Start",
    "measure_build",
    "measure_growth",
    "measure_start",
]

# Each child prints one JSON line behind this mark; whatever else it prints is left aside.
_MARK = "MEASURED "

# Runs `seedtf train` as the shell would, and hooks in behind TensorFlow's import, which is part of it.
_TRAIN = """
import json, os, sys, time
from seedtf.commands import train
from seedtf.commands.main import main

import_tensorflow = train.import_tensorflow

def hooked():
    import_tensorflow()
    import psutil
    from seedtf.training.callbacks.epoch_timer import EpochTimer
    {hook}

train.import_tensorflow = hooked
code = main(sys.argv[1:])
{last}
sys.exit(code)
"""
_FIRST_STEP = """
    def stop(self, batch, logs=None):
        print("MEASURED", time.time(), flush=True)
        os._exit(0)
    EpochTimer.on_train_batch_end = stop
"""
_MEMORY = """
    sizes, process, begin = [], psutil.Process(), EpochTimer.on_epoch_begin
    def measure(self, epoch, logs=None):
        sizes.append(process.memory_info().rss)
        begin(self, epoch, logs)
    EpochTimer.on_epoch_begin, train.sizes = measure, sizes
"""
_PRINT_MEMORY = 'print("MEASURED", json.dumps(train.sizes), flush=True)'

# What a first script does: import, build, compile, one step. Keras's defaults, and its own network.
_PLAIN = """
import os, sys, time
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import keras
import tensorflow as tf
name, size, batch, classes = sys.argv[1], *map(int, sys.argv[2:])
image = keras.Input((size, size, 3))
body = getattr(keras.applications, name)(include_top=False, weights=None, input_tensor=image)
pooled = keras.layers.GlobalAveragePooling2D()(body.output)
model = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(pooled))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
images, labels = np.zeros((batch, size, size, 3), np.float32), np.zeros(batch, np.int32)
model.fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0)
print("MEASURED", time.time(), flush=True)
os._exit(0)
"""

# Peak memory of the cache's build above what the process had before it, and the build's seconds.
_BUILD = """
import json, sys, time
from pathlib import Path
from seedtf.compat.tensorflow_env import import_tensorflow
import_tensorflow()
from seedtf.data.catalog import scan_folder
from seedtf.data.decode_files import make_batch_decoder
from seedtf.data.store import CachePlan, build_store

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

root, size, mode, cache_dir = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
catalog = scan_folder(root)
make_batch_decoder(size)  # what TensorFlow takes to trace once
needed = len(catalog) * size * size * 3
before, start = memory("VmRSS:"), time.perf_counter()
store = build_store(catalog, size, CachePlan(mode, needed, ""), cache_dir)
seconds = time.perf_counter() - start
print("MEASURED", json.dumps([seconds, (memory("VmHWM:") - before), needed, len(store.catalog)]))
"""

# The least that a decode pass can cost: TensorFlow's own pipeline over every file, nothing kept.
_PASS = """
import json, sys, time
from seedtf.compat.tensorflow_env import import_tensorflow
import_tensorflow()
import tensorflow as tf
from seedtf.data.catalog import scan_folder

catalog, size = scan_folder(sys.argv[1]), int(sys.argv[2])

def decode(path):
    image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
    scaled = tf.image.resize(image, [size, size], antialias=True)
    return tf.saturate_cast(tf.round(scaled), tf.uint8)

paths = tf.data.Dataset.from_tensor_slices(list(catalog.absolute_paths()))
start = time.perf_counter()
for _ in paths.map(decode, tf.data.AUTOTUNE).batch(64).prefetch(2):
    pass
print("MEASURED", json.dumps(time.perf_counter() - start))
"""


@dataclass(frozen=True)
class Start:
    """Median seconds from the start of the process to the result of the first step.

    Attributes:
        seedtf: of ``seedtf train`` with a warm cache.
        plain: of a script that imports TensorFlow, builds, compiles and takes one step.
        ratio: median of the rounds' own ratios.
    """

    seedtf: float
    plain: float
    ratio: float


@dataclass(frozen=True)
class Build:
    """What the cache costs.

    Attributes:
        mode: ``ram`` or ``disk``.
        seconds: median of building it.
        pass_seconds: median of one parallel pass of TensorFlow's decoder that keeps nothing.
        ratio: median of the rounds' own ratios.
        peak_bytes: most memory above what the process had before.
        decoded_bytes: of all images.
    """

    mode: str
    seconds: float
    pass_seconds: float
    ratio: float
    peak_bytes: int
    decoded_bytes: int

    @property
    def memory_ratio(self) -> float:
        """Peak memory relative to the decoded bytes."""
        return self.peak_bytes / self.decoded_bytes


@dataclass(frozen=True)
class Growth:
    """Resident memory at the begin of every epoch, bytes.

    Attributes:
        sizes: one an epoch.
    """

    sizes: tuple[int, ...]

    @property
    def share(self) -> float:
        """Growth from the first quarter of the epochs to the last: medians, so that 0.01 is 1 %."""
        steady = self.sizes[1:]  # in the first nothing has been trained yet
        quarter = max(len(steady) // 4, 1)
        first = statistics.median(steady[quarter : 2 * quarter] or steady)
        return statistics.median(steady[-quarter:]) / first - 1.0


def measure_start(flags: Sequence[str], plain: Sequence[object], rounds: int) -> Start:
    """Starts both in turn, ``rounds`` times after one that warms the caches.

    Args:
        flags: of ``seedtf train``, without ``--run_dir``.
        plain: network in its proper name, image size, batch size, number of classes.
        rounds: how often each is started.
    """
    code = _TRAIN.format(hook=_FIRST_STEP.strip(), last="")
    times = []
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            ours = _seconds_to_mark(code, ["train", *flags, f"--run_dir={folder}/run"])
        theirs = _seconds_to_mark(_PLAIN, [str(each) for each in plain])
        if number:
            times.append((ours, theirs))
    return Start(*_medians(times))


def measure_build(root: str, size: int, mode: str, rounds: int) -> Build:
    """Builds a cache of ``root`` and passes over it, in turn; the files are in the page cache."""
    times, peaks = [], []
    needed = 1
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak, needed, _ = json.loads(_run(_BUILD, [root, str(size), mode, folder]))
        single = float(json.loads(_run(_PASS, [root, str(size)])))
        if number:
            times.append((seconds, single))
            peaks.append(peak)
    return Build(mode, *_medians(times), int(statistics.median(peaks)), needed)


def measure_growth(flags: Sequence[str], epochs: int) -> Growth:
    """Trains ``epochs`` epochs and looks at the resident memory at the begin of each."""
    code = _TRAIN.format(hook=_MEMORY.strip(), last=_PRINT_MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        run = ["train", *flags, f"--epochs={epochs}", f"--run_dir={folder}/run"]
        return Growth(tuple(json.loads(_run(code, run))))


def _medians(times: list[tuple[float, float]]) -> tuple[float, float, float]:
    first, second = (statistics.median(column) for column in zip(*times, strict=True))
    return first, second, statistics.median(a / b for a, b in times)


def _seconds_to_mark(code: str, arguments: list[str]) -> float:
    start = time.time()
    return float(_run(code, arguments)) - start


def _run(code: str, arguments: list[str]) -> str:
    """Runs Python ``code`` in a new process; what stands behind its mark.

    Raises:
        UserError: it failed; with the last line that it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if not found:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"a measured process failed: {lines[-1]}")
    return found[-1].removeprefix(_MARK)
