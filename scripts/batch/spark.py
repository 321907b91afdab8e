"""Predicts images with an export of seedtf in Apache Spark, without seedtf and Keras.

    spark-submit spark.py RUN/export/1 s3a://bucket/photos predictions.parquet

Writes parquet files to the folder ``predictions.parquet``, with the path, status, class and confidence
of each file below the folder of images.
"""

import argparse

import numpy as np
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import SparkSession
from pyspark.sql.types import StructType

OUTPUTS = {"status": "string", "class_name": "string", "confidence": "float"}


def make_loader(export):
    """Returns a function that loads the export; Spark calls it once in each Python worker."""

    def make_predict_fn():
        import tensorflow as tf  # noqa: PLC0415  the driver needs no TensorFlow

        model = tf.saved_model.load(export)

        def predict(contents):
            images = tf.constant([bytes(data) for data in contents])
            outputs = model.signatures["serving_default"](image_bytes=images)
            columns = {name: outputs[name].numpy() for name in OUTPUTS}
            return {
                name: np.char.decode(column.astype(bytes)) if column.dtype == object else column
                for name, column in columns.items()
            }

        return predict

    return make_predict_fn


def main():
    """Reads the command line and runs the job."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("export", "images", "out"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    spark = SparkSession.builder.appName("predict images").getOrCreate()
    types = StructType()
    for name, type_name in OUTPUTS.items():
        types.add(name, type_name)
    predict = predict_batch_udf(make_loader(arguments.export), return_type=types, batch_size=32)
    files = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    table = files.load(arguments.images).withColumn("outputs", predict("content"))
    table.selectExpr("path AS file", "outputs.*").write.parquet(arguments.out)
    spark.stop()


if __name__ == "__main__":
    main()
