"""Writes the weights of a KerasHub EfficientNet and its features of four images to weights.npz.

python keras_weights.py PRESET RACE

RACE is the folder that ``benchmark_race.py prepare --out`` fills. weights.npz is written to this
folder; timm_weights.py reads it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import keras_hub
import numpy as np

IMAGE_SIZE, NUM_IMAGES = 128, 4


def main(preset: str, race: str) -> None:
    """Writes the weights in the order of the layers, and four images and their features.

    The pixels of the images are scaled to about [-1, 1].
    """
    body = keras_hub.models.Backbone.from_preset(preset)
    paths = sorted((Path(race) / "data" / "val").glob("*/*"))
    paths = paths[:: max(len(paths) // NUM_IMAGES, 1)][:NUM_IMAGES]
    images = [keras.utils.load_img(path, target_size=(IMAGE_SIZE, IMAGE_SIZE)) for path in paths]
    inputs = (np.stack([np.asarray(image, np.float32) for image in images]) - 127) / 128
    arrays = {"images": inputs, "features": body.predict(inputs, verbose=0)}
    num_variables = 0
    for layer in body.layers:
        for value in layer.get_weights():
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                value = value.transpose(2, 3, 0, 1)
            elif isinstance(layer, keras.layers.Conv2D):
                value = value.transpose(3, 2, 0, 1)
            arrays[f"variable{num_variables:04}"] = value
            num_variables += 1
    np.savez(Path(race) / "weights.npz", **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
