"""Writes, before training, the files that describe a run: flags, environment, classes, split."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import tensorflow as tf

import seedtf
from seedtf.compat.tensorflow import has_addons
from seedtf.config.train_config import TrainConfig
from seedtf.data.dataset import Dataset, write_data_report
from seedtf.data.split import write_split_csv, write_split_summary
from seedtf.files import write_text
from seedtf.model.presets import Preset
from seedtf.runs.folder import format_class_names
from seedtf.runs.paths import RunPaths
from seedtf.runs.presets import WEIGHTS_LICENCE, initial_weights_licence
from seedtf.runs.split_origin import SPLIT, find_split_origin

__all__ = ["describe_devices", "write_records"]

_PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib", "pillow", "absl-py")


def write_records(
    run_dir: Path,
    config: TrainConfig,
    dataset: Dataset,
    resolved: dict[str, Any],
    preset: Preset | None = None,
) -> None:
    """Writes the files that describe a run.

    They are config.json, flags.txt, env.json, classes.txt, split.csv, split_summary.csv and
    data_report.csv; and preset.json, if the network is a preset of KerasHub.

    Args:
        run_dir: an existing folder.
        config: the flags of the run.
        dataset: the data of the run.
        resolved: the values that were chosen for the run, such as its learning rate, for config.json.
            The origin of the split is added if it is missing.
        preset: the KerasHub preset of the network, or None.
    """
    catalog = dataset.store.catalog
    origin = find_split_origin(dataset.split_source, config.split_csv)
    settings = {**config.as_dict(), "resolved": {SPLIT: origin, **resolved}}
    paths = RunPaths(run_dir)
    # Write preset.json before config.json. A folder with config.json counts as a run, and a run whose
    # network is a preset cannot be opened without preset.json.
    if preset is not None:
        write_text(paths.preset, json.dumps(preset.as_dict(), indent=2) + "\n")
    write_text(paths.config, json.dumps(settings, indent=2) + "\n")
    write_text(paths.flags, config.to_flagfile())
    environment = _describe_environment(preset is not None)
    if licence := initial_weights_licence(config, preset):
        environment[WEIGHTS_LICENCE] = licence
    write_text(paths.env, json.dumps(environment, indent=2) + "\n")
    write_text(paths.classes, format_class_names(catalog.class_names))
    write_split_csv(paths.split, catalog, dataset.labelled_split)
    write_split_summary(paths.split_summary, catalog, dataset.labelled_split)
    write_data_report(paths.data_report, catalog, dataset.num_unopened, dataset.changes)


def describe_devices() -> str:
    """The names of the GPUs, such as ``2 × NVIDIA H200``; without a GPU, the number of CPU cores."""
    names = []
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        names.append(details.get("device_name", gpu.name))
    if not names:
        return f"CPU, {os.cpu_count()} cores"
    return ", ".join(
        f"{names.count(name)} × {name}" if names.count(name) > 1 else name
        for name in dict.fromkeys(names)
    )


def _describe_environment(with_hub: bool) -> dict[str, Any]:
    packages = (*_PACKAGES, *(("tensorflow-addons",) if has_addons() else ()))
    packages += ("keras-hub",) if with_hub else ()
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "seedtf": seedtf.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": describe_devices(),
        **versions,
    }
