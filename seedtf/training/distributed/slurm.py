"""Describes the cluster of a SLURM job step in the form of ``TF_CONFIG``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from seedtf.errors import UserError

__all__ = ["in_slurm_step", "slurm_tf_config"]

# The ports of a job depend on its number, so that two jobs on one machine rarely use the same ports.
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000
_MAX_TASKS_PER_NODE = 64


def in_slurm_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``srun`` started this process as one of several tasks.

    The batch script of a job is not such a task: its ``SLURM_NTASKS`` may be above 1, but not its
    ``SLURM_STEP_NUM_TASKS``.
    """
    return environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environ


def slurm_tf_config() -> str:
    """Returns the value of ``TF_CONFIG`` that describes the SLURM step of this process.

    All tasks of the step are workers. TensorFlow's resolver reads ``SLURM_STEP_NODELIST``,
    ``SLURM_STEP_TASKS_PER_NODE`` and ``SLURM_PROCID``. The ports are computed from ``SLURM_JOB_ID``.

    Raises:
        UserError: a variable is missing or cannot be read.
    """
    import tensorflow as tf  # noqa: PLC0415  so that importing machine.py does not import TensorFlow

    job_id = int(os.environ.get("SLURM_JOB_ID", "0"))
    port = _FIRST_PORT + job_id * _MAX_TASKS_PER_NODE % _NUM_PORTS
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port,
            # SLURM itself assigns the GPUs to tasks. With these values, the resolver does not change
            # that assignment.
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
