"""Describes the cluster of a SLURM job step in the form of ``TF_CONFIG``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping

from seedtf.errors import UserError

__all__ = ["in_slurm_step", "slurm_tf_config"]

# The ports of a job depend on the number of the job, so two jobs on one machine rarely use equal ports.
_FIRST_PORT, _NUM_PORTS = 20_000, 10_000
_MAX_TASKS_PER_NODE = 64
_SPAN = r"\d+(?:-\d+)?"


def in_slurm_step(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``srun`` started this process as one of several tasks.

    The batch script of a job is not such a task: its ``SLURM_NTASKS`` may be above 1, but not its
    ``SLURM_STEP_NUM_TASKS``.
    """
    return environ.get("SLURM_STEP_NUM_TASKS", "1") != "1" and "SLURM_PROCID" in environ


def slurm_tf_config() -> str:
    """Returns the value of ``TF_CONFIG`` that describes the SLURM step of this process.

    All tasks of the step are workers, in the order of their ranks: unless ``--distribution`` says
    otherwise, srun numbers the tasks node by node, in the order of ``SLURM_STEP_NODELIST``.
    TensorFlow's resolver is not used, because it sorts the names of the nodes as texts: for
    ``host[2,10]``, rank 0 would get the address of host10.

    ``SLURM_STEP_TASKS_PER_NODE``, ``SLURM_STEP_NUM_TASKS`` and ``SLURM_PROCID`` are read, too. The
    ports are computed from ``SLURM_JOB_ID``. If that variable is missing, the job number 0 is used.

    Raises:
        UserError: in one of these cases:

            * A variable other than ``SLURM_JOB_ID`` is missing.
            * A variable has a value of another form than SLURM's.
            * The numbers of nodes and tasks do not fit together.
            * A node has more than 64 tasks, for which there are no ports.
    """
    try:
        job_id = _read_number("SLURM_JOB_ID", "0")
        hosts = list(_expand_hosts(_read("SLURM_STEP_NODELIST")))
        counts = list(_expand_counts(_read("SLURM_STEP_TASKS_PER_NODE")))
        num_tasks, rank = _read_number("SLURM_STEP_NUM_TASKS"), _read_number("SLURM_PROCID")
        if len(hosts) != len(counts) or sum(counts) != num_tasks or rank >= num_tasks:
            raise ValueError(
                f"rank {rank} of {num_tasks} tasks; {len(hosts)} nodes, on which {counts} tasks run"
            )
        if max(counts) > _MAX_TASKS_PER_NODE:
            raise ValueError(f"more than {_MAX_TASKS_PER_NODE} tasks on a node")
    except ValueError as error:
        raise UserError(
            f"--cluster=slurm: the variables of SLURM cannot be read ({error}); start seedtf with "
            "srun, or set TF_CONFIG"
        ) from None
    first_port = _FIRST_PORT + job_id * _MAX_TASKS_PER_NODE % _NUM_PORTS
    addresses = [
        f"{host}:{first_port + number}"
        for host, count in zip(hosts, counts, strict=True)
        for number in range(count)
    ]
    task = {"type": "worker", "index": rank}
    return json.dumps({"cluster": {"worker": addresses}, "task": task})


def _read(name: str, default: str | None = None) -> str:
    text = os.environ.get(name, default)
    if text is None:
        raise ValueError(f"{name} is missing")
    return text


def _read_number(name: str, default: str | None = None) -> int:
    text = _read(name, default)
    if not text.isdecimal():
        raise ValueError(f"{name}={text}")
    return int(text)


def _expand_hosts(nodes: str) -> Iterator[str]:
    """Yields the hosts of a list such as ``rack1-node[08-10,12],login``, in its order."""
    for part in re.split(r",(?![^\[]*\])", nodes):  # at the commas that are not between brackets
        if not re.fullmatch(rf"(?:[^\[\]]|\[{_SPAN}(?:,{_SPAN})*\])+", part):
            raise ValueError(f"SLURM_STEP_NODELIST={nodes}")
        yield from _expand_brackets(part)


def _expand_brackets(host: str) -> Iterator[str]:
    prefix, bracket, rest = host.partition("[")
    if not bracket:
        yield host
        return
    spans, _, rest = rest.partition("]")
    for span in spans.split(","):
        first, _, last = span.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for suffix in _expand_brackets(rest):
                yield f"{prefix}{number:0{len(first)}}{suffix}"


def _expand_counts(counts: str) -> Iterator[int]:
    """Yields the number of tasks on each node: 2, 2, 1 for ``2(x2),1``."""
    for part in counts.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={counts}")
        yield from [int(match[1])] * int(match[2] or 1)
