"""Reads images from class folders, and writes the file formats that ``seedtf pack`` reads."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

__all__ = ["labelled_files", "write_hf_table", "write_tar", "write_tfrecord"]


def labelled_files(folder: Path) -> list[tuple[str, str, bytes]]:
    """The relative path, class and bytes of each image in class folders, sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path.relative_to(folder)), path.parent.name, path.read_bytes()) for path in paths]


def write_tar(path: Path, entries: dict[str, bytes]) -> Path:
    """Writes a tar of files: ``entries`` has the bytes of each by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_tfrecord(path: Path, rows: list[dict[str, bytes | int]], compression: str = "") -> Path:
    """Writes a TFRecord file with one ``tf.train.Example`` for each row; its features are the items."""
    import tensorflow as tf

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            features = {name: feature(value) for name, value in row.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def write_hf_table(
    path: Path, rows: list[tuple[bytes | None, str | None, object]], classes: list[str] | None
) -> Path:
    """Writes a table in the format of Hugging Face's ``datasets``.

    Args:
        path: the file. Its format is an Arrow stream if the suffix is ``.arrow``, otherwise Parquet.
        rows: the bytes, path and label of each image.
        classes: the names of the classes in the metadata; None writes no metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": data, "path": name} for data, name, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": [label for *_, label in rows]})
    if classes is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    if path.suffix == ".arrow":
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, path, row_group_size=4)
    return path
