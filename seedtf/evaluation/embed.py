"""Computes features of images with a network, batch by batch, and caches them on disk."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog, Fault
from seedtf.data.columns import ANY_COLUMNS, Columns
from seedtf.data.decode_files import Decoded, make_batch_decoder
from seedtf.data.listing import list_files
from seedtf.data.map_files import map_file_batches
from seedtf.data.paths import folder_at
from seedtf.data.store import cache_key
from seedtf.data.walk import image_paths
from seedtf.errors import DataConflictError, UserError
from seedtf.evaluation.embedder import Embedder, open_embedder
from seedtf.files import atomic_path, csv_line, write_lines, write_text
from seedtf.report import report
from seedtf.training.setup import data_folder

__all__ = ["Embeddings", "embed_catalog", "embed_images", "list_catalog", "write_embeddings"]

# Part of the hash that names a cache file. Raise the number if a change of the code changes the
# features, so that old cache files are not used.
_FORMAT = "embeddings-1"


@dataclass(frozen=True)
class Embeddings:
    """The features of N images.

    Attributes:
        catalog: the images; ``catalog.faults`` names the files that were left out. Without labels, all
            labels are 0 and the only class name is empty.
        features: float32 ``[N, D]``; row k belongs to ``catalog.paths[k]``. Do not change the array: it
            may be a memory map of the cache file.
        from_cache: whether the features were read from the cache.
        seconds: the time that computing or reading the features took.
    """

    catalog: Catalog
    features: np.ndarray
    from_cache: bool
    seconds: float

    @property
    def has_labels(self) -> bool:
        """Whether the images have labels."""
        return self.catalog.class_names != ("",)


def embed_images(
    data_dir: str | os.PathLike[str],
    model: str | os.PathLike[str],
    *,
    image_size: int = 0,
    weights: str = "imagenet",
    layout: str = "auto",
    labels_csv: str = "",
    columns: Columns = ANY_COLUMNS,
    cache_dir: str = "",
    batch_size: int = 32,
) -> Embeddings:
    """Computes the features of all images of a folder, or reads them from the cache.

    Args:
        data_dir: a folder of images, with labels in any layout that training takes or without labels;
            an archive of such a folder; or ``sample``.
        model: a network as for training, or a run folder, whose network computes the features.
        image_size: side of the images in pixels. For a run, 0 means the image size of the run. For a
            network, 0 means the only size that it accepts, or 224 if it accepts several.
        weights: as for training; ignored for a run, which has its own weights.
        layout, labels_csv, columns: how the labels are read, as for training.
        cache_dir: the folder of cache files; empty for the default.
        batch_size: images in a batch.

    Raises:
        UserError: there are no images, none can be decoded, or the network cannot be used.

    Example:
        >>> from PIL import Image
        >>> os.makedirs("leaves")
        >>> for number in range(3):
        ...     Image.new("RGB", (20, 20), (0, 80 * number, 0)).save(f"leaves/{number}.png")
        >>> embeddings = embed_images("leaves", "tiny", image_size=16, weights="none")
        labels    none (...)
        >>> embeddings.features.shape, list(embeddings.catalog.paths)
        ((3, 64), ['0.png', '1.png', '2.png'])
    """
    config = TrainConfig(data_dir=os.fspath(data_dir), cache_dir=cache_dir)
    embedder = open_embedder(os.fspath(model), image_size, weights)
    catalog = list_catalog(data_folder(config), labels_csv, columns, layout)
    return embed_catalog(catalog, embedder, config.cache_folder, batch_size)


def list_catalog(
    data_dir: str, labels_csv: str = "", columns: Columns = ANY_COLUMNS, layout: str = "auto"
) -> Catalog:
    """Lists the labelled images of a folder; if it has no labels, all images, with the label 0.

    Raises:
        UserError: there are no images; or there are no labels although ``labels_csv``, ``columns`` or
            ``layout`` says how to read them.
    """
    try:
        return list_files(data_dir, labels_csv, columns, layout, min_images=1)[0]
    except UserError as error:
        folder = folder_at(data_dir)
        labels_expected = labels_csv or layout != "auto" or columns != ANY_COLUMNS
        paths = list(image_paths(folder)) if folder.is_dir() else []
        if labels_expected or not paths or isinstance(error, DataConflictError):
            raise UserError(str(error).replace("--data_dir", "DATA_DIR")) from None
        report("labels", f"none ({error})")
        return Catalog(folder, sorted(paths), np.zeros(len(paths), np.int32), ("",))


def embed_catalog(
    catalog: Catalog, embedder: Embedder, cache_dir: Path, batch_size: int = 32
) -> Embeddings:
    """Computes the features of the files of a catalog, or reads them from the cache.

    Files that cannot be decoded are left out. The cache has an entry for each pair of a network and a
    list of files. If the cache folder cannot be written, the features are computed in memory.

    Raises:
        UserError: no file can be decoded.
    """
    start = time.perf_counter()
    pixels_key = cache_key(catalog, embedder.image_size, embedder.max_pixels, embedder.fit)
    key = hashlib.blake2b(
        f"{_FORMAT} {pixels_key} {embedder.key}".encode(), digest_size=16
    ).hexdigest()
    cache = _Cache(cache_dir / f"{key}.features.npy", cache_dir / f"{key}.json")
    cached = cache.read(len(catalog))
    rows, decoded_indices, faults = cached or _compute(catalog, embedder, cache, batch_size)
    if not len(decoded_indices):
        raise UserError(
            f"{catalog.root}: none of {len(catalog)} images can be decoded, first {faults[0].path} "
            f"({faults[0].fault}: {faults[0].detail}); seedtf check names the faults"
        )
    features = rows if len(decoded_indices) == len(rows) else rows[decoded_indices]
    seconds = time.perf_counter() - start
    return Embeddings(catalog.take(decoded_indices, faults), features, cached is not None, seconds)


def write_embeddings(embeddings: Embeddings, out: Path) -> Path:
    """Writes the features to ``out`` (``*.npy``), and a table with the file of each row beside ``out``.

    Each of the two files appears only when it is complete; the table appears first.

    Returns:
        The path of the table, which has the columns ``file`` and, with labels, ``label``.
    """
    catalog, table = embeddings.catalog, out.with_suffix(".csv")

    def lines() -> Iterator[str]:
        yield csv_line("file", "label") if embeddings.has_labels else csv_line("file")
        for path, label in zip(catalog.paths, catalog.labels, strict=True):
            labels = [catalog.class_names[label]] if embeddings.has_labels else []
            yield csv_line(path, *labels)

    write_lines(table, lines())
    with atomic_path(out) as temporary:
        np.save(temporary, embeddings.features)
    return table


_Rows = tuple[np.ndarray, np.ndarray, list[Fault]]
"""The features, float32 ``[files, D]``; the indices of the decoded files; and the faults of all others.

