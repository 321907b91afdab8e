"""Writes the results of a probe: tables, a figure, and the network of the best head as a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from seedtf.files import csv_line, write_lines
from seedtf.model.network import HEAD, save_model, set_body_trainable, with_head
from seedtf.plots.base import save_figure
from seedtf.plots.probe import draw_probe
from seedtf.probing.probe import Probe, ProbeRow
from seedtf.runs.folder import create_run_dir, lock_run
from seedtf.runs.history import HISTORY_COLUMNS
from seedtf.runs.paths import RunPaths
from seedtf.runs.records import write_records
from seedtf.runs.split_origin import FOLD, SPLIT

__all__ = ["save_best_head", "table_lines", "write_probe"]

_HEADER = ("model", "size", "features", "classifier", "accuracy", "95 % interval", "p", "seconds")
_LEFT_ALIGNED = (0, 3)  # the indices of the columns of text; columns of numbers are right-aligned


def table_lines(result: Probe) -> list[str]:
    """The lines of the table for the terminal, the header first."""
    rows = [_HEADER, *map(_cells, result.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number in _LEFT_ALIGNED else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _cells(row: ProbeRow) -> tuple[str, ...]:
    low, high = row.interval
    return (
        row.embedder.name,
        str(row.embedder.image_size),
        str(row.dimensions),
        row.classifier,
        f"{row.accuracy:.4f}",
        f"{low:.4f}–{high:.4f}",
        f"{row.mcnemar_p:.2g}",
        f"{row.seconds:.1f}{' (cached)' if row.from_cache else ''}",
    )


def write_probe(result: Probe, folder: Path) -> Path:
    """Writes ``probe.csv``, ``probe.png`` and ``predictions.csv``; returns the path of the figure.

    Args:
        result: from ``probe``.
        folder: an existing folder.
    """
    header = ("model", "image_size", "features", "classifier", "accuracy", "low", "high")
    lines = [csv_line(*header, "mcnemar_p", "seconds", "from_cache")]
    for row in result.rows:
        numbers = [f"{value:.6f}" for value in (row.accuracy, *row.interval)]
        lines.append(
            csv_line(
                row.embedder.name,
                str(row.embedder.image_size),
                str(row.dimensions),
                row.classifier,
                *numbers,
                f"{row.mcnemar_p:.6g}",
                f"{row.seconds:.2f}",
                str(row.from_cache).lower(),
            )
        )
    write_lines(folder / "probe.csv", lines)
    write_lines(folder / "predictions.csv", _prediction_lines(result))
    figure = draw_probe(result.rows, title=f"probe of {len(result.records):,} images")
    figure_path = folder / "probe.png"
    save_figure(figure, figure_path)
    return figure_path


def _prediction_lines(result: Probe) -> Iterator[str]:
    """The lines of predictions.csv: file, label, fold (from 1), the prediction of each classifier."""
    catalog = result.dataset.store.catalog
    names = [f"{row.embedder.name} {row.classifier}" for row in result.rows]
    yield csv_line("file", "label", "fold", *names)
    for number, record in enumerate(result.records):
        predicted = [catalog.class_names[row.predicted[number]] for row in result.rows]
        label = catalog.class_names[catalog.labels[record]]
        yield csv_line(catalog.paths[record], label, str(result.folds[number] + 1), *predicted)


def save_best_head(result: Probe, run_dir: str) -> tuple[Path, float]:
    """Writes the best head and its network as a run, which evaluate, predict and export accept.

    The head is the one that was fitted on all folds except the first. The images of the first fold
    become the validation images of the run, so an evaluation uses only images that the head has not
    seen.

    Args:
        result: from ``probe``.
        run_dir: the folder to create; it may exist if it is empty.

    Returns:
        The run folder, and the accuracy on its validation images, in [0, 1].

    Raises:
        UserError: the folder already contains files or cannot be created.
    """
    row, dataset = result.best_logistic_row, result.dataset
    embedder, head = row.embedder, row.heads[0]
    config = replace(
        result.config,
        model=embedder.model,
        weights=embedder.weights,
        image_size=embedder.image_size,
        run_dir=run_dir,
    )
    paths = RunPaths(create_run_dir(config))
    with lock_run(paths.root):
        network = with_head(embedder.build(), len(dataset.store.catalog.class_names))
        network.get_layer(HEAD).set_weights([head.kernel, head.bias])
        set_body_trainable(network, False)
        root = str(dataset.store.catalog.root.resolve())
        resolved = {"data_root": root, "head_strength": head.inverse_strength, SPLIT: FOLD}
        write_records(paths.root, config, dataset, resolved, embedder.preset)
        is_val = result.folds == 0
        is_correct = row.predicted == result.labels
        values = {
            "epoch": 1,
            "lr": 0.0,
            "val_loss": float(row.losses[is_val].mean()),
            "val_accuracy": float(is_correct[is_val].mean()),
        }
        cells = [str(values.get(name, math.nan)) for name in HISTORY_COLUMNS]
        write_lines(paths.history, [csv_line(*HISTORY_COLUMNS), csv_line(*cells)])
        save_model(network, paths.best)
    return paths.root, float(np.mean(is_correct[is_val]))
