"""Checks that a resumed run has the same data, flags and environment as its saved state.

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

from seedtf.config.recipes import BEFORE_FLAG
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

_COMPARED_PACKAGES = ("tensorflow", "keras")


def run_identity(plan: Plan, dataset: Dataset, replicas: int = 1) -> dict[str, Any]:
    """Returns the JSON values that decide the result of a run; a resumed run must have equal values.

    The number of replicas is one of them if each replica normalizes its own part of the batch, or mixes
    images within its part. With ``--sync_bn`` and without mixing, any number of replicas computes the
    same result, up to rounding and the masks of dropout. The keys of the returned dict must not change,
    because older states have these keys.
    """
    config, settings = plan.config, plan.settings
    mixed = config.mixup or config.cutmix
    any_number_of_replicas = config.sync_bn and not mixed
    reason = "pictures are mixed" if mixed else "--sync_bn not given"
    flags = {
        name: value for name, value in config.as_dict().items() if name not in RESUME_MAY_CHANGE
    }
    packages = (*_COMPARED_PACKAGES, *(("keras-hub",) if settings.preset else ()))
    versions = {name: importlib.metadata.version(name) for name in packages}
    catalog = dataset.store.catalog
    return {
        **{f"--{name}": value for name, value in flags.items()},
        **{f"the version of {name}": version for name, version in versions.items()},
        "the precision": settings.precision.policy,
        **({} if any_number_of_replicas else {f"the number of replicas ({reason})": replicas}),
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
    """Reads the newest state of a run, and checks that it has the given ``run_identity``.

    This function also prints where the run continues.

    Args:
        run_dir: the run folder, which all workers of a run can read.
        identity: the ``run_identity`` of the run that is about to continue.
        replicas: the number of devices that share a batch now.

    Returns:
        The state; None if no state was saved yet. The run then starts again at epoch 1.

    Raises:
        UserError: a value of ``identity`` differs from the value in the state, or the saved states
            cannot be read.
    """
    state, warnings = load_newest_state(RunPaths(run_dir).state)
    for warning in warnings:
        warn(warning)
    if state is None:
        report("resume", "no state was saved yet: starting at epoch 1")
        return None
    check_identity(str(run_dir), state.facts["identity"], identity)
    saved_replicas = state.facts["replicas"]
    if saved_replicas != replicas:
        report(
            "resume",
            f"{saved_replicas} replicas before, {replicas} now: the batches and their statistics are "
            "the same, so losses differ only by rounding, and with dropout by its masks",
        )
    # A signal before the first step leaves a state without any completed step.
    where = f"after epoch {state.epoch}" if state.epoch else "at the first step"
    if state.step:
        where = f"after step {state.step} of epoch {state.epoch + 1}"
    report("resume", f"continuing {where}")
    return state


def check_identity(run_dir: str, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Raises UserError for the first value that differs between a state and this run."""
    # The states of older releases lack the flags that were added later.
    defaults = {
        f"--{field.name}": BEFORE_FLAG.get(field.name, field.default)
        for field in dataclasses.fields(TrainConfig)
    }
    for name, value in current.items():
        saved_value = saved.get(name, defaults.get(name))
        if saved_value != value:
            # The keys say "pictures", because older states have these keys; the console says "images".
            shown = name.replace("pictures", "images")
            raise UserError(
                f"--resume={run_dir}: {shown} was {_shortened(saved_value)} and is now "
                f"{_shortened(value)}; restore it, or start a new run"
            )


def _data_digest(catalog: Catalog) -> str:
    digest = hashlib.blake2b(digest_size=16)
    # The sizes of remote files are left out, because a million requests would take hours.
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


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
