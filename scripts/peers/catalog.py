"""The libraries (peers) that benchmark_peers.py measures, and how much faster seedtf should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peers.dali_peer import dali
from peers.keras_peers import keras_generator, keras_grain, keras_layers
from peers.opencv_peers import albumentations, albumentationsx, albumentationsx_rotation
from peers.tensorflow_peers import seedtf_device, seedtf_host, tf_image
from peers.torch_peers import kornia, torchvision
from peers.work import Batches


@dataclass(frozen=True)
class Environment:
    """A Python environment: its file of requirements, and packages whose versions are printed."""

    requirements: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """A library that is measured.

    Attributes:
        make_batches: takes a number of threads, and yields batches without end. Those of ``device`` in
            ``OURS`` are not augmented.
        title: the name of the library in the table.
        environment: a key of ``ENVIRONMENTS``.
        target: the goal: the speed of seedtf divided by that of the library is at least this.
    """

    make_batches: Callable[[int], Batches]
    title: str
    environment: str = "seedtf"
    target: float = 0.0


ENVIRONMENTS = {
    "seedtf": Environment(
        "benchmark_peers_requirements.txt",
        ("seedtf", "tensorflow", "keras", "nvidia-dali-cuda120", "albumentations",
         "opencv-python-headless", "scipy", "grain", "numpy"),
    ),
    "torch": Environment(
        "benchmark_peers_torch_requirements.txt",
        ("torch", "torchvision", "kornia", "albumentationsx", "opencv-python-headless", "numpy"),
    ),
}  # fmt: skip

PEERS = {
    "keras_generator": Peer(keras_generator, "Keras ImageDataGenerator", target=30),
    "keras_layers": Peer(keras_layers, "Keras 3 preprocessing layers in tf.data", target=30),
    "keras_grain": Peer(keras_grain, "Keras 3 preprocessing layers in Grain", target=5),
    "tf_image": Peer(tf_image, "tf.image per image", target=6),
    "kornia": Peer(kornia, "Kornia in a DataLoader", "torch", 5),
    "torchvision": Peer(torchvision, "torchvision v2 in a DataLoader (no rotation)", "torch", 5),
    "dali": Peer(dali, "DALI on CPU (no rotation)", target=6),
    "albumentations": Peer(albumentations, "Albumentations, OpenCV (no rotation)", target=4),
    "albumentationsx": Peer(albumentationsx, "AlbumentationsX, OpenCV (no rotation)", "torch", 5),
    "albumentationsx_rotation": Peer(
        albumentationsx_rotation, "AlbumentationsX, OpenCV, with rotation", "torch", 5
    ),
}
OURS = {
    "seedtf": Peer(seedtf_host, "seedtf, augmentation on the host"),
    "device": Peer(
        seedtf_device, "seedtf, augmentation on the device: uint8 batches leaving the host"
    ),
}
