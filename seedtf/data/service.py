"""Batches made by the workers of a tf.data service, in training's own order.

The workers take the numbers of the batches from the dispatcher, each number once. A batch follows from
its number, so it does not matter who makes it. Batches arrive out of order and are put in order here;
one that does not arrive, because its worker is gone, is made here. So training sees the same batches as
without the service: none is lost and none comes twice, whatever becomes of the workers.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterator

import tensorflow as tf

from seedtf.data.file_reader import FileReader
from seedtf.data.order import BatchIndices
from seedtf.data.paths import is_url
from seedtf.data.shard import Shard
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.images.decode import decode_images
from seedtf.images.header_graph import parse_header_graph

__all__ = ["check_service", "numbered_order", "portable_reader", "service_dataset"]

Batch = tuple[tf.Tensor, ...]
Load = Callable[[tf.Tensor, tf.Tensor], Batch]
"""From epoch, int64 ``[]``, and indices, int64 ``[B]``, to a batch."""

_FOREVER = 1 << 62
_SECONDS_TO_CONNECT = 5
# the first batch waits for the workers to compile; later ones for a worker that hangs
_SECONDS_TO_WAIT = 120.0
# of batches that may be here before an earlier one is given up
_EARLY_BYTES = 2 << 30
_MOST_REQUESTS = 16


def check_service(address: str) -> None:
    """Raises UserError unless ``address``, ``host:port``, is one where something answers."""
    found = re.fullmatch(r"(?:grpc://)?(.+):(\d+)", address)
    if found is None:
        raise UserError(f"--data_service={address}: no address; pass host:port of the dispatcher")
    host, port = found[1].strip("[]"), int(found[2])
    try:
        socket.create_connection((host, port), _SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--data_service={address}: no dispatcher answers ({error}); start one there with "
            f"seedtf data_service dispatcher --port={port}"
        ) from None


def numbered_order(order: BatchIndices, shard: Shard, first: int) -> tf.data.Dataset:
    """``(number, epoch, indices)`` of the elements of one process from number ``first`` on, endless.

    Element ``number`` is slice ``number % share.count`` of this process in step
    ``number // share.count``. A tf.data service may hand the numbers to any workers: each follows from
    itself, and the order of an epoch is computed once where numbers of that epoch come together.
    """
    size, per_step = order.batch_size // shard.replicas, shard.count

    def numbered(
        state: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], Batch]:
        old_epoch, old_order = state
        step, part = number // per_step, shard.first + number % per_step
        epoch, step = step // order.steps_per_epoch, step % order.steps_per_epoch
        whole = tf.cond(epoch == old_epoch, lambda: old_order, lambda: order.epoch_order(epoch))
        start = step * order.batch_size + part * size
        indices = tf.ensure_shape(whole[start : start + size], [size])
        return (epoch, whole), (number, epoch, indices)

    nothing = (tf.constant(-1, tf.int64), tf.zeros([0], tf.int64))
    return tf.data.Dataset.range(first, _FOREVER).scan(nothing, numbered)


def portable_reader(store: Store) -> Callable[[tf.Tensor], tf.Tensor]:
    """``store.read`` in TensorFlow's own ops and without its images: for a graph sent to a worker.

    The worker must see the cache file, or the images, under the same paths.

    Raises:
        ValueError: the images are in this process's memory.
    """
    if store.mode == "disk":
        shape = [len(store.catalog), store.size, store.size, 3]
        path = store.cache_file

        def from_cache(indices: tf.Tensor) -> tf.Tensor:
            # mapped anew for every batch, which costs nothing: the pages stay with the system
            images = tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=shape, memory_region_name=path)
            return tf.gather(images, indices)

        return from_cache
    if store.files is None:
        raise ValueError("images in memory cannot be read elsewhere")
    return functools.partial(_read_files, *_names(store.files), store.files)


def _names(files: FileReader) -> tuple[tf.Tensor, tf.Tensor, str]:
    """All names as one string scalar, where each ends (int64 ``[N + 1]``), and what precedes each."""
    paths = files.paths
    prefix = (
        paths.prefix if is_url(paths.prefix) else os.path.join(os.path.abspath(paths.prefix), "")
    )
    with tf.device("/cpu:0"):
        return tf.constant(paths.data), tf.constant(paths.ends), prefix


def _read_files(
    names: tf.Tensor, ends: tf.Tensor, prefix: str, files: FileReader, indices: tf.Tensor
) -> tf.Tensor:
    def one(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = ends[index]
        name = tf.strings.substr(names, start, ends[index + 1] - start)
        contents = tf.io.read_file(tf.strings.join([prefix, name]))
        found = parse_header_graph(contents)
        good = (found.status == 0) & (found.width * found.height <= files.max_pixels)
        with tf.control_dependencies([tf.Assert(good, [name, "cannot be used"])]):
            facts = tf.stack([found.orientation, tf.cast(found.has_alpha, tf.int64)])
            return contents, tf.cast(facts, tf.uint8)

    spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.uint8))
    contents, facts = tf.map_fn(one, indices, fn_output_signature=spec)
    return decode_images(contents, facts, files.size)


def service_dataset(
    numbered: Callable[[int], tf.data.Dataset],
    first: int,
    *,
    local_fn: Load,
    remote_fn: Load,
    address: str,
) -> tf.data.Dataset:
    """Endless batches from number ``first`` on, made by the workers at ``address``.

    Args:
        numbered: from a number to the dataset of ``numbered_order`` that begins there.
        first: the number to begin with.
        here: makes a batch in this process.
        there: makes the same batch anywhere.
        address: ``host:port`` of the dispatcher.
    """

    def made(load: Load, start: int) -> tf.data.Dataset:
        return numbered(start).map(
            lambda number, epoch, indices: (number, *load(epoch, indices)), tf.data.AUTOTUNE
        )

    service = tf.data.experimental.service
    arriving = made(remote_fn, first).apply(
        service.distribute(
            service.ShardingPolicy.DYNAMIC,
            address if is_url(address) else f"grpc://{address}",
            max_outstanding_requests=_MOST_REQUESTS,
        )
    )
    local = functools.partial(made, local_fn)
    arrivals = _InOrder(arriving, lambda start: iter(local(start)), address)
    # TensorFlow never lets go of what a py_function calls; the dataset holds `take`, and that the rest
    weak = weakref.ref(arrivals)

    def next_batch(number: tf.Tensor) -> Batch:
        found = weak()
        assert found is not None
        return found.take(number)

    def take(number: tf.Tensor) -> Batch:
        specs = arrivals.specs
        batch = tf.py_function(next_batch, [number], [spec.dtype for spec in specs])
        return tuple(
            tf.ensure_shape(part, spec.shape) for part, spec in zip(batch, specs, strict=True)
        )

    return tf.data.Dataset.range(first, _FOREVER).map(take).prefetch(tf.data.AUTOTUNE)


class _InOrder:
    """Puts arriving batches in order; makes here what does not arrive."""

    def __init__(
        self, arriving: tf.data.Dataset, local_fn: Callable[[int], Iterator[Batch]], address: str
    ) -> None:
        self.specs = arriving.element_spec[1:]
        sizes = (spec.shape.num_elements() * spec.dtype.size for spec in self.specs)
        self._most_early = max(_EARLY_BYTES // sum(sizes), _MOST_REQUESTS)
        self._arriving, self._here, self._address = arriving, local_fn, address
        self._queue: queue.Queue[Batch | Exception] = queue.Queue(2)
        self._early: dict[int, Batch] = {}
        self._wait, self._told = _SECONDS_TO_WAIT, set[str]()
        self._local: tuple[int, Iterator[Batch]] | None = None
        self._started = False

    def _start(self) -> None:
        self._started = True
        closed = threading.Event()
        # the thread must not keep this object alive: it goes when the dataset is done with
        weakref.finalize(self, closed.set)
        given = (self._arriving, self._queue, closed)
        threading.Thread(target=_pull, args=given, name="data service", daemon=True).start()

    def take(self, number: tf.Tensor) -> Batch:
        """The batch with this number; asked for in ascending order, each once."""
        wanted = int(number)
        if not self._started:
            self._start()
        try:
            while wanted not in self._early and len(self._early) < self._most_early:
                self._receive(wanted)
        except queue.Empty:
            if self._wait:
                self._warn(f"no batch for {self._wait:.0f} s", wanted)
            self._wait = 0.0
        if wanted in self._early:
            return self._early.pop(wanted)
        if self._wait:
            self._warn("a batch is missing, as if its worker had gone", wanted)
        return self._make(wanted)

    def _receive(self, wanted: int) -> None:
        arrived = self._queue.get(timeout=self._wait) if self._wait else self._queue.get_nowait()
        if isinstance(arrived, Exception):
            self._warn(_cause(arrived), wanted)
            self._wait = 0.0
            raise queue.Empty
        number, *batch = arrived
        if int(number) >= wanted:  # else it was made here meanwhile
            self._early[int(number)] = tuple(batch)
            self._wait = _SECONDS_TO_WAIT

    def _make(self, wanted: int) -> Batch:
        if self._local is None or self._local[0] != wanted:
            self._local = (wanted, self._here(wanted))
        batches = self._local[1]
        try:
            _, *batch = next(batches)
        except tf.errors.OpError as error:
            # a graph takes this for what it is, an error of the data, and others for unknown
            raise ValueError(error.message) from error
        self._local = (wanted + 1, batches)
        return tuple(batch)

    def _warn(self, cause: str, number: int) -> None:
        if cause not in self._told:
            self._told.add(cause)
            print(
                f"\nwarning   data service at {self._address}: {cause}; batch {number} is made here, "
                "and so is any other that does not come in time",
                flush=True,
            )


def _cause(error: Exception) -> str:
    """TensorFlow's message without the names of its nodes, in one line; what went wrong stands last."""
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", str(error))
    return " ".join(text.split())[-300:]


def _pull(
    arriving: tf.data.Dataset,
    into: queue.Queue[Batch | Exception],
    closed: threading.Event,
) -> None:
    def put(item: Batch | Exception) -> None:
        while not closed.is_set():
            with contextlib.suppress(queue.Full):
                into.put(item, timeout=1)
                return

    try:
        with tf.device("/cpu:0"):
            for batch in arriving:
                put(batch)
                if closed.is_set():
                    return
        put(RuntimeError("it ended"))
    except Exception as error:  # whatever it is: the batches are made here from then on
        put(error)
