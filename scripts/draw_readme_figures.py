"""Draws five figures of the README into scripts/measured/.

    pip install .                                    # live and report also need Chromium
    python scripts/draw_readme_figures.py           # all five figures, a few minutes on two CPU cores
    python scripts/draw_readme_figures.py peers     # only the figure peers
    python scripts/draw_readme_figures.py live --live_run=runs/seedlings-192px    # as in the README

* ``augmentation``: the image that ``seedtf preview`` draws of the sample images.
* ``live``: the live page of a run on the sample images, or of the run in --live_run.
* ``report``: the evaluation page of the run on the sample images, with confusion matrix and top losses.
* ``lr_find``: the plot of the learning-rate finder on the sample images.
* ``peers``: a chart of the images per second in scripts/measured/peers.csv.

If --work_dir is given, the run on the sample images is kept there, so that a figure can be drawn again
without training again. The sixth figure of the README, ``race``, is drawn by scripts/benchmark_race.py.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image, ImageChops

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seedtf.plots.base import new_figure, save_figure, style_axes
from seedtf.runs.paths import RunPaths

MEASURED = Path(__file__).resolve().parent / "measured"

WIDTHS, COLORS, MAX_BYTES = (1000, 900, 800, 700), (256, 128, 64), 150_000
"""A figure gets the first width (in pixels) for which it fits in ``MAX_BYTES``, and as many colours as
then fit. If nothing fits, it gets the smallest width and the fewest colours."""

RUN_FLAGS = ("--data_dir=sample", "--weights=none", "--model=tiny", "--image_size=64")
SHOWN_EPOCHS = 24

# Hides all of the evaluation page but the cards, the confusion matrix and the first top losses.
SHORTEN_REPORT = """<style>
dl.cards, ol { grid-template-columns: repeat(6, 1fr) !important; } .matrix { max-width: 46rem; }
</style><script>
for (const pair of document.querySelectorAll(".pair")) {
  if (pair.previousElementSibling?.tagName === "H2") pair.previousElementSibling.remove();
  pair.remove();
}
for (const loss of [...document.querySelectorAll("ol > li")].slice(6)) loss.remove();
</script></body>"""


def seedtf(work_dir: Path, *arguments: str) -> None:
    """Runs ``seedtf`` of this clone in ``work_dir``; raises CalledProcessError if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(MEASURED.parents[1])}
    command = [sys.executable, "-m", "seedtf", *arguments]
    subprocess.run(command, cwd=work_dir, env=environment, check=True)


def train(work_dir: Path) -> RunPaths:
    """The paths of the run in ``work_dir``; it is trained first if it has no ``last.keras``."""
    run = work_dir / "sample-seedlings"
    if not RunPaths.of(run).last.exists():
        shutil.rmtree(run, ignore_errors=True)
        seedtf(work_dir, "train", *RUN_FLAGS, f"--epochs={SHOWN_EPOCHS}", f"--run_dir={run}")
    return RunPaths.of(run)


def draw_augmentation(work_dir: Path, target: Path) -> None:
    """Draws augmented sample images with ``seedtf preview``."""
    if not (work_dir / "seedlings").exists():
        seedtf(work_dir, "sample", "--out=seedlings")
    flags = ("--data_dir=seedlings", "--image_size=128", "--rotate=180", "--brightness=0.15")
    seedtf(work_dir, "preview", *flags, "--out=augmentation.png")
    save(Image.open(work_dir / "augmentation.png"), target)


def draw_live(work_dir: Path, target: Path) -> None:
    """Draws the live page of the run as a browser shows it after the last epoch."""
    screenshot(train(work_dir).live_page, work_dir, target)


def draw_report(work_dir: Path, target: Path) -> None:
    """Draws the evaluation page of the run, shortened by ``SHORTEN_REPORT``."""
    run = train(work_dir)
    seedtf(work_dir, "evaluate", str(run.root), "--overwrite")
    page = run.report.page.with_name("shortened.html")
    html = run.report.page.read_text(encoding="utf-8")
    page.write_text(html.replace("</body>", SHORTEN_REPORT), encoding="utf-8")
    screenshot(page, work_dir, target)


