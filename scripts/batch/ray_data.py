"""Predicts images with an export of seedtf in Ray Data, without seedtf and Keras.

    python ray_data.py RUN/export/1 s3://bucket/photos predictions --workers=8

Writes parquet files to the folder ``predictions``, with the path, status, class and confidence of each
file below the folder of images. The script is not called ray.py, because Python would then import it
instead of the package.
"""

import argparse

import ray
import tensorflow as tf

OUTPUTS = ("status", "class_name", "confidence")


class Predictor:
    """Predicts with an export, which each worker loads once."""

    def __init__(self, export):
        self._model = tf.saved_model.load(export)

    def __call__(self, batch):
        """Returns the column ``file`` and the columns of ``OUTPUTS`` for a batch of files."""
        images = tf.constant([bytes(data) for data in batch["bytes"]])
        outputs = self._model.signatures["serving_default"](image_bytes=images)
        columns = {name: outputs[name].numpy() for name in OUTPUTS}
        return {"file": batch["path"]} | {
            name: [value.decode() for value in column] if column.dtype == object else column
            for name, column in columns.items()
        }


def main():
    """Reads the command line and runs the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("export", "images", "out"):
        parser.add_argument(name)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    ray.data.read_binary_files(arguments.images, include_paths=True).map_batches(
        Predictor,
        fn_constructor_args=[arguments.export],
        batch_size=32,
        concurrency=arguments.workers,
    ).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
