"""Going on with a run only where it can be exact: a refusal names what differs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from typing import Any

from seedtf.config.train_config import TrainConfig
from seedtf.data.catalog import Catalog
from seedtf.data.dataset import Dataset
from seedtf.data.paths import RemotePath
from seedtf.errors import UserError
from seedtf.runs.saved_config import RESUME_MAY_CHANGE
from seedtf.training.plan import Plan

__all__ = ["check_identity", "run_identity"]

_VERSIONS = ("tensorflow", "keras")


def run_identity(
    config: TrainConfig, dataset: Dataset, plan: Plan, replicas: int = 1
) -> dict[str, Any]:
    """What must be the same for a resumed run to end as if it had never stopped, as JSON values.

    The number of replicas that share a batch counts where each normalises its part of the batch by
    statistics of its own, or mixes images within its part. Else, with ``--sync_bn``, any number does
    the same arithmetic, to rounding.
    """
    mixed = plan.mixing.mixup or plan.mixing.cutmix
    alike = config.sync_bn and not mixed
    reason = "pictures are mixed" if mixed else "--sync_bn not given"
    flags = {k: v for k, v in config.as_dict().items() if k not in RESUME_MAY_CHANGE}
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    catalog = dataset.store.catalog
    return {
        **{f"--{name}": value for name, value in flags.items()},
        **{f"the version of {name}": version for name, version in versions.items()},
        "the precision": plan.precision.policy,
        **({} if alike else {f"the number of replicas ({reason})": replicas}),
        "compilation with XLA": plan.compilation.enabled,
        "the class list": list(catalog.class_names),
        "the number of pictures": len(catalog),
        "the pictures (names, sizes, labels)": _data_digest(catalog),
        "the split": _split_digest(dataset),
    }


def check_identity(run_dir: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises UserError naming the first thing that differs between a state and this run."""
    for name, value in now.items():
        if saved.get(name) != value:
            raise UserError(
                f"--resume={run_dir}: {name} was {_short(saved.get(name))} and is now "
                f"{_short(value)}; restore it, or start a new run"
            )


def _data_digest(catalog: Catalog) -> str:
    digest = hashlib.blake2b(digest_size=16)
    files = zip(catalog.paths, catalog.absolute_paths(), catalog.labels, strict=True)
    # to ask a remote file system for a million sizes would take hours
    ask = not isinstance(catalog.root, RemotePath)
    for path, absolute, label in files:
        line = f"{path}\0{os.stat(absolute).st_size if ask else ''}\0{label}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _split_digest(dataset: Dataset) -> str:
    digest = hashlib.blake2b(dataset.split.train.tobytes(), digest_size=16)
    digest.update(dataset.split.val.tobytes())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
