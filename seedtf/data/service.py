"""Gets batches from the workers of a tf.data service, in the same order as without the service.

The dispatcher of the service assigns every batch number to one worker. A batch depends only on its
number, so any worker may make it. Batches arrive out of order, and this process restores their order.
If a batch does not arrive, for example because its worker died, this process makes it. Training
therefore gets the same batches as without the service: no batch is lost or duplicated.

In this module, a *batch* is the slice of a global batch that one replica of this process trains on.
Batches are numbered by step and, within a step, by replica.
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

from seedtf.compat.tensorflow import memory_mapped_tensor
from seedtf.data.file_reader import FileReader
from seedtf.data.order import BatchIndices
from seedtf.data.paths import is_url, needs_copy
from seedtf.data.shard import WHOLE, Shard
from seedtf.data.store import Store
from seedtf.errors import UserError
from seedtf.images.decode import decode_images
from seedtf.images.header_graph import apply_edits, parse_header_graph
from seedtf.report import warn

__all__ = ["check_service", "numbered_order", "portable_reader", "service_dataset"]

Batch = tuple[tf.Tensor, ...]
BatchFunction = Callable[[tf.Tensor, tf.Tensor], Batch]
"""A function from an epoch, int64 ``[]``, and indices, int64 ``[B]``, to a batch."""

_FOREVER = 1 << 62
_SECONDS_TO_CONNECT = 5
# If no batch arrives for this long, the next batch is made in this process. Before the first batch, the
# workers use a part of this time to build their graphs.
_SECONDS_TO_WAIT = 120.0
# If the batches that arrived too early take this many bytes, the next batch is made in this process.
_EARLY_BYTES = 2 << 30
_MAX_REQUESTS = 16


def check_service(address: str) -> None:
    """Raises UserError unless ``address`` is ``host:port`` and accepts a connection."""
    match = re.fullmatch(r"(?:grpc://)?(.+):(\d+)", address)
    if match is None:
        raise UserError(
            f"--data_service={address}: not an address; pass host:port of the dispatcher"
        )
    host, port = match[1].strip("[]"), int(match[2])
    try:
        socket.create_connection((host, port), _SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--data_service={address}: no dispatcher is running there ({error}); start one with "
            f"seedtf data_service dispatcher --port={port}"
        ) from None


def numbered_order(order: BatchIndices, shard: Shard, first: int) -> tf.data.Dataset:
    """The batches of one process as an endless dataset ``(number, epoch, indices)``.

    The numbers begin with ``first``. The batches of step 0 have the numbers 0 to ``shard.count - 1``,
    those of step 1 have the next ``shard.count`` numbers, and so on. An element depends only on its
    number, so a tf.data service may assign the numbers to any workers. The order of an epoch is
    computed once for all consecutive elements of the epoch.
    """
    slice_size, per_step = order.batch_size // shard.replicas, shard.count

    def next_element(
        state: tuple[tf.Tensor, tf.Tensor], number: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], Batch]:
        last_epoch, last_order = state
        step, replica = number // per_step, shard.first + number % per_step
        epoch, step_in_epoch = step // order.steps_per_epoch, step % order.steps_per_epoch
        indices = tf.cond(epoch == last_epoch, lambda: last_order, lambda: order.epoch_order(epoch))
        start = step_in_epoch * order.batch_size + replica * slice_size
        element = tf.ensure_shape(indices[start : start + slice_size], [slice_size])
        return (epoch, indices), (number, epoch, element)

    no_epoch = (tf.constant(-1, tf.int64), tf.zeros([0], tf.int64))
    return tf.data.Dataset.range(first, _FOREVER).scan(no_epoch, next_element)


def portable_reader(store: Store) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function like ``store.read`` that a worker can run: it reads files with TensorFlow's ops only.

    The graph of the function does not contain the images. On the worker, the cache file or the image
    files must have the same paths as here.

    Raises:
        ValueError: the images are in this process's memory.
        UserError: TensorFlow cannot open the files, because they are in a packed folder or at a URL
            that only fsspec reads.
    """
    if store.mode == "disk":
        shape = [len(store.catalog), store.size, store.size, 3]

        def read_cache(indices: tf.Tensor) -> tf.Tensor:
            # Mapping the file again for every batch is cheap, because its pages stay in memory.
            return tf.gather(memory_mapped_tensor(store.cache_file, shape, tf.uint8), indices)

        return read_cache
    if store.files is None:
        raise ValueError("images in memory cannot be read by another process")
    if len(store.files.paths) and needs_copy(store.files.paths[0]):
        raise UserError(
            f"--data_service: its workers cannot open {store.files.paths[0]}, which is in a pack or at "
            "a URL that only fsspec reads; pass --cache=disk, or a folder of files"
        )
    return functools.partial(_read_files, *_paths_as_tensors(store.files), store.files)


