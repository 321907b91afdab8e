"""Measures the build of a cache of decoded images, or the decoding of the images without a cache.

    python -m seedtf.benchmark.children.cache build ROOT IMAGE_SIZE MODE CACHE_DIR
    python -m seedtf.benchmark.children.cache decode ROOT IMAGE_SIZE

MODE is ``ram`` or ``disk``. ``build`` writes a list of three numbers: the seconds; the peak memory of
the process minus its memory before the build, in bytes; and the bytes of all decoded images. ``decode``
writes the seconds in which a plain ``tf.data`` pipeline decodes and resizes every file. The time of a
build is compared with these seconds.
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
    """Measures the build of a cache of the images below ``root``, and writes the result."""
    size, catalog = int(image_size), scan_folder(root)
    make_batch_decoder(size)  # traces the decoder, which a process does only once
    decoded_bytes = len(catalog) * size * size * 3
    before, start = _read_memory("VmRSS:"), time.perf_counter()
    build_store(catalog, size, CachePlan(mode, decoded_bytes, ""), Path(cache_dir))
    seconds, peak = time.perf_counter() - start, _read_memory("VmHWM:") - before
    write_result([seconds, peak, decoded_bytes])


def decode(root: str, image_size: str) -> None:
    """Measures the time to decode and resize all images below ``root``, and writes the result."""
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
