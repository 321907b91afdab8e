"""The cluster of a SLURM job step, as the value that ``TF_CONFIG`` would have."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from seedtf.errors import UserError

__all__ = ["in_slurm_step", "slurm_tf_config"]

# Each job has ports of its own, so that two jobs on one machine do not take the same.
_FIRST_PORT, _PORTS = 20_000, 10_000
_MAX_TASKS_PER_NODE = 64


def in_slurm_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``srun`` started this process as one of several tasks.

    The batch script itself is not such a task, although SLURM sets the number of tasks for it too.
    """
    return environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environ


def slurm_tf_config() -> str:
    """The cluster of the SLURM step of this process, as ``TF_CONFIG``: all tasks are workers.

    TensorFlow's resolver reads ``SLURM_STEP_NODELIST``, ``SLURM_STEP_TASKS_PER_NODE`` and
    ``SLURM_PROCID``. The ports follow from ``SLURM_JOB_ID``.

    Raises:
        UserError: a variable is missing or cannot be read.
    """
    import tensorflow as tf  # noqa: PLC0415  machine.py, which imports this module, does not need it

    port = _FIRST_PORT + int(os.environ.get("SLURM_JOB_ID", "0")) * _MAX_TASKS_PER_NODE % _PORTS
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port,
            # SLURM itself gives each task its GPUs; with these numbers the resolver assigns none.
            gpus_per_node=_MAX_TASKS_PER_NODE,
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        cluster = resolver.cluster_spec().as_dict()
        role, index = resolver.get_task_info()
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"--cluster=slurm: the variables of SLURM cannot be read ({error}); start seedtf with "
            "srun, or set TF_CONFIG"
        ) from None
    return json.dumps({"cluster": cluster, "task": {"type": role, "index": index}})
