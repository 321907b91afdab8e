"""Reads the environment of this process: GPUs, cores, other workers, installed packages.

Importing this module does not import TensorFlow, so tests can pass a made-up ``Machine`` to the
functions that choose settings.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, field

from seedtf.config.run_flags import TRACKERS
from seedtf.training.distributed.slurm import in_slurm_step, slurm_tf_config
from seedtf.training.trackers.tracker import installed_trackers

__all__ = ["Machine", "gpu_compute_capabilities", "inspect_machine"]


@dataclass(frozen=True)
class Machine:
    """The properties of the machine from which ``resolve`` chooses settings.

    Attributes:
        gpus: compute capability, (major, minor), of every GPU that TensorFlow sees.
        cpu_devices: number of logical CPU devices; 1 unless the program has divided its CPU into more.
        cores: number of CPU cores.
        tf_config: the value of ``TF_CONFIG``, which describes a cluster; None if it is not set.
        slurm_config: the cluster of the SLURM job step, in the form of ``TF_CONFIG``; None unless srun
            started several tasks.
        networks: names of the networks, other than those of KerasHub, that ``--model`` can take.
        keras_2: whether this is the Keras 2.15 environment.
        addons: whether TensorFlow Addons is installed.
        hub: whether KerasHub is installed.
        trackers: the values of ``--track`` whose package is installed.
        sklearn: whether scikit-learn is installed.
    """

    gpus: tuple[tuple[int, int], ...] = ()
    cpu_devices: int = 1
    cores: int = 1
    tf_config: str | None = None
    slurm_config: str | None = None
    networks: tuple[str, ...] = field(default=("ResNet50", "Tiny"))
    keras_2: bool = False
    addons: bool = False
    hub: bool = True
    trackers: frozenset[str] = frozenset(TRACKERS)
    sklearn: bool = True


def inspect_machine() -> Machine:
    """Reads the machine and its environment; TensorFlow computes nothing yet."""
    import tensorflow as tf  # noqa: PLC0415  see the module's docstring

    from seedtf.compat.keras import KERAS_2  # noqa: PLC0415
    from seedtf.compat.keras_hub import has_keras_hub  # noqa: PLC0415
    from seedtf.compat.tensorflow import has_addons  # noqa: PLC0415
    from seedtf.model.network import available_models  # noqa: PLC0415

    cpus = tf.config.list_physical_devices("CPU")
    return Machine(
        gpus=tuple(gpu_compute_capabilities()),
        # A list of logical devices would start TensorFlow's runtime, after which the number of threads
        # can no longer be set.
        cpu_devices=len(tf.config.get_logical_device_configuration(cpus[0]) or [None]),
        cores=os.cpu_count() or 1,
        tf_config=os.environ.get("TF_CONFIG"),
        slurm_config=slurm_tf_config() if in_slurm_step() else None,
        networks=available_models(),
        keras_2=KERAS_2,
        addons=has_addons(),
        hub=has_keras_hub(),
        trackers=installed_trackers(),
        sklearn=importlib.util.find_spec("sklearn") is not None,
    )


def gpu_compute_capabilities() -> list[tuple[int, int]]:
    """Returns (major, minor) of every GPU that TensorFlow sees; ``[]`` without one.

    A GPU of another maker than NVIDIA reports no capability. It is listed as (0, 0), for which
    ``choose_precision`` chooses float32.
    """
    import tensorflow as tf  # noqa: PLC0415  see the module's docstring

    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    return [tuple(detail.get("compute_capability", (0, 0))) for detail in details]
