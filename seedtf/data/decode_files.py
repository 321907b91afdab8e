"""Decodes several files in one call of TensorFlow.

A call takes longer than the decoding of a small file, so one call for each file would be slow.
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

# The limit of one call, for the bytes of its files and of their pixels together.
_BATCH_BYTES = 16 << 20
_BYTES_PER_PIXEL = 3

_File = tuple[bytes, Header] | RefusedError | OSError


def make_batch_decoder(size: int, max_pixels: int = MAX_PIXELS, fit: str = STRETCH) -> BatchDecoder:
    """Returns a thread-safe function that yields an image or an error for each path, in order.

    Images and refusals are those of ``images.decode.make_decoder``. Small files share a call. The
    memory for files and pixels is limited, however large the images are.

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
            # A file cannot be decoded. Decode one by one, so that the others are not lost.
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
    """``decode_images`` as one graph for all sizes; it is cached, because tracing it takes 0.3 s."""
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
    """Groups files in order; a batch needs at most ``_BATCH_BYTES`` unless it is a single file."""
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
