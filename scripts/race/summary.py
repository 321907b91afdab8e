"""The table and the picture of a race, also of one that is not finished."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from seedtf.plots import base
from seedtf.plots.base import new_figure, save_figure, style_axes

MARKS = (0.90, 0.95)
NAMES = {
    "seedtf": "seedtf",
    "keras": "Keras script",
    "fastai": "fastai",
    "timm": "timm",
    "ultralytics": "Ultralytics",
}
_PALETTE = (base.TRAIN, base.VALIDATION, base.RATE, base.BEST, base.STRENGTH)
COLORS = dict(zip(NAMES, _PALETTE, strict=True))
TITLES = {"pretrained": "ImageNet weights", "scratch": "random weights"}

Result = dict[str, Any]


def load_results(folder: Path) -> list[Result]:
    """The results that exist, in the order of the table."""
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    order = list(NAMES)
    return sorted(
        results, key=lambda r: (r["weights"], r["setting"] != "default", order.index(r["tool"]))
    )


def minutes_to(result: Result, mark: float) -> float | None:
    """Minutes from the start to the end of the first epoch with at least this accuracy."""
    times = (row["seconds"] / 60 for row in result["history"] if row["accuracy"] >= mark)
    return next(times, None)


def table(results: list[Result]) -> str:
    """The results as a Markdown table; what was not reached or not seen is a dash."""
    head = [*("weights", "flags", "tool"), *(f"min to {mark:.2f}" for mark in MARKS)]
    head += [
        "best accuracy",
        "minutes",
        "CPU min",
        "images/s",
        "first step, s",
        "memory, GB",
        "lines",
    ]
    rows = [head, ["---"] * len(head)]
    for result in results:
        best = max((row["accuracy"] for row in result["history"]), default=None)
        mark = "" if result["finished"] else " (unfinished)"
        rows.append(
            [
                *(result["weights"], result["setting"], NAMES[result["tool"]] + mark),
                *(_number(minutes_to(result, mark), ".1f") for mark in MARKS),
                _number(best, ".3f"),
                _number(result["seconds"] / 60, ".1f"),
                _number(result["cpu_seconds"] / 60, ".1f"),
                _number(result["images_per_second"], ".0f"),
                _number(result["first_step"], ".1f"),
                _number(result["peak_bytes"] / 1e9, ".2f"),
                str(result["lines"]),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, form)


def draw(results: list[Result], path: Path) -> None:
    """Accuracy against minutes: a panel for each kind of first weights, dashed with default flags."""
    kinds = [kind for kind in TITLES if any(r["weights"] == kind and r["history"] for r in results)]
    figure = new_figure(6.25, 3.1)
    panels = figure.subplots(1, max(len(kinds), 1), squeeze=False)[0]
    handles: dict[str, Any] = {}
    for kind, axes in zip(kinds, panels, strict=False):
        for result in (r for r in results if r["weights"] == kind and r["history"]):
            tool, is_best = result["tool"], result["setting"] == "best"
            minutes = [row["seconds"] / 60 for row in result["history"]]
            (line,) = axes.plot(
                minutes, [row["accuracy"] for row in result["history"]],
                color=COLORS[tool], linestyle="-" if is_best else (0, (3, 1.5)), marker=".",
                linewidth=2.2 if tool == "seedtf" else 1.3, markersize=5,
                zorder=3 if tool == "seedtf" else 2,
            )  # fmt: skip
            label = f"{NAMES[tool]}{'' if is_best else ', defaults'}"
            handles.setdefault(label, line)
        for mark in MARKS if kind == "pretrained" else ():
            axes.axhline(mark, color=base.GREY, linewidth=0.6, zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{minute:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        style_axes(axes, "validation accuracy" if axes is panels[0] else "", "minutes")
        axes.set_title(TITLES[kind], fontsize=10)
    labels = [
        label
        for name in NAMES.values()
        for label in (name, f"{name}, defaults")
        if label in handles
    ]
    figure.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=5,
        fontsize=7,
        columnspacing=1.2,
        handlelength=1.8,
        frameon=False,
    )
    save_figure(figure, path)
