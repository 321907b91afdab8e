"""Reads ``TF_CONFIG``: the processes that train together, and the role of this process."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from seedtf.errors import UserError

__all__ = ["SLURM", "TF_CONFIG", "Cluster", "read_cluster"]

TF_CONFIG, SLURM = "TF_CONFIG", "SLURM"
"""Where a cluster is described: in the variable ``TF_CONFIG``, or in the variables that srun sets."""

# Roles in ``TF_CONFIG`` that seedtf does not use, and what to do instead.
_OTHER_ROLES = {
    "ps": "parameter servers are not used, because every worker has the whole network; leave ps out",
    "evaluator": "every worker validates a part of the images; leave the evaluator out",
    "master": "name it chief",
}
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, the chief first.

    Attributes:
        roles: the role of each worker, ``chief`` or ``worker``.
        addresses: the address of each worker, ``host:port``.
        index: the position of this process in ``roles`` and ``addresses``, from 0. The worker at 0 is
            the chief, even if its role is ``worker``.
        source: where the cluster is described: ``TF_CONFIG`` or ``SLURM``.
    """

    roles: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int
    source: str = TF_CONFIG

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.addresses)

    @property
    def tf_config(self) -> str:
        """The value of ``TF_CONFIG`` that describes this cluster.

        Example:
            >>> cluster = Cluster(("worker", "worker"), ("a:1", "b:1"), 1)
            >>> read_cluster(cluster.tf_config) == cluster
            True
        """
        addresses_by_role: dict[str, list[str]] = {}
        for role, address in zip(self.roles, self.addresses, strict=True):
            addresses_by_role.setdefault(role, []).append(address)
        role, number = self.task(self.index)
        return json.dumps({"cluster": addresses_by_role, "task": {"type": role, "index": number}})

    def task(self, index: int) -> tuple[str, int]:
        """Returns the role of a worker and its number among the workers of this role, from 0."""
        return self.roles[index], self.roles[:index].count(self.roles[index])

    def name(self, index: int) -> str:
        """Returns a worker's name for messages, such as ``worker 1 (host1:2222)``."""
        role, number = self.task(index)
        number_text = f" {number}" if role == "worker" else ""
        return f"{role}{number_text} ({self.addresses[index]})"


def read_cluster(text: str | None, source: str = TF_CONFIG) -> Cluster | None:
    """Returns the cluster that a value of ``TF_CONFIG`` describes; None if ``text`` is None or empty.

    Args:
        text: the value of ``TF_CONFIG``, or another description in the same form.
        source: where the description comes from.

    Raises:
        UserError: ``text`` has no valid cluster and task, or has a role that seedtf does not use.

    Example:
        >>> config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
        >>> read_cluster(json.dumps(config)).name(1)
        'worker 1 (b:1)'
    """
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        _refuse(f"is not JSON ({error})")
    addresses_by_role = value.get("cluster") if isinstance(value, dict) else None
    if not isinstance(addresses_by_role, dict) or not addresses_by_role:
        _refuse("has no cluster")
    roles, addresses = _roles_and_addresses(addresses_by_role)
    task = value.get("task")
    if not isinstance(task, dict):
        _refuse("has no task")
    return Cluster(roles, addresses, _worker_index(task, roles), source)


def _roles_and_addresses(
    addresses_by_role: dict[str, Any],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for role in addresses_by_role:
        _check_role(role, "the cluster")
    pairs = []
    for role in ("chief", "worker"):
        addresses_of_role = addresses_by_role.get(role, [])
        if not isinstance(addresses_of_role, list):
            _refuse(f"has no list of addresses under {role!r}")
        pairs += [(role, address) for address in addresses_of_role]
    for role, address in pairs:
        if not isinstance(address, str) or not re.fullmatch(r".+:\d+", address):
            _refuse(f"has the {role} address {address!r}, not host:port")
    addresses = tuple(address for _, address in pairs)
    if not addresses:
        _refuse("has a cluster without workers")
    if len(set(addresses)) < len(addresses):
        _refuse("names one address twice")
    if len(addresses_by_role.get("chief", [])) > 1:
        _refuse("has more than one chief")
    return tuple(role for role, _ in pairs), addresses


def _worker_index(task: dict[str, Any], roles: tuple[str, ...]) -> int:
    role, text = task.get("type"), str(task.get("index", 0))
    _check_role(role, "the task")
    count = roles.count(role)
    if not text.isdecimal() or int(text) >= count:
        _refuse(f"has the task {role} {text}, but the cluster has {count} of that role")
    return roles.index(role) + int(text)


def _check_role(role: Any, where: str) -> None:
    if role in ("chief", "worker"):
        return
    remedy = _OTHER_ROLES.get(role) if isinstance(role, str) else None
    if remedy is None:
        _refuse(f"has the role {role!r} in {where}, neither chief nor worker")
    raise UserError(f"TF_CONFIG has the role {role!r} in {where}; {remedy}")


def _refuse(fault: str) -> NoReturn:
    """Raises UserError; ``fault`` completes "TF_CONFIG …"."""
    raise UserError(f"TF_CONFIG {fault}; set it like {_EXAMPLE}, or unset it")
