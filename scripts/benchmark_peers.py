"""Augmented images per second: seedtf and other libraries, on the same images and number of threads.

    pip install . -r scripts/benchmark_peers_requirements.txt
    python scripts/benchmark_peers.py

256² uint8 images in memory become 224² float32 batches of 64: random crop, stretch, flips, rotation,
brightness, contrast, saturation and hue. Each library runs in its own process, warmed up, and they
take turns: a round measures each once, and a ratio is the median over the rounds. A process without a
turn is stopped (SIGSTOP), because it would otherwise fill its queues while another is measured. DALI
and Albumentations do not rotate; ImageDataGenerator neither stretches nor changes the hue, and its
images already have 224².
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

IN_SIZE, OUT_SIZE, BATCH, IMAGES = 256, 224, 64, 512
CROP, STRETCH, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.1, 0.1, 0.1, 0.1, 5.0

Batches = Iterator[Any]


def noise_images(size: int = IN_SIZE) -> Any:
    """The images that all libraries use: uint8 ``[IMAGES, size, size, 3]``, plain patches of 16²."""
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (IMAGES, size // 16, size // 16, 3), np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def _tensorflow(threads: int) -> Any:
    """TensorFlow with the settings of the ``seedtf`` command, for every TensorFlow pipeline."""
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    return tf


def _prefetch(tf: Any, dataset: Any, threads: int) -> Batches:
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    return iter(dataset.prefetch(2).with_options(options))


def _seedtf(threads: int, variant: str) -> Batches:
    _tensorflow(threads)
    from seedtf.augment.policy import Policy
    from seedtf.benchmark.pipeline import make_batches, store_of_images

    policy = Policy(crop=CROP, stretch=STRETCH, rotate=180.0, hue=HUE)
    return iter(make_batches(store_of_images(noise_images()), OUT_SIZE, BATCH, policy, variant))


def seedtf_host(threads: int) -> Batches:
    """The training pipeline of seedtf."""
    return _seedtf(threads, "fused")


def seedtf_device(threads: int) -> Batches:
    """The host's part of seedtf's pipeline when the device augments: uint8 batches."""
    return _seedtf(threads, "device")


def keras_generator(threads: int) -> Batches:
    """Keras's ImageDataGenerator, with ``threads`` threads that make batches."""
    import queue
    import threading

    tf = _tensorflow(threads)
    import numpy as np

    images = noise_images(OUT_SIZE).astype(np.float32)
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=180,
        zoom_range=CROP,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
        channel_shift_range=255 * BRIGHTNESS,
        fill_mode="reflect",
        interpolation_order=1,
    )
    flow = generator.flow(images, batch_size=BATCH, shuffle=True)
    batches: queue.Queue[Any] = queue.Queue(2)

    def work() -> None:
        while True:
            batches.put(next(flow))

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()
    while True:
        yield batches.get()


def keras_layers(threads: int) -> Batches:
    """Keras 3 preprocessing layers on whole batches, in tf.data."""
    tf = _tensorflow(threads)
    import keras

    def chain() -> Any:
        layers = keras.layers
        return keras.Sequential(
            [
                layers.RandomZoom((-CROP, 0.0), (-CROP, 0.0)),
                layers.RandomCrop(OUT_SIZE, OUT_SIZE),
                layers.RandomFlip(),
                layers.RandomRotation(0.5),
                layers.RandomBrightness(BRIGHTNESS),
                layers.RandomContrast(CONTRAST),
                layers.RandomSaturation((0.5 - SATURATION / 2, 0.5 + SATURATION / 2)),
                layers.RandomHue(HUE / 180, value_range=(0, 255)),
            ]
        )

    layers = chain()
    images = tf.constant(noise_images())
    indices = tf.data.Dataset.range(IMAGES).repeat().shuffle(IMAGES).batch(BATCH)
    dataset = indices.map(
        lambda i: layers(tf.cast(tf.gather(images, i), tf.float32), training=True), threads
    )
    return _prefetch(tf, dataset, threads)


