"""``TF_CONFIG``: which machines train together, and which of them this one is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from seedtf.errors import UserError

__all__ = ["Cluster", "read_cluster"]

# roles of TensorFlow that have no part here, and what to do about each
_OTHER_ROLES = {
    "ps": "parameter servers are not used: every worker holds the whole network; leave ps out",
    "evaluator": "every worker validates its share of the images; leave the evaluator out",
    "master": "name it chief",
}
_EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, the chief first.

    Attributes:
        roles: ``chief`` or ``worker`` of each.
        addresses: ``host:port`` of each.
        index: which of them this process is, from 0; number 0 is the chief whatever its role's name.
    """

    roles: tuple[str, ...]
    addresses: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """How many workers there are."""
        return len(self.addresses)

    def task(self, index: int) -> tuple[str, int]:
        """Role and number within the role, as TensorFlow counts."""
        return self.roles[index], self.roles[:index].count(self.roles[index])

    def name(self, index: int) -> str:
        """For messages: ``worker 1 (host1:2222)``."""
        role, number = self.task(index)
        number_text = f" {number}" if role == "worker" else ""
        return f"{role}{number_text} ({self.addresses[index]})"


def read_cluster(text: str | None) -> Cluster | None:
    """The cluster that the value of ``TF_CONFIG`` describes; None where it is unset or empty.

    Raises:
        UserError: it does not describe one, or has a role that takes no part.
    """
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        _refuse(f"is not JSON ({error})")
    listed = value.get("cluster") if isinstance(value, dict) else None
    if not isinstance(listed, dict) or not listed:
        _refuse("has no cluster")
    roles, addresses = _members(listed)
    task = value.get("task")
    if not isinstance(task, dict):
        _refuse("has no task")
    return Cluster(roles, addresses, _index(task, roles))


def _members(listed: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for role in listed:
        _check_role(role, "the cluster")
    pairs = []
    for role in ("chief", "worker"):
        named = listed.get(role, [])
        if not isinstance(named, list):
            _refuse(f"lists no addresses under {role!r}")
        pairs += [(role, address) for address in named]
    for role, address in pairs:
        if not isinstance(address, str) or not re.fullmatch(r".+:\d+", address):
            _refuse(f"has the {role} address {address!r}, not host:port")
    addresses = tuple(address for _, address in pairs)
    if not addresses:
        _refuse("has a cluster without workers")
    if len(set(addresses)) < len(addresses):
        _refuse("names one address twice")
    if len(listed.get("chief", [])) > 1:
        _refuse("has more than one chief")
    return tuple(role for role, _ in pairs), addresses


def _index(task: dict[str, Any], roles: tuple[str, ...]) -> int:
    role, text = task.get("type"), str(task.get("index", 0))
    _check_role(role, "the task")
    count = roles.count(role)
    if not text.isdecimal() or int(text) >= count:
        _refuse(f"has the task {role} {text}, but the cluster names {count} of that kind")
    return roles.index(role) + int(text)


def _check_role(role: Any, where: str) -> None:
    if role in ("chief", "worker"):
        return
    remedy = _OTHER_ROLES.get(role)
    if remedy is None:
        _refuse(f"has the role {role!r} in {where}, neither chief nor worker")
    raise UserError(f"TF_CONFIG has the role {role!r} in {where}; {remedy}")


def _refuse(fault: str) -> NoReturn:
    raise UserError(f"TF_CONFIG {fault}; set it like {_EXAMPLE}, or unset it")
