"""Checks that a resumed run will continue exactly; the error names what differs.

``runs.saved_config.RESUME_MAY_CHANGE`` lists the flags that may differ.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog
from seedtf.data.dataset import Dataset
from seedtf.data.paths import RemotePath, file_statuses
from seedtf.errors import UserError
from seedtf.report import report, warn
from seedtf.runs.paths import RunPaths
from seedtf.runs.saved_config import RESUME_MAY_CHANGE
from seedtf.training.plan import Plan
from seedtf.training.state import TrainState, load_newest_state

__all__ = ["check_identity", "load_resume_state", "run_identity"]

_VERSIONS = ("tensorflow", "keras")


def run_identity(plan: Plan, dataset: Dataset, replicas: int = 1) -> dict[str, Any]:
    """What must stay equal for a resumed run to end as if it had never stopped, as JSON values.

    The number of replicas matters if each replica normalises its own part of the batch, or mixes
    images within it. With ``--sync_bn`` and without mixing, any number of replicas computes the same,
    to rounding. The keys are part of the state's format: they are compared with those of older runs.
    """
    config, settings = plan.config, plan.settings
    mixed = config.mixup or config.cutmix
    replicas_are_equal = config.sync_bn and not mixed
    reason = "pictures are mixed" if mixed else "--sync_bn not given"
    flags = {k: v for k, v in config.as_dict().items() if k not in RESUME_MAY_CHANGE}
    packages = (*_VERSIONS, *(("keras-hub",) if settings.preset else ()))
    versions = {name: importlib.metadata.version(name) for name in packages}
    catalog = dataset.store.catalog
    return {
        **{f"--{name}": value for name, value in flags.items()},
        **{f"the version of {name}": version for name, version in versions.items()},
        "the precision": settings.precision.policy,
        **({} if replicas_are_equal else {f"the number of replicas ({reason})": replicas}),
        "compilation with XLA": settings.compilation.enabled,
        "the class list": list(catalog.class_names),
        "the number of pictures": len(catalog),
        **({"the changes by --fixes": _fixes_digest(dataset)} if config.fixes else {}),
        "the pictures (names, sizes, labels)": _data_digest(catalog),
        "the split": _split_digest(dataset),
        **({"the probabilities of --teacher": _teacher_digest(dataset)} if config.teacher else {}),
    }


def load_resume_state(
    run_dir: Path, identity: Mapping[str, Any], replicas: int
) -> TrainState | None:
    """The newest state of a run, checked to belong to this data and these flags; reports it.

    Args:
        run_dir: the run folder, which all workers of a run can read.
        identity: of the run that is about to continue.
        replicas: devices that share a batch now.

    Returns:
        None where no state was saved yet: the run starts again at epoch 1.

    Raises:
        UserError: the data or a flag differs, or every state in the folder is damaged.
    """
    state, warnings = load_newest_state(RunPaths(run_dir).state)
    for warning in warnings:
        warn(warning)
    if state is None:
        report("resume", "no state was saved yet: starting at epoch 1")
        return None
    check_identity(str(run_dir), state.facts["identity"], identity)
    before = state.facts["replicas"]
    if before != replicas:
        report(
            "resume",
            f"{before} replicas shared a batch, now {replicas}: the same batches and statistics, so "
            "the same numbers to rounding, except for dropout",
        )
    position = (
        f"step {state.step} of epoch {state.epoch + 1}" if state.step else f"epoch {state.epoch}"
    )
    report("resume", f"continuing after {position}")
    return state


def check_identity(run_dir: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError naming the first thing that differs between a state and this run."""
    # A flag that the release of the state did not have yet counts as its default.
    defaults = {f"--{each.name}": each.default for each in dataclasses.fields(TrainConfig)}
    for name, value in now.items():
        before = saved.get(name, defaults.get(name))
        if before != value:
            # The keys of older states say "pictures"; the console says "images".
            shown = name.replace("pictures", "images")
            raise UserError(
                f"--resume={run_dir}: {shown} was {_short(before)} and is now "
                f"{_short(value)}; restore it, or start a new run"
            )


def _data_digest(catalog: Catalog) -> str:
    digest = hashlib.blake2b(digest_size=16)
    # Asking a remote file system for a million sizes would take hours.
    has_sizes = not isinstance(catalog.root, RemotePath)
    statuses = file_statuses(catalog.absolute_paths()) if has_sizes else itertools.repeat(None)
    for path, status, label in zip(catalog.paths, statuses, catalog.labels, strict=False):
        line = f"{path}\0{status[0] if status else ''}\0{label}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _split_digest(dataset: Dataset) -> str:
    digest = hashlib.blake2b(dataset.split.train.tobytes(), digest_size=16)
    digest.update(dataset.split.val.tobytes())
    digest.update(dataset.split.test.tobytes())
    return digest.hexdigest()


def _fixes_digest(dataset: Dataset) -> str:
    lines = (f"{change.path}\0{change.fault}\0{change.detail}\n" for change in dataset.changes)
    return hashlib.blake2b("".join(lines).encode(), digest_size=16).hexdigest()


def _teacher_digest(dataset: Dataset) -> str:
    soft = dataset.store.soft_labels
    return hashlib.blake2b(b"" if soft is None else soft.tobytes(), digest_size=16).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
