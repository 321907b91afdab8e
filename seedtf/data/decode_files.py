"""Reads and decodes many files with few calls: a cache is built in the time that decoding takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from seedtf.data.map_files import read_file
from seedtf.images.decode import decode_files, make_decoder
from seedtf.images.header import MAX_PIXELS, Header, RefusedError, read_header

__all__ = ["Outcome", "make_group_decoder"]

Outcome = np.ndarray | RefusedError | OSError
"""uint8 ``[S, S, 3]``, or why there is none."""

# of the files and their pixels that are decoded by one call
_GROUP_BYTES = 16 << 20
_BYTES_PER_PIXEL = 3

_Read = tuple[bytes, Header] | RefusedError | OSError


def make_group_decoder(
    size: int, max_pixels: int = MAX_PIXELS
) -> Callable[[Iterable[str]], Iterator[Outcome]]:
    """A function from paths to the outcome of each, in order; safe to call from many threads.

    The images are those of ``decode.make_decoder``, and so are the refusals. Small ones share a
    call; what is held of files and pixels is bounded, whatever their size.
    """
    spec = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None, 2], tf.uint8)]
    graph = tf.function(
        lambda contents, facts: decode_files(contents, facts, size),
        input_signature=spec,
        autograph=False,
    ).get_concrete_function()
    one_by_one = functools.cache(lambda: make_decoder(size, max_pixels))

    def decoded(files: list[tuple[bytes, Header]]) -> Iterator[Outcome]:
        facts = np.array([[h.orientation, h.has_alpha] for _, h in files], np.uint8).reshape(-1, 2)
        try:
            with tf.device("/cpu:0"):
                yield from graph(tf.constant([data for data, _ in files], tf.string), facts).numpy()
        except tf.errors.InvalidArgumentError:  # one of them, and the others are not to suffer
            for data, _ in files:
                try:
                    yield one_by_one()(data).numpy()
                except RefusedError as error:
                    yield error

    def decode(paths: Iterable[str]) -> Iterator[Outcome]:
        for group in _groups(_read(path, max_pixels) for path in paths):
            images = decoded([read for read in group if isinstance(read, tuple)])
            for read in group:
                yield next(images) if isinstance(read, tuple) else read

    return decode


def _read(path: str, max_pixels: int) -> _Read:
    try:
        data = read_file(path, max_pixels)
        return data, read_header(data, max_pixels)
    except (RefusedError, OSError) as error:
        return error


def _groups(reads: Iterable[_Read]) -> Iterator[list[_Read]]:
    """In order, as many together as ``_GROUP_BYTES`` holds; at least one."""
    group: list[_Read] = []
    held = 0
    for read in reads:
        needed = _bytes(*read) if isinstance(read, tuple) else 0
        if group and held + needed > _GROUP_BYTES:
            yield group
            group, held = [], 0
        group.append(read)
        held += needed
    if group:
        yield group


def _bytes(data: bytes, header: Header) -> int:
    return len(data) + header.width * header.height * _BYTES_PER_PIXEL
