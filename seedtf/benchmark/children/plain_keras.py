"""A minimal Keras script, the baseline for start-up time: imports, builds, compiles, takes one step.

    python -m seedtf.benchmark.children.plain_keras NETWORK IMAGE_SIZE BATCH_SIZE CLASSES

The network is ``keras.applications.NETWORK`` with random weights and a new head. It is trained by Adam
with Keras's default settings. The result is the wall-clock time (``time.time()``) at the end of the
step.
"""

from __future__ import annotations

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from seedtf.benchmark.children import write_result


def main(network: str, image_size: int, batch_size: int, num_classes: int) -> None:
    """Takes one training step on black images, writes the time, and ends the process."""
    image = keras.Input((image_size, image_size, 3))
    constructor = getattr(keras.applications, network)
    body = constructor(include_top=False, weights=None, input_tensor=image)
    pooled = keras.layers.GlobalAveragePooling2D()(body.output)
    output = keras.layers.Dense(num_classes, activation="softmax")(pooled)
    model = keras.Model(image, output)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    images = np.zeros((batch_size, image_size, image_size, 3), np.float32)
    labels = np.zeros(batch_size, np.int32)
    model.fit(tf.data.Dataset.from_tensors((images, labels)), verbose=0)
    write_result(time.time())
    os._exit(0)  # skips the clean-up of a regular exit, because only the time of the step counts


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