def _paths_as_tensors(files: FileReader) -> tuple[tf.Tensor, tf.Tensor, str]:
    """The paths in the form of ``StringArray``: ``data`` (string ``[]``), ``ends`` and ``prefix``."""
    paths = files.paths
    prefix = (
        paths.prefix if is_url(paths.prefix) else os.path.join(os.path.abspath(paths.prefix), "")
    )
    with tf.device("/cpu:0"):
        return tf.constant(paths.data), tf.constant(paths.ends), prefix


def _read_files(
    data: tf.Tensor, ends: tf.Tensor, prefix: str, files: FileReader, indices: tf.Tensor
) -> tf.Tensor:
    """Reads and decodes the files at ``indices``.

    ``data``, ``ends`` and ``prefix`` are the results of ``_paths_as_tensors``.
    """

    def read_one(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        start = ends[index]
        name = tf.strings.substr(data, start, ends[index + 1] - start)
        contents = tf.io.read_file(tf.strings.join([prefix, name]))
        header = parse_header_graph(contents, tf.constant(files.max_pixels, tf.int64))
        with tf.control_dependencies([tf.Assert(header.status == 0, [name, "cannot be used"])]):
            return apply_edits(contents, header.edits), tf.identity(header.for_decoder)

    spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([4], tf.int32))
    contents, headers = tf.map_fn(read_one, indices, fn_output_signature=spec)
    return decode_images(contents, headers, files.size, files.fit)


def service_dataset(
    order: BatchIndices,
    start: int,
    *,
    local_fn: BatchFunction,
    remote_fn: BatchFunction,
    address: str,
    shard: Shard = WHOLE,
) -> tf.data.Dataset:
    """An endless dataset of batches that the workers of a tf.data service make.

    Args:
        order: the order of the records.
        start: the step, counted from 0, of the first batch.
        local_fn: makes a batch in this process.
        remote_fn: makes the same batch in a worker.
        address: ``host:port`` of the dispatcher.
        shard: which slices of every global batch to make.
    """
    first = start * shard.count

    def make_batches(make_batch: BatchFunction, from_number: int) -> tf.data.Dataset:
        # AutoGraph would convert all code that makes a batch, although none of this code needs it.
        numbered = tf.autograph.experimental.do_not_convert(
            lambda number, epoch, indices: (number, *make_batch(epoch, indices))
        )
        return numbered_order(order, shard, from_number).map(numbered, tf.data.AUTOTUNE)

    service = tf.data.experimental.service
    arriving = make_batches(remote_fn, first).apply(
        service.distribute(
            service.ShardingPolicy.DYNAMIC,
            address if is_url(address) else f"grpc://{address}",
            max_outstanding_requests=_MAX_REQUESTS,
        )
    )
    ordered = _OrderedBatches(
        arriving, lambda number: iter(make_batches(local_fn, number)), address
    )
    # TensorFlow never releases the function of a py_function, so `take_eagerly` has only a weak
    # reference to `ordered`. The dataset holds `take`, which keeps `ordered` alive as long as needed.
    weak_ordered = weakref.ref(ordered)

    def take_eagerly(number: tf.Tensor) -> Batch:
        batches = weak_ordered()
        assert batches is not None
        return batches.take(number)

    def take(number: tf.Tensor) -> Batch:
        specs = ordered.specs
        batch = tf.py_function(take_eagerly, [number], [spec.dtype for spec in specs])
        return tuple(
            tf.ensure_shape(part, spec.shape) for part, spec in zip(batch, specs, strict=True)
        )

    return tf.data.Dataset.range(first, _FOREVER).map(take).prefetch(tf.data.AUTOTUNE)