The rows of files that could not be decoded have no meaning.
"""


@dataclass(frozen=True)
class _Cache:
    """The paths of the two files of a cache entry, one with features and one with faults.

    The file of faults is written last. So if this file exists, the file of features is complete.
    """

    features: Path
    faults: Path

    def read(self, num_files: int) -> _Rows | None:
        """Returns the cached features of ``num_files`` files; None if missing or incomplete."""
        with suppress(OSError, ValueError, EOFError, KeyError, TypeError):
            content = json.loads(self.faults.read_text("utf-8"))
            rows = np.load(self.features, mmap_mode="r")
            if len(rows) == num_files:
                decoded_indices = np.delete(
                    np.arange(num_files), np.array(content["left_out"], np.int64)
                )
                return rows, decoded_indices, [Fault(*fault) for fault in content["faults"]]
        return None

    def write_faults(
        self, num_files: int, decoded_indices: np.ndarray, faults: Sequence[Fault]
    ) -> None:
        """Writes the file of faults, which also marks the features as complete."""
        left_out = np.delete(np.arange(num_files), decoded_indices).tolist()
        rows = [[fault.path, fault.fault, fault.detail] for fault in faults]
        write_text(self.faults, json.dumps({"left_out": left_out, "faults": rows}))


def _compute(catalog: Catalog, embedder: Embedder, cache: _Cache, batch_size: int) -> _Rows:
    """Computes the features into the cache file, or in memory if that file cannot be written."""
    body = embedder.build()
    shape = (len(catalog), int(body.output_shape[-1]))
    try:
        cache.features.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(cache.features) as temporary:
            rows: np.ndarray = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
            with temporary.open("r+b") as file:
                # Reserves the disk space: writing to a memory map on a full disk kills the process.
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
            decoded_indices, faults = _embed_files(rows, catalog, embedder, body, batch_size)
        cache.write_faults(len(catalog), decoded_indices, faults)
    except OSError as error:
        report("cache", f"not used ({cache.features.parent}: {error.strerror or error})")
        rows = np.empty(shape, np.float32)
        decoded_indices, faults = _embed_files(rows, catalog, embedder, body, batch_size)
    return rows, decoded_indices, faults


def _embed_files(
    rows: np.ndarray, catalog: Catalog, embedder: Embedder, body: keras.Model, batch_size: int
) -> tuple[np.ndarray, list[Fault]]:
    """Writes the features of each file to its row of ``rows``.

    Returns:
        The indices of the decoded files, int64, and the faults of all other files.
    """
    size = embedder.image_size
    decode = make_batch_decoder(size, embedder.max_pixels, embedder.fit)

    @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.uint8)], autograph=False)
    def embed(images: tf.Tensor) -> tf.Tensor:
        features = body(tf.cast(images, tf.float32), training=False)
        return tf.cast(features, tf.float32)

    # The network uses all cores, so only one thread at a time runs it; other threads decode meanwhile.
    network_lock = threading.Lock()

    def decode_and_embed(first: int, paths: Sequence[str]) -> list[Decoded]:
        decoded = list(decode(paths))
        images = {i: image for i, image in enumerate(decoded) if isinstance(image, np.ndarray)}
        if images:
            pixels = np.stack(list(images.values()))
            with network_lock:
                rows[first + np.array(list(images))] = embed(pixels).numpy()
        return decoded

    return map_file_batches(catalog, decode_and_embed, "embedding", batch_size)
