"""Renders the model card of a run: its data, measured accuracy, limits and training."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from seedtf.errors import UserError
from seedtf.model.families import short_name
from seedtf.model.presets import Preset
from seedtf.runs.folder import read_class_names, read_settings
from seedtf.runs.paths import RunPaths
from seedtf.runs.presets import WEIGHTS_LICENCE, read_preset
from seedtf.runs.split_origin import DRAWN, FOLD, GIVEN, read_split_origin

__all__ = ["render_model_card"]

_MAX_CLASSES = 200
_MAX_CONFUSED = 5

_SPLIT_ORIGINS = {
    DRAWN: "The validation images were drawn at random.",
    GIVEN: "The split was given by the user.",
    FOLD: "The validation images are one fold of a cross-validation.",
}


def render_model_card(run_dir: Any, name: str) -> str:
    """Returns the model card in Markdown, with the metadata header that Hugging Face reads.

    All numbers are read from the files of the run.

    Args:
        run_dir: a run that was evaluated with ``seedtf evaluate``.
        name: the title of the card.

    Raises:
        UserError: the run has no report, or one of its files is damaged.
    """
    paths = RunPaths.of(run_dir)
    settings = read_settings(run_dir)
    report = _read_json(paths.report.report_json, f"run: seedtf evaluate {paths.root}")
    environment = _read_json(paths.env, "the run is incomplete")
    counts = _count_images(paths, read_class_names(run_dir))
    parts = [
        _render_header(settings),
        f"# {_text(name)}",
        _render_summary(settings, report),
        "## Data\n\n" + _render_data(settings, counts),
        "## Measured\n\n" + _render_metrics(report),
        "## Use and limits\n\n" + _render_limits(report),
        "## Training\n\n" + _render_training(settings, environment, read_preset(paths.root)),
    ]
    return "\n\n".join(parts) + "\n"


def _render_header(settings: Mapping[str, Any]) -> str:
    """The YAML header of a model card, without a licence, which only the owner can choose."""
    lines = ["---", "library_name: tf-keras", "pipeline_tag: image-classification"]
    tags = ["seedtf", short_name(str(settings.get("model", "")))]
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags if tag), "---"]
    return "\n".join(lines)


def _render_summary(settings: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    names = report["class_names"]
    low, high = report["accuracy_interval_95"]
    return (
        f"An image classifier of {len(names)} classes: {short_name(settings['model'])} at "
        f"{settings['image_size']} pixels. On {report['images']} validation images, which were used to "
        f"choose the best epoch but not for training, {report['accuracy']:.1%} of the predictions were "
        f"correct (95 % interval {low:.1%} to {high:.1%})."
    )


def _render_data(settings: Mapping[str, Any], counts: Mapping[str, Counter[str]]) -> str:
    sides = [side for side in ("train", "val", "test") if any(c[side] for c in counts.values())]
    lines = [
        f"| class | {' | '.join(sides)} |",
        f"|---|{'---|' * len(sides)}",
        *(
            f"| {_text(name)} | {' | '.join(str(counts[name][side]) for side in sides)} |"
            for name in list(counts)[:_MAX_CLASSES]
        ),
    ]
    if len(counts) > _MAX_CLASSES:
        lines.append(f"| … and {len(counts) - _MAX_CLASSES} more classes |{' |' * len(sides)}")
    origin = _SPLIT_ORIGINS.get(read_split_origin(settings))
    return "\n".join(lines) + (f"\n\n{origin}" if origin else "")


def _render_metrics(report: Mapping[str, Any]) -> str:
    rows = [
        ("accuracy", f"{report['accuracy']:.4f}"),
        ("macro-F1", _number(report["macro_f1"])),
        ("cross-entropy in nats", f"{report['loss']:.4f}"),
        ("expected calibration error", f"{report['ece']['before']:.4f}"),
    ]
    if report["temperature"] is not None:
        rows.append(
            (
                f"expected calibration error with temperature {report['temperature']:.3f}, as exported",
                _number(report["ece"]["after"]),
            )
        )
    lines = ["| measure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += ["", "| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    for row in report["per_class"][:_MAX_CLASSES]:
        values = " | ".join(_number(row[key]) for key in ("precision", "recall", "f1"))
        lines.append(f"| {_text(row['class'])} | {values} | {row['support']} |")
    return "\n".join(lines)


def _render_limits(report: Mapping[str, Any]) -> str:
    lines = [
        "The model always predicts one of its classes, even for an image that shows none of them. "
        "The metrics are valid for images that were taken in the same way as the training images."
    ]
    is_scaled = report["temperature"] is not None
    rule = report["reject_with_temperature" if is_scaled else "reject"]
    if rule["threshold"] is not None:
        lines.append(
            f"If predictions with a confidence below {rule['threshold']:.4f} are rejected, "
            f"{rule['kept_share']:.1%} of the validation images remain, and {rule['precision']:.1%} of "
            "their predictions are correct."
        )
    confused = report["most_confused"][:_MAX_CONFUSED]
    if confused:
        lines.append("The most frequent mistakes on the validation images:")
        lines.append(
            "\n".join(
                f"* {_text(pair['true'])}, predicted as {_text(pair['predicted'])}: {pair['count']}"
                for pair in confused
            )
        )
    return "\n\n".join(lines)


def _render_training(
    settings: Mapping[str, Any], environment: Mapping[str, Any], preset: Preset | None
) -> str:
    pretrained = f"those of {_text(preset.name)}" if preset else "trained on ImageNet"
    origin = {"none": "random", "imagenet": pretrained}.get(settings.get("weights", ""), "a file")
    licence = environment.get(WEIGHTS_LICENCE)
    stated = f" (licence: {_text(licence)})" if licence else ""
    return (
        f"{settings['epochs']} epochs with `--recipe={settings.get('recipe')}`, initial weights: "
        f"{origin}{stated}. `config.json` has every flag. seedtf {environment.get('seedtf')}, "
        f"TensorFlow {environment.get('tensorflow')}, {environment.get('device')}."
    )


def _count_images(paths: RunPaths, names: Sequence[str]) -> dict[str, Counter[str]]:
    """The numbers of training, validation and test images of each class, from split.csv."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    try:
        with paths.split.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                counts[row["label"]][row["split"]] += 1
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{paths.split}: cannot be read ({error}); restore it") from None
    return counts


def _read_json(path: Any, remedy: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {remedy}") from None
    return values


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _text(text: str) -> str:
    """``text`` on one line; characters that would end a table cell or start a tag are escaped."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