class _OrderedBatches:
    """Returns arriving batches in order; a batch that does not arrive is made in this process."""

    def __init__(
        self,
        arriving: tf.data.Dataset,
        make_local: Callable[[int], Iterator[Batch]],
        address: str,
    ) -> None:
        self.specs = arriving.element_spec[1:]
        sizes = (spec.shape.num_elements() * spec.dtype.size for spec in self.specs)
        # However large the batches are, keep at least as many as may be requested at the same time.
        self._max_early = max(_EARLY_BYTES // sum(sizes), _MAX_REQUESTS)
        self._arriving, self._make_local, self._address = arriving, make_local, address
        self._queue: queue.Queue[Batch | Exception] = queue.Queue(2)
        self._early: dict[int, Batch] = {}
        # The seconds to wait for a batch. They are 0 from an error or timeout until a batch is in time.
        self._wait, self._warned = _SECONDS_TO_WAIT, set[str]()
        # The number of the next batch to make in this process, and the iterator that makes it.
        self._local: tuple[int, Iterator[Batch]] | None = None
        self._started = False

    def _start(self) -> None:
        self._started = True
        closed = threading.Event()
        # The thread ends when this object is collected, so it must not keep a reference to the object.
        weakref.finalize(self, closed.set)
        arguments = (self._arriving, self._queue, closed)
        threading.Thread(target=_pull, args=arguments, name="data service", daemon=True).start()

    def take(self, number: tf.Tensor) -> Batch:
        """The batch with this number; every number must be requested once, in ascending order."""
        wanted = int(number)
        if not self._started:
            self._start()
        try:
            while wanted not in self._early and len(self._early) < self._max_early:
                self._receive(wanted)
        except queue.Empty:
            if self._wait:
                self._warn(f"no batch for {self._wait:.0f} s", wanted)
            self._wait = 0.0
        if wanted in self._early:
            return self._early.pop(wanted)
        if self._wait:  # There was no timeout: the limit of early batches is reached.
            self._warn("a batch is missing; its worker may have died", wanted)
        return self._make(wanted)

    def _receive(self, wanted: int) -> None:
        arrived = self._queue.get(timeout=self._wait) if self._wait else self._queue.get_nowait()
        if isinstance(arrived, Exception):
            self._warn(_cause(arrived), wanted)
            self._wait = 0.0
            raise queue.Empty  # The caller treats an error like a timeout.
        number, *batch = arrived
        # A batch with a smaller number is too late, and was made in this process in the meantime.
        if int(number) >= wanted:
            self._early[int(number)] = tuple(batch)
            self._wait = _SECONDS_TO_WAIT

    def _make(self, wanted: int) -> Batch:
        if self._local is None or self._local[0] != wanted:
            self._local = (wanted, self._make_local(wanted))
        batches = self._local[1]
        try:
            _, *batch = next(batches)
        except tf.errors.OpError as error:
            # From a ValueError in a py_function, TensorFlow makes an InvalidArgumentError, which the
            # caller reports as bad data. From an OpError it would make an UnknownError.
            raise ValueError(error.message) from error
        self._local = (wanted + 1, batches)
        return tuple(batch)

    def _warn(self, cause: str, number: int) -> None:
        if cause not in self._warned:
            self._warned.add(cause)
            warn(
                f"data service at {self._address}: {cause}; batch {number} is made in this process, "
                "and so is any other that does not arrive in time",
                after_progress=True,
            )


def _cause(error: Exception) -> str:
    """The end of TensorFlow's error message, which has the cause, without the names of graph nodes."""
    text = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", str(error))
    return " ".join(text.split())[-300:]


def _pull(
    arriving: tf.data.Dataset,
    into: queue.Queue[Batch | Exception],
    closed: threading.Event,
) -> None:
    """Puts each arriving batch into a queue and, at the end, the error that stopped the batches."""

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
        put(RuntimeError("the stream of batches ended"))
    except Exception as error:  # After any error, the batches are made in this process.
        put(error)
