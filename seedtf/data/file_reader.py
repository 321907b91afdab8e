"""Reads, judges and decodes the files of a batch each time they are asked for (``--cache=off``)."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Catalog
from seedtf.data.map_files import num_threads, read_file
from seedtf.data.paths import is_url
from seedtf.images.decode import decode_files
from seedtf.images.header import RefusedError, read_header

__all__ = ["FileReader"]


class FileReader:
    """Images by their place in a catalog; nothing but the catalog stays in memory.

    A file is judged by its header at every reading, so one that was never opened before, or has
    changed since, is decoded right or refused by name.

    Attributes:
        paths: the files.
        size: side in pixels that images are resized to.
        max_pixels: larger ones are refused before anything is allocated.
    """

    def __init__(self, catalog: Catalog, size: int, max_pixels: int) -> None:
        """Opens nothing; arguments as the attributes."""
        self.paths, self.size, self.max_pixels = catalog.absolute_paths(), size, max_pixels
        self._names = catalog.paths
        workers = num_threads(self.paths)
        self._pool = ThreadPoolExecutor(workers) if is_url(self.paths.prefix) else None
        # a graph also where it is called eagerly, so that errors are of one kind
        spec = tf.TensorSpec([None], tf.int64)
        self._graph = tf.function(self._read, input_signature=[spec], autograph=False)
        # more batches than the pipeline ever has in hand
        self._recent: deque[np.ndarray] = deque(maxlen=4 * (os.cpu_count() or 1) + 64)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """int64 ``[B]`` → uint8 ``[B, S, S, 3]``, in the graph or eagerly.

        Raises:
            tf.errors.InvalidArgumentError: a file is refused, unreadable or corrupt.
        """
        return self._graph(indices)

    def _read(self, indices: tf.Tensor) -> tf.Tensor:
        # stateless for TensorFlow: batches may be read side by side
        contents, facts = tf.numpy_function(
            self._load, [indices], [tf.string, tf.uint8], stateful=False
        )
        return decode_files(
            tf.ensure_shape(contents, [None]), tf.ensure_shape(facts, [None, 2]), self.size
        )

    def recently_read(self) -> np.ndarray:
        """The records of the last batches, int64: one that just failed to decode is among them."""
        batches = list(self._recent)
        return np.unique(np.concatenate(batches)) if batches else np.empty(0, np.int64)

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whole files, bytes ``[B]``, and of each uint8 orientation and whether it has alpha."""
        self._recent.append(np.asarray(indices))
        contents, facts = np.empty(len(indices), object), np.empty((len(indices), 2), np.uint8)
        read = self._pool.map if self._pool else map
        for row, (data, *found) in enumerate(read(self._judged, indices.tolist())):
            contents[row], facts[row] = data, found
        return contents, facts

    def _judged(self, index: int) -> tuple[bytes, int, bool]:
        try:
            data = read_file(self.paths[index], self.max_pixels)
            header = read_header(data, self.max_pixels)
        except RefusedError as error:
            raise ValueError(f"{self._names[index]}: {error}") from None
        except OSError as error:
            raise ValueError(f"{self._names[index]}: unreadable: {error.strerror}") from None
        return data, header.orientation, header.has_alpha
