"""Decodes several image files with one call of a TensorFlow graph.

One call for each file would be slow, because calling the graph takes longer than decoding a small file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from seedtf.data.paths import read_file
from seedtf.images.decode import decode_images, make_decoder, pixel_budget
from seedtf.images.header import MAX_PIXELS, STRETCH, Header, RefusedError, read_header
from seedtf.images.transcode import to_decodable

__all__ = ["BatchDecoder", "Decoded", "make_batch_decoder"]

Decoded = np.ndarray | RefusedError | OSError
"""The image, uint8 ``[S, S, 3]``, or the reason why the file cannot be used."""

BatchDecoder = Callable[[Iterable[str]], Iterator[Decoded]]
"""What ``make_batch_decoder`` returns."""

# The largest number of bytes in one call: those of the files plus those of their pixels.
_BATCH_BYTES = 16 << 20
_BYTES_PER_PIXEL = 3

_File = tuple[bytes, Header] | RefusedError | OSError


def make_batch_decoder(size: int, max_pixels: int = MAX_PIXELS, fit: str = STRETCH) -> BatchDecoder:
    """A thread-safe function that yields the decoded image, or an error, for each path, in order.

    Images and errors are the same as with ``images.decode.make_decoder``. Several small files are
    decoded in one call. The memory for files and pixels is limited, however large the images are.

    Args:
        size: side S in pixels of the decoded images.
        max_pixels: images with more pixels are refused before memory is allocated for them.
        fit: how an image that is not square becomes square, see ``images.decode.resize_image``.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (640, 480), "green").save("leaf.png")
        >>> decode = make_batch_decoder(32)
        >>> image, error = decode(["leaf.png", "missing.png"])
        >>> image.shape, type(error).__name__
        ((32, 32, 3), 'FileNotFoundError')
    """
    graph, side = _decode_graph(fit), tf.constant(size)
    # The decoder for single files is traced only if a file of a batch cannot be decoded.
    get_single_decoder = functools.cache(lambda: make_decoder(size, max_pixels, fit))

    def decode_together(files: list[tuple[bytes, Header]]) -> Iterator[Decoded]:
        pixels = sum(header.pixels for _, header in files)
        try:
            with pixel_budget.reserve(pixels), tf.device("/cpu:0"):
                decodable = [to_decodable(data, header, max_pixels) for data, header in files]
                contents = tf.constant([data for data, _ in decodable], tf.string)
                headers = np.array([for_decoder for _, for_decoder in decodable], np.int32)
                del decodable
                images = graph(contents, headers.reshape(-1, 4), side).numpy()
        except (tf.errors.OpError, RefusedError):
            # At least one of the files cannot be decoded. Decode each alone, to find out which.
            for data, _ in files:
                try:
                    yield get_single_decoder()(data).numpy()
                except RefusedError as error:
                    yield error
        else:
            yield from images

    def decode(paths: Iterable[str]) -> Iterator[Decoded]:
        for batch in _batches(_read(path, max_pixels) for path in paths):
            images = decode_together([file for file in batch if isinstance(file, tuple)])
            for file in batch:
                yield next(images) if isinstance(file, tuple) else file

    return decode


@functools.cache
def _decode_graph(fit: str) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """``decode_images`` as one graph for all sizes, cached because tracing the graph takes 0.3 s."""
    scalar = tf.TensorSpec([], tf.int32)
    spec = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 4], tf.int32), scalar]
    return tf.function(
        lambda contents, headers, size: decode_images(contents, headers, size, fit),
        input_signature=spec,
        autograph=False,
    ).get_concrete_function()


def _read(path: str, max_pixels: int) -> _File:
    try:
        data = read_file(path, max_pixels)
        return data, read_header(data, max_pixels)
    except (RefusedError, OSError) as error:
        return error


def _batches(files: Iterable[_File]) -> Iterator[list[_File]]:
    """Yields batches of consecutive files: of one file, or of at most ``_BATCH_BYTES`` bytes."""
    batch: list[_File] = []
    batch_bytes = 0
    for file in files:
        needed = _bytes_needed(*file) if isinstance(file, tuple) else 0
        if batch and batch_bytes + needed > _BATCH_BYTES:
            yield batch
            batch, batch_bytes = [], 0
        batch.append(file)
        batch_bytes += needed
    if batch:
        yield batch


def _bytes_needed(data: bytes, header: Header) -> int:
    return len(data) + header.pixels * _BYTES_PER_PIXEL