def draw_lr_find(work_dir: Path, target: Path) -> None:
    """Draws the plot of the learning-rate finder."""
    out = work_dir / "lr_find"
    if not out.exists():
        seedtf(work_dir, "lr_find", *RUN_FLAGS, f"--out={out}")
    save(Image.open(out / "lr_find.png"), target)


def draw_peers(work_dir: Path, target: Path) -> None:
    """Draws a bar chart of the augmented images per second in peers.csv."""
    with (MEASURED / "peers.csv").open(encoding="utf-8", newline="") as file:
        rates = {row["library"]: float(row["images_per_second"]) for row in csv.DictReader(file)}
    names = sorted(rates, key=lambda name: rates[name])
    chart = new_figure(6.25, 2.6)
    axes = chart.add_subplot()
    colors = ["#0072B2" if name == "seedtf" else "#9a9a9a" for name in names]
    bars = axes.barh(names, [rates[name] for name in names], color=colors)
    axes.bar_label(bars, [f"{rates[name]:,.0f}" for name in names], padding=4)
    axes.set_xlim(0, 1.15 * max(rates.values()))
    style_axes(axes, below="augmented images per second, two CPU cores")
    axes.grid(False, axis="y")
    axes.locator_params(axis="x", nbins=4)
    path = work_dir / "peers.png"
    save_figure(chart, path)
    save(Image.open(path), target)


def screenshot(page: Path, work_dir: Path, target: Path) -> None:
    """Saves a screenshot of the page, 1000 CSS pixels wide, without the empty space below."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        raise SystemExit(f"{page}: Chromium is not installed; install it to draw {target.name}")
    shot = work_dir / "page.png"
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=3000"
    subprocess.run(
        [browser, *flags.split(), f"--window-size={WIDTHS[0]},3000", f"--screenshot={shot}",
         page.resolve().as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    image = Image.open(shot).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    _, _, _, bottom = ImageChops.difference(image, empty).getbbox() or (0, 0, 0, image.height)
    save(image.crop((0, 0, image.width, min(bottom + 16, image.height))), target)


def save(image: Image.Image, target: Path) -> None:
    """Saves ``image`` as a PNG with a palette, with the width and colours that ``MAX_BYTES`` allows."""
    image = image.convert("RGB")
    for width, colors in itertools.product(WIDTHS, COLORS):
        size = min(width, image.width), round(image.height * min(width / image.width, 1.0))
        scaled = image.resize(size, Image.Resampling.LANCZOS)
        scaled.quantize(colors, kmeans=2, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size <= MAX_BYTES:
            break
    print(f"{target.name} {size[0]}×{size[1]}, {target.stat().st_size / 1000:.0f} kB")


FIGURES: dict[str, Callable[[Path, Path], None]] = {
    "augmentation": draw_augmentation,
    "live": draw_live,
    "report": draw_report,
    "lr_find": draw_lr_find,
    "peers": draw_peers,
}


def main() -> None:
    """Reads the command line and draws the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(FIGURES)}; default: all")
    parser.add_argument("--work_dir", help="folder for the runs; default: a temporary folder")
    parser.add_argument("--live_run", type=Path, help="run for live; default: a run on the sample")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(FIGURES)):
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(FIGURES)}")
    figures = dict(FIGURES)
    if arguments.live_run:
        page = RunPaths.of(arguments.live_run).live_page
        figures["live"] = partial(screenshot, page)
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = Path(arguments.work_dir or temporary).resolve()
        work_dir.mkdir(parents=True, exist_ok=True)
        for name in arguments.names or FIGURES:
            figures[name](work_dir, MEASURED / f"{name}.png")


if __name__ == "__main__":
    main()
