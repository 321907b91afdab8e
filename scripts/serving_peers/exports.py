"""Writes JPEG files, and a network with random weights in each of the formats that are served."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving_peers.runtimes import NETWORKS, NUM_CLASSES, read_jpegs

NUM_JPEGS = 8
"""The largest number of JPEG files of each kind; ``write_exports`` explains kinds."""

LITE0 = {
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0] * 7,
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_block_types": ["v1"] * 7,
    "stackwise_width_coefficients": [1.0] * 7,
    "stackwise_depth_coefficients": [1.0] * 7,
    "dropout": 0,
    "min_depth": None,
    "activation": "relu6",
    "include_stem_padding": False,
    "use_depth_divisor_as_min_depth": True,
    "cap_round_filter_decrease": True,
    "stem_conv_padding": "same",
    "batch_norm_epsilon": 1e-3,
}
"""The arguments of KerasHub's EfficientNetBackbone for EfficientNet-Lite0."""


def lite0() -> Any:
    """EfficientNet-Lite0 as a preset of KerasHub without weights."""
    from seedtf.model.backbones import ImageSizes, supported_module
    from seedtf.model.presets import Preset

    name = "EfficientNetBackbone"
    backbone = {"module": supported_module(name), "class_name": name, "config": LITE0}
    sizes, licence = ImageSizes(), "none"
    return Preset("EfficientNet-Lite0", backbone, 1 / 128, -127 / 128, sizes, licence, 0)


def build(network: str, files: list[bytes]) -> Any:
    """The network with random weights; its batch normalizations have the statistics of ``files``.

    With the initial mean 0 and variance 1, the probabilities would hardly depend on the image, and a
    runtime with a fault would return almost the same probabilities as the others.
    """
    import tensorflow as tf

    from seedtf.export.serving_graph import decode_batch
    from seedtf.model.network import build_network

    size = NETWORKS[network].image_size
    model = build_network(
        model=lite0() if network == "efficientnet_lite0" else network,
        num_classes=NUM_CLASSES,
        image_size=size,
        weights="none",
        bn_momentum=0.0,  # the moving statistics become those of the next batch
    )
    images, statuses = decode_batch(tf.constant(files), size)
    if statuses.numpy().any():
        raise SystemExit("one of the images cannot be decoded; pass whole JPEG files")
    model(tf.cast(images, tf.float32), training=True)
    return model


def write_jpegs(folder: Path, kind: str) -> None:
    """Writes the JPEG files of a kind to ``folder``; ``write_exports`` explains kinds."""
    from seedtf.export.warmup import example_jpeg

    folder.mkdir(parents=True)
    if kind.isdigit():
        for number in range(NUM_JPEGS):
            (folder / f"{number}.jpg").write_bytes(example_jpeg(int(kind), number))
        return
    paths = [path for path in sorted(Path(kind).rglob("*")) if path.suffix in (".jpg", ".jpeg")]
    if not paths:
        raise SystemExit(f"--kinds={kind}: no JPEG files; pass a number of pixels or a folder")
    for number, path in enumerate(paths[:: max(len(paths) // NUM_JPEGS, 1)][:NUM_JPEGS]):
        shutil.copy(path, folder / f"{number}.jpg")


def write_exports(network: str, folder: Path, kinds: Sequence[str]) -> None:
    """Writes the JPEG files of each kind to ``jpeg/KIND/``, and the network in each format.

    A kind is either a number, the side in pixels of square images to make, or a folder of JPEG files
    to copy. KIND is the number or the name of the folder.

    The network is written as ``model.keras``, ``saved_model/`` and ``model.onnx``. The functions of
    ``seedtf export`` make the last two. ``classes.txt`` has the names of the classes. The runtimes
    must agree on the probabilities of ``check.jpg``. This image has the size of the network's input,
    because libraries round differently when they resize.
    """
    folder_names = [Path(kind).name for kind in kinds]
    if len(set(folder_names)) < len(folder_names):
        raise SystemExit(
            f"--kinds={','.join(kinds)}: two folders have the same name; pass folders with "
            "different names"
        )
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    import numpy as np
    import tensorflow as tf

    from seedtf.export.formats import convert
    from seedtf.export.serving_graph import ServingModule
    from seedtf.export.warmup import example_jpeg
    from seedtf.model.network import save_model

    for kind in kinds:
        write_jpegs(folder / "jpeg" / Path(kind).name, kind)
    model = build(network, read_jpegs(folder)[Path(kinds[0]).name])
    (folder / "check.jpg").write_bytes(example_jpeg(NETWORKS[network].image_size))
    save_model(model, folder / "model.keras")
    names = [f"class {number}" for number in range(NUM_CLASSES)]
    classes = folder / "classes.txt"
    classes.write_text("".join(f"{name}\n" for name in names))
    module = ServingModule(model, names, 1.0, str(classes))
    tf.saved_model.save(module, str(folder / "saved_model"), signatures=module.signatures())
    (folder / "model.onnx").write_bytes(convert(module, "onnx", np.empty(0)))