def tf_image(threads: int) -> Batches:
    """Operations of tf.image, one image at a time, as in TensorFlow's tutorials."""
    tf = _tensorflow(threads)

    def rotate(image: Any, angle: Any) -> Any:
        middle = (OUT_SIZE - 1) / 2
        cos, sin = tf.cos(angle), tf.sin(angle)
        offset = (middle - cos * middle + sin * middle, middle - sin * middle - cos * middle)
        row = tf.stack([cos, -sin, offset[0], sin, cos, offset[1], 0.0, 0.0])
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=row[None],
            output_shape=[OUT_SIZE, OUT_SIZE],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )[0]

    def augment(image: Any) -> Any:
        window = 1.0 - CROP * tf.random.uniform([])
        aspect = tf.exp(tf.random.uniform([], -STRETCH / 2, STRETCH / 2))
        height = tf.cast(tf.minimum(window * aspect, 1.0) * IN_SIZE, tf.int32)
        width = tf.cast(tf.minimum(window / aspect, 1.0) * IN_SIZE, tf.int32)
        image = tf.image.random_crop(image, tf.stack([height, width, 3]))
        image = tf.image.resize(image, [OUT_SIZE, OUT_SIZE])
        image = tf.image.random_flip_up_down(tf.image.random_flip_left_right(image))
        image = rotate(image, tf.random.uniform([], -3.14159, 3.14159)) / 255.0
        image = tf.image.random_brightness(image, BRIGHTNESS)
        image = tf.image.random_contrast(image, 1 - CONTRAST, 1 + CONTRAST)
        image = tf.image.random_saturation(image, 1 - SATURATION, 1 + SATURATION)
        image = tf.image.random_hue(image, HUE / 360)
        return tf.clip_by_value(image * 255.0, 0.0, 255.0)

    images = tf.constant(noise_images())
    indices = tf.data.Dataset.range(IMAGES).repeat().shuffle(IMAGES)
    dataset = indices.map(lambda i: augment(tf.gather(images, i)), threads, deterministic=False)
    return _prefetch(tf, dataset.batch(BATCH, drop_remainder=True), threads)


def dali(threads: int) -> Batches:
    """NVIDIA DALI on the CPU, without rotation."""
    import numpy as np
    from nvidia.dali import fn, pipeline_def, types

    images = noise_images()
    rng = np.random.default_rng(0)

    @pipeline_def(batch_size=BATCH, num_threads=threads, device_id=None, prefetch_queue_depth=2)
    def pipeline() -> Any:
        image = fn.external_source(
            source=lambda: [images[i] for i in rng.integers(0, IMAGES, BATCH)],
            layout="HWC",
            no_copy=True,
        )
        image = fn.random_resized_crop(
            image,
            size=[OUT_SIZE, OUT_SIZE],
            random_area=[(1 - CROP) ** 2, 1.0],
            random_aspect_ratio=[1 / (1 + STRETCH), 1 + STRETCH],
            antialias=False,
        )
        image = fn.flip(image, horizontal=fn.random.coin_flip(), vertical=fn.random.coin_flip())
        return fn.color_twist(
            image,
            brightness=fn.random.uniform(range=[1 - BRIGHTNESS, 1 + BRIGHTNESS]),
            contrast=fn.random.uniform(range=[1 - CONTRAST, 1 + CONTRAST]),
            saturation=fn.random.uniform(range=[1 - SATURATION, 1 + SATURATION]),
            hue=fn.random.uniform(range=[-HUE, HUE]),
            dtype=types.FLOAT,
        )

    built = pipeline()
    built.build()
    while True:
        yield built.run()[0].as_array()


def albumentations(threads: int) -> Batches:
    """Albumentations (OpenCV), without rotation; uint8 up to the last step, which is fastest."""
    from concurrent.futures import ThreadPoolExecutor

    import albumentations as a
    import cv2
    import numpy as np

    cv2.setNumThreads(1)  # one thread per image is faster than two threads for one image
    area, ratio = ((1 - CROP) ** 2, 1.0), (1 / (1 + STRETCH), 1 + STRETCH)
    chain = a.Compose(
        [
            a.RandomResizedCrop((OUT_SIZE, OUT_SIZE), scale=area, ratio=ratio),
            a.HorizontalFlip(),
            a.VerticalFlip(),
            a.ColorJitter(
                brightness=(1 - BRIGHTNESS, 1 + BRIGHTNESS),
                contrast=(1 - CONTRAST, 1 + CONTRAST),
                saturation=(1 - SATURATION, 1 + SATURATION),
                hue=(-HUE / 360, HUE / 360),
                p=1.0,
            ),
        ]
    )
    images = noise_images()
    rng = np.random.default_rng(0)

    def fill(arguments: tuple[Any, Any]) -> None:
        batch, rows = arguments
        for row, index in rows:
            batch[row] = chain(image=images[index])["image"]

    with ThreadPoolExecutor(threads) as pool:
        while True:
            batch = np.empty((BATCH, OUT_SIZE, OUT_SIZE, 3), np.float32)
            rows = list(enumerate(rng.integers(0, IMAGES, BATCH)))
            list(pool.map(fill, [(batch, rows[k::threads]) for k in range(threads)]))
            yield batch


