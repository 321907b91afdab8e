"""Builds a cache of decoded images, or decodes the same images without keeping them.

    python -m seedtf.benchmark.children.cache build ROOT IMAGE_SIZE MODE CACHE_DIR
    python -m seedtf.benchmark.children.cache decode ROOT IMAGE_SIZE

``build`` writes a list: seconds, peak memory of the process minus its memory before the build, and
bytes of all decoded images. ``decode`` writes the seconds in which a plain ``tf.data`` pipeline decodes
and resizes every file, a reference for the time of a build. MODE is ``ram`` or ``disk``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import tensorflow as tf

from seedtf.benchmark.children import write_result
from seedtf.data.catalog import scan_folder
from seedtf.data.decode_files import make_batch_decoder
from seedtf.data.store import CachePlan, build_store


def build(root: str, image_size: str, mode: str, cache_dir: str) -> None:
    """Builds the cache of the images below ``root``; ``mode`` is ``ram`` or ``disk``."""
    size, catalog = int(image_size), scan_folder(root)
    make_batch_decoder(size)  # so that tracing, which a process does once, is not measured
    decoded_bytes = len(catalog) * size * size * 3
    before, start = _read_memory("VmRSS:"), time.perf_counter()
    build_store(catalog, size, CachePlan(mode, decoded_bytes, ""), Path(cache_dir))
    seconds, peak = time.perf_counter() - start, _read_memory("VmHWM:") - before
    write_result([seconds, peak, decoded_bytes])


def decode(root: str, image_size: str) -> None:
    """Decodes and resizes every image below ``root`` in parallel, and discards it."""
    size, catalog = int(image_size), scan_folder(root)

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        resized = tf.image.resize(image, [size, size], antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)

    paths = tf.data.Dataset.from_tensor_slices(list(catalog.absolute_paths()))
    start = time.perf_counter()
    for _ in paths.map(load, tf.data.AUTOTUNE).batch(64).prefetch(2):
        pass
    write_result(time.perf_counter() - start)


def _read_memory(field: str) -> int:
    """Resident memory in bytes from Linux's /proc/self/status: ``VmRSS:`` now, ``VmHWM:`` the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    if sys.argv[1] == "build":
        build(*sys.argv[2:])
    else:
        decode(*sys.argv[2:])
