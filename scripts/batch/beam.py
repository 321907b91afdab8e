"""Predicts images with an export of seedtf in Apache Beam, on any runner, without seedtf and Keras.

    python beam.py RUN/export/1 'gs://bucket/photos/**' predictions.csv --runner=DataflowRunner …

Writes the path, status, class and confidence of each file to predictions.csv-00000-of-00001, …
"""

import argparse
import csv
import io

import apache_beam as beam
import tensorflow as tf
from apache_beam.io import fileio
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

OUTPUTS = ("status", "class_name", "confidence")


class ExportHandler(ModelHandler):
    """The export as a model of RunInference."""

    def __init__(self, export):
        super().__init__(min_batch_size=1, max_batch_size=32)
        self._export = export

    def load_model(self):
        """Loads the export once for all threads of a process."""
        return tf.saved_model.load(self._export)

    def run_inference(self, batch, model, inference_args=None):
        """Returns the values of ``OUTPUTS`` for each file; ``batch`` has the contents of the files."""
        outputs = model.signatures["serving_default"](image_bytes=tf.constant(list(batch)))
        columns = (outputs[name].numpy().tolist() for name in OUTPUTS)
        return [
            [value.decode() if isinstance(value, bytes) else value for value in row]
            for row in zip(*columns, strict=True)
        ]


def to_csv(row):
    """The row as one line of a CSV table, without a line end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()


def main():
    """Reads the command line and runs the pipeline."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("export", "images", "out"):
        parser.add_argument(name)
    arguments, options = parser.parse_known_args()
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        (
            pipeline
            | fileio.MatchFiles(arguments.images)
            | fileio.ReadMatches()
            | beam.Map(lambda file: (file.metadata.path, file.read()))
            | RunInference(KeyedModelHandler(ExportHandler(arguments.export)))
            | beam.MapTuple(lambda path, outputs: to_csv([path, *outputs]))
            | beam.io.WriteToText(arguments.out, header=to_csv(["file", *OUTPUTS]))
        )


if __name__ == "__main__":
    main()