# name: (function that yields batches, title in the table, target of the ratio to seedtf)
PEERS: dict[str, tuple[Callable[[int], Batches], str, float]] = {
    "keras_generator": (keras_generator, "Keras ImageDataGenerator", 30),
    "keras_layers": (keras_layers, "Keras 3 preprocessing layers in tf.data", 30),
    "tf_image": (tf_image, "tf.image per image", 6),
    "dali": (dali, "DALI on CPU (no rotation)", 6),
    "albumentations": (albumentations, "Albumentations, OpenCV (no rotation)", 4),
}
OURS: dict[str, tuple[Callable[[int], Batches], str]] = {
    "seedtf": (seedtf_host, "seedtf, augmentation on the host"),
    "device": (seedtf_device, "seedtf, augmentation on the device: uint8 batches leaving the host"),
}


def worker_loop(name: str, threads: int) -> None:
    """Makes batches for as many seconds as each line of stdin says, and prints images per second."""
    batches = {**PEERS, **OURS}[name][0](threads)
    for _ in range(3):
        next(batches)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(3):  # these were prefetched before the turn
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            next(batches)
            count += BATCH
        print(count / (time.perf_counter() - start), flush=True)


class Worker:
    """A process that answers each line with a line, and is stopped in between."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        """Starts the process and waits until it is warmed up."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        if self._read_line() != "ready":
            raise SystemExit(f"{name} did not start; see its message above")
        self._process.send_signal(signal.SIGSTOP)

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        """Lets the process run until it has answered ``line``; returns the answer."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._read_line()
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def stop(self) -> None:
        """Kills the process."""
        self._process.kill()
        self._process.wait()


def _start(name: str, threads: int, cores: set[int]) -> Worker:
    """Starts the worker of a library on ``cores``."""
    command = [sys.executable, __file__, f"--worker={name}", f"--threads={threads}"]
    command.append("--cores=" + ",".join(map(str, sorted(cores))))
    return Worker(name, command, threads)


def measure(names: list[str], threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Images per second in every round, by name; all processes are warmed up before the first round."""
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    rates: dict[str, list[float]] = {name: [] for name in [*names, "seedtf, one core"]}
    workers: dict[str, Worker] = {}
    try:
        for name in names:
            workers[name] = _start(name, threads, cores)
        workers["seedtf, one core"] = _start("seedtf", 1, {min(cores)})
        for _ in range(rounds):
            for name, worker in workers.items():
                rates[name].append(float(worker.ask(f"{seconds}")))
    finally:  # stopped processes would outlive this one if they were not killed
        for worker in workers.values():
            worker.stop()
    return rates


def _versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are installed."""
    names = ("seedtf", "tensorflow", "keras", "nvidia-dali-cuda120", "albumentations",
             "opencv-python-headless", "numpy")  # fmt: skip
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def report(rates: dict[str, list[float]]) -> tuple[list[str], dict[str, Any]]:
    """The lines of the table, and the same figures as JSON values."""
    seedtf = rates["seedtf"]
    lines = [f"{'images/s':>10} {'seedtf is':>10} {'target':>8}"]
    result: dict[str, Any] = {"versions": _versions(), "images_per_second": {}, "ratios": {}}

    def line(rate: float, ratio: str, target: str, title: str) -> None:
        lines.append(f"{rate:10,.0f} {ratio:>10} {target:>8}  {title}")

    for name, values in rates.items():
        median = statistics.median(values)
        result["images_per_second"][name] = median
        if name in PEERS:
            ratio = statistics.median(a / b for a, b in zip(seedtf, values, strict=True))
            result["ratios"][name] = ratio
            mark = "" if ratio >= PEERS[name][2] else " MISSED"
            line(median, f"{ratio:.1f} ×", f"{PEERS[name][2]:.0f} ×", PEERS[name][1] + mark)
        elif name in OURS:
            line(median, "", "", OURS[name][1])
        else:
            scaling = statistics.median(a / b for a, b in zip(seedtf, values, strict=True))
            result["scaling"] = scaling
            mark = "" if scaling >= 1.8 else " MISSED"
            line(median, f"{scaling:.2f} ×", "1.8 ×", f"seedtf on one core{mark}")
    return lines, result


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; medians are printed")
    parser.add_argument("--seconds", type=float, default=6.0, help="seconds per turn")
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of each")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--cores", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        # Libraries count the cores when they are imported.
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})
        worker_loop(arguments.worker, arguments.threads)
        return
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := sorted(set(names) - set(PEERS)):
        parser.error(f"--peers={','.join(unknown)}: unknown; choose from {', '.join(PEERS)}")
    rates = measure([*OURS, *names], arguments.threads, arguments.rounds, arguments.seconds)
    lines, result = report(rates)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{IN_SIZE}² uint8 -> {OUT_SIZE}² float32, batches of {BATCH}, {arguments.threads} threads, "
          f"median of {arguments.rounds} rounds of {arguments.seconds:g} s")  # fmt: skip
    print("\n".join(lines))
    print(", ".join(f"{name} {version}" for name, version in result["versions"].items()))


if __name__ == "__main__":
    main()
