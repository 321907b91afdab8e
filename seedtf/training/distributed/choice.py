"""Chooses the devices that share each batch, before TensorFlow starts them.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from seedtf.config.flags import AUTO
from seedtf.errors import UserError
from seedtf.training.distributed.cluster import SLURM, Cluster, read_cluster
from seedtf.training.machine import Machine

__all__ = ["DeviceChoice", "check_even_batch", "choose_devices", "choose_strategy"]


@dataclass(frozen=True)
class DeviceChoice:
    """The devices that ``--strategy`` and ``--cluster`` choose.

    Attributes:
        kind: ``none``, ``mirrored`` or ``multi_worker``.
        reason: why these devices were chosen, as a clause that follows "because" on the console.
        replicas: the number of devices that share every batch, over all workers.
        cluster: the workers of ``multi_worker``; None for the other kinds.
    """

    kind: str
    reason: str
    replicas: int = 1
    cluster: Cluster | None = None

    @property
    def workers(self) -> int:
        """The number of processes that train together."""
        return self.cluster.size if self.cluster else 1

    @property
    def chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.cluster is None or self.cluster.index == 0

    def resolved(self) -> dict[str, Any]:
        """The choice as JSON values, for config.json."""
        return {"strategy": self.kind, "replicas": self.replicas, "workers": self.workers}


def choose_devices(requested: str, machine: Machine, cluster_from: str = AUTO) -> DeviceChoice:
    """Resolves ``--strategy=requested`` and ``--cluster=cluster_from`` on ``machine``.

    Raises:
        UserError: in one of these cases:

            * The description of the cluster is wrong.
            * ``multi_worker`` or ``slurm`` is requested, but there is no description of a cluster.
            * There are several workers in the Keras 2.15 environment, where they cannot train together.

    Example:
        >>> choose_devices("auto", Machine(gpus=((9, 0), (9, 0)))).replicas
        2
    """
    cluster = _find_cluster(cluster_from, machine)
    num_gpus = len(machine.gpus)
    kind, reason = choose_strategy(requested, cluster, num_gpus, machine.cpu_devices)
    if kind == "mirrored":
        return DeviceChoice(kind, reason, replicas=num_gpus or machine.cpu_devices)
    if kind == "none" or cluster is None:
        return DeviceChoice(kind, reason)
    # With Keras 2.15, the chief cannot save alone, because reading the moving statistics of batch
    # normalization needs all workers.
    if machine.keras_2:
        raise UserError(
            f"--strategy={requested}: {reason}, which needs Keras 3; install seedtf without [addons], "
            "or pass --strategy=none"
        )
    return DeviceChoice(kind, reason, replicas=cluster.size * max(num_gpus, 1), cluster=cluster)


def choose_strategy(
    requested: str, cluster: Cluster | None, num_gpus: int, num_cpus: int
) -> tuple[str, str]:
    """Returns the strategy, and the reason for it as a clause that follows "because".

    Args:
        requested: the value of ``--strategy``: ``auto``, ``none``, ``mirrored`` or ``multi_worker``.
        cluster: the workers; None if there is no description of a cluster.
        num_gpus: the number of GPUs that TensorFlow sees in this process.
        num_cpus: the number of logical CPU devices; 1 unless the program has divided its CPU into more.

    Raises:
        UserError: ``multi_worker`` without a cluster.
    """
    workers, source = (cluster.size, cluster.source) if cluster else (1, "")
    if requested == "multi_worker" and cluster is None:
        raise UserError(
            "--strategy=multi_worker: TF_CONFIG is not set; set it on every worker, start them with "
            "srun, or pass auto"
        )
    if workers > 1 and requested in ("auto", "multi_worker"):
        return "multi_worker", f"{source} names {workers} workers"
    if requested == "none":
        unused = f"; the {workers} workers of {source} are not used" if workers > 1 else ""
        return "none", f"one device was requested{unused}"
    alone = f"{source} names one worker and " if cluster and workers == 1 else ""
    if num_gpus > 1 or (requested == "mirrored" and not num_gpus and num_cpus > 1):
        found = f"{num_gpus} GPUs" if num_gpus else f"{num_cpus} logical CPU devices"
        return "mirrored", f"{alone}there are {found}"
    prefix = "" if requested == "auto" else f"{requested} was requested, but "
    return "none", f"{prefix}{alone}there is one device"


def _find_cluster(cluster_from: str, machine: Machine) -> Cluster | None:
    """Returns the cluster that ``--cluster`` selects; None if there is no description of a cluster."""
    if cluster_from == "slurm" and machine.slurm_config is None:
        raise UserError(
            "--cluster=slurm: srun has not started several tasks; start seedtf with srun, one task on "
            "each machine"
        )
    if cluster_from == "slurm" or (cluster_from == AUTO and not machine.tf_config):
        return read_cluster(machine.slurm_config, SLURM)
    return read_cluster(machine.tf_config)


def check_even_batch(replicas: int, batch_size: int) -> None:
    """Raises UserError if a batch cannot be split evenly between ``replicas``."""
    remainder = batch_size % replicas
    if remainder:
        lower = f"{batch_size - remainder} or " if batch_size > remainder else ""
        raise UserError(
            f"--batch_size={batch_size}: {replicas} replicas cannot split a batch of this size "
            f"evenly; pass {lower}{batch_size - remainder + replicas}"
        )
