"""The table and the figure of a race (the same training with seedtf and other tools).

Table and figure can be made before all trainings have run. They also show trainings that failed or
reached the time limit; the figure shows them if they finished an epoch.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from seedtf.plots import base
from seedtf.plots.base import new_figure, save_figure, style_axes

TARGETS = (0.90, 0.95)
"""The table has the minutes until each of these validation accuracies was reached."""
TOOL_NAMES = {
    "seedtf": "seedtf",
    "keras": "Keras script",
    "fastai": "fastai",
    "timm": "timm",
    "ultralytics": "Ultralytics",
}
_PALETTE = (
    base.TRAIN_COLOR,
    base.VALIDATION_COLOR,
    base.RATE_COLOR,
    base.BEST_COLOR,
    base.STRENGTH_COLOR,
)
_TICKS = (0.05, 0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97)
COLORS = dict(zip(TOOL_NAMES, _PALETTE, strict=True))
TITLES = {"pretrained": "ImageNet weights", "scratch": "random weights"}

Result = dict[str, Any]


def load_results(folder: Path) -> list[Result]:
    """The results below ``folder``, in the order of the rows of the table."""
    results = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    order = list(TOOL_NAMES)
    return sorted(
        results,
        key=lambda result: (
            result["weights"],
            result["setting"] != "default",
            order.index(result["tool"]),
        ),
    )


def minutes_to(result: Result, target: float) -> float | None:
    """Minutes to the end of the first epoch with at least the accuracy ``target``; None if none has."""
    times = (row["seconds"] / 60 for row in result["history"] if row["accuracy"] >= target)
    return next(times, None)


def table(results: list[Result]) -> str:
    """The results as a Markdown table; a dash stands for what was not reached or not recorded."""
    head = [*("weights", "flags", "tool"), *(f"min to {target:.2f}" for target in TARGETS)]
    head += [
        "best accuracy",
        "minutes",
        "CPU min",
        "images/s",
        "first step, s",
        "memory, GB",
        "code lines",
    ]
    rows = [head, ["---"] * len(head)]
    for result in results:
        best = max((row["accuracy"] for row in result["history"]), default=None)
        suffix = "" if result["finished"] else " (unfinished)"
        rows.append(
            [
                *(result["weights"], result["setting"], TOOL_NAMES[result["tool"]] + suffix),
                *(_format(minutes_to(result, target), ".1f") for target in TARGETS),
                _format(best, ".3f"),
                _format(result["seconds"] / 60, ".1f"),
                _format(result["cpu_seconds"] / 60, ".1f"),
                _format(result["images_per_second"], ".0f"),
                _format(result["first_step"], ".1f"),
                _format(result["peak_bytes"] / 1e9, ".2f"),
                str(result["lines"]),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _format(value: float | None, spec: str) -> str:
    return "–" if value is None or math.isnan(value) else format(value, spec)


def draw(results: list[Result], path: Path) -> None:
    """Draws accuracy against minutes, one panel for each kind of weights; defaults are dashed."""
    kinds = [kind for kind in TITLES if any(r["weights"] == kind and r["history"] for r in results)]
    figure = new_figure(6.25, 3.1)
    panels = figure.subplots(1, max(len(kinds), 1), squeeze=False)[0]
    handles: dict[str, Any] = {}
    for kind, axes in zip(kinds, panels, strict=False):
        shown = [result for result in results if result["weights"] == kind and result["history"]]
        for result in shown:
            tool, is_best = result["tool"], result["setting"] == "best"
            minutes = [row["seconds"] / 60 for row in result["history"]]
            (line,) = axes.plot(
                minutes, [row["accuracy"] for row in result["history"]],
                color=COLORS[tool], linestyle="-" if is_best else (0, (3, 1.5)), marker=".",
                linewidth=2.2 if tool == "seedtf" else 1.3, markersize=5,
                zorder=3 if tool == "seedtf" else 2,
            )  # fmt: skip
            label = f"{TOOL_NAMES[tool]}{'' if is_best else ', defaults'}"
            handles.setdefault(label, line)
        for target in TARGETS if kind == "pretrained" else ():
            axes.axhline(target, color=base.GREY, linewidth=0.6, zorder=1)
        _scale_accuracies(axes, max(row["accuracy"] for r in shown for row in r["history"]))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda minute, _: f"{minute:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        style_axes(axes, "validation accuracy" if axes is panels[0] else "", "minutes")
        axes.set_title(TITLES[kind], fontsize=10)
    labels = [
        label
        for name in TOOL_NAMES.values()
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


def _scale_accuracies(axes: Any, best: float) -> None:
    """Makes the vertical axis end at the first tick above ``best``, the highest accuracy shown."""
    # On a linear axis, the lines above 0.85 would lie on top of each other.
    axes.set_yscale("logit", nonpositive="clip")
    top = min((tick for tick in _TICKS[1:] if tick > best), default=_TICKS[-1])
    ticks = [tick for tick in _TICKS[:-1] if tick <= top]  # 0.97 would touch the label of 0.95
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(_TICKS[0], top)
