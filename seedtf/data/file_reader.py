"""Reads and decodes image files whenever a batch needs them (``--cache=off``)."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from seedtf.data.catalog import Catalog
from seedtf.data.paths import is_url, num_threads, read_file
from seedtf.errors import UserError
from seedtf.images.decode import decode_images, pixel_budget
from seedtf.images.header import STRETCH, RefusedError, read_header
from seedtf.images.transcode import to_decodable

__all__ = ["FileReader"]


class FileReader:
    """Reads and decodes images by their index in a catalog, and keeps none of them in memory.

    The header of a file is checked whenever the file is read. A file that has changed in the meantime
    is therefore decoded correctly, or refused with an error that names it.

    Attributes:
        paths: the absolute paths of the files.
        size: side S in pixels of the square images that are returned.
        max_pixels: images with more pixels are refused before memory is allocated for them.
        fit: how an image that is not square becomes square, see ``images.decode.resize_image``.
    """

    def __init__(self, catalog: Catalog, size: int, max_pixels: int, fit: str = STRETCH) -> None:
        """Sets the attributes; opens no file."""
        self.paths, self.size, self.max_pixels = catalog.absolute_paths(), size, max_pixels
        self.fit = fit
        self._names = catalog.paths
        is_remote = is_url(self.paths.prefix)
        self._pool = ThreadPoolExecutor(num_threads(self.paths)) if is_remote else None
        # Eager calls also run this graph, so that they raise the same types of errors as graphs.
        spec = tf.TensorSpec([None], tf.int64)
        self._graph = tf.function(self._read, input_signature=[spec], autograph=False)
        # The deque holds more batches than the pipeline reads at the same time.
        self._recent: deque[np.ndarray] = deque(maxlen=4 * (os.cpu_count() or 1) + 64)

    def read(self, indices: tf.Tensor) -> tf.Tensor:
        """The images at ``indices``, int64 ``[B]``: uint8 ``[B, S, S, 3]``, in a graph or eagerly.

        Raises:
            tf.errors.InvalidArgumentError: a file is refused, unreadable or corrupt.
        """
        return self._graph(indices)

    def _read(self, indices: tf.Tensor) -> tf.Tensor:
        # A stateful function would keep TensorFlow from reading several batches in parallel.
        contents, headers = tf.numpy_function(
            self._load, [indices], [tf.string, tf.int32], stateful=False
        )
        contents, headers = tf.ensure_shape(contents, [None]), tf.ensure_shape(headers, [None, 4])
        return decode_images(contents, headers, self.size, self.fit)

    def recently_read(self) -> np.ndarray:
        """The sorted indices of the last batches, int64, including a batch that could not be read."""
        batches = list(self._recent)
        return np.unique(np.concatenate(batches)) if batches else np.empty(0, np.int64)

    def _load(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The results of ``to_decodable`` for a batch: bytes ``[B]`` and headers int32 ``[B, 4]``."""
        self._recent.append(np.asarray(indices))
        contents, headers = np.empty(len(indices), object), np.empty((len(indices), 4), np.int32)
        map_function = self._pool.map if self._pool else map
        for row, loaded in enumerate(map_function(self._load_one, indices.tolist())):
            contents[row], headers[row] = loaded
        return contents, headers

    def _load_one(self, index: int) -> tuple[bytes, tuple[int, int, int, int]]:
        try:
            data = read_file(self.paths[index], self.max_pixels)
            header = read_header(data, self.max_pixels)
            with pixel_budget.reserve(header.pixels if header.needs_pillow else 0):
                return to_decodable(data, header, self.max_pixels)
        except RefusedError as error:
            raise ValueError(f"{self._names[index]}: {error}") from None
        except OSError as error:
            raise ValueError(f"{self._names[index]}: unreadable: {error.strerror}") from None
        except UserError as error:  # a damaged pack
            raise ValueError(str(error)) from None
