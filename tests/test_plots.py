"""The figures of training and augmentation show the given values, also of unusual runs."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from seedtf.plots.augmentation import draw_augmentations
from seedtf.plots.base import clip_label, figure_png, save_figure
from seedtf.plots.training import draw_curves, draw_schedule


def make_history(epochs):
    return [
        {
            "epoch": epoch,
            "lr": 0.1 / epoch,
            "loss": 2.0 / epoch,
            "accuracy": 1 - 1 / (epoch + 1),
            "val_loss": 2.5 / epoch,
            "val_accuracy": 1 - 1.1 / (epoch + 1),
            "augment_strength": 1 + epoch / 10,
        }
        for epoch in range(1, epochs + 1)
    ]


def curves_of(axes):
    """All curves of a panel, as lists of (x, y)."""
    return [list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()]


def png_size(png):
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_curves_of_any_length_are_drawn(epochs):
    figure = draw_curves(make_history(epochs), title="run", best_epoch=1, planned_lr=[0.1] * 300)
    assert min(png_size(figure_png(figure, dpi=50))) > 0
    loss, accuracy, rate = figure.axes
    assert [len(curve) for curve in curves_of(loss)[:2]] == [epochs, epochs]
    assert curves_of(accuracy)[1][0] == (1, pytest.approx(0.45))
    assert [len(curve) for curve in curves_of(rate)[:2]] == [300, epochs]
    low, high = loss.get_xlim()
    # The ticks are at whole epochs.
    assert all(tick == int(tick) for tick in loss.get_xticks() if low <= tick <= high)


def test_curves_mark_the_best_epoch():
    loss, accuracy, _ = draw_curves(make_history(5), title="run", best_epoch=4).axes
    assert [(4, pytest.approx(0.625))] in curves_of(loss)
    assert [(4, pytest.approx(0.78))] in curves_of(accuracy)
    assert "epoch 4, validation 0.6250" in loss.get_title(loc="right")


@pytest.mark.parametrize("best_epoch", [None, 9])
def test_no_epoch_is_marked_if_the_best_one_is_unknown_or_beyond_the_history(best_epoch):
    loss = draw_curves(make_history(5), title="run", best_epoch=best_epoch).axes[0]
    assert len(curves_of(loss)) == 2
    assert loss.get_title(loc="right") == ""


def test_curves_can_contain_non_finite_values():
    rows = make_history(3)
    rows[1] |= {"loss": math.nan, "val_loss": math.inf}
    rows[2] |= {"val_loss": math.nan, "val_accuracy": math.nan}
    assert png_size(figure_png(draw_curves(rows, title="run", best_epoch=3), dpi=50))


def test_the_strength_has_a_panel_if_requested():
    rows = make_history(5)
    rows[0]["augment_strength"] = math.nan  # as in a history that an older version began
    figure = draw_curves(rows, title="run", planned_lr=[0.1] * 9, show_strength=True)
    rate, strength = figure.axes[2:]
    curve = next(curve for curve in curves_of(strength) if len(curve) == 5)
    assert curve[1:] == [(epoch, 1 + epoch / 10) for epoch in range(2, 6)]
    assert math.isnan(curve[0][1])
    assert strength.get_xlim() == rate.get_xlim() == (0.5, 9.5)
    assert strength.get_ylim()[1] > 1.5
    assert "1.50" in strength.get_title(loc="right")
    assert png_size(figure_png(figure, dpi=50))


def test_the_axis_of_the_loss_is_logarithmic_if_one_loss_is_huge():
    rows = make_history(20)
    assert draw_curves(rows[:5], title="run").axes[0].get_yscale() == "linear"
    rows[0]["val_loss"] = 1e4
    assert draw_curves(rows, title="run").axes[0].get_yscale() == "log"


def test_curves_can_be_drawn_in_an_existing_figure():
    figure = draw_curves(make_history(2), title="run")
    assert draw_curves(make_history(3), title="run", figure=figure) is figure
    assert len(figure.axes) == 3


def test_schedule_shows_warmup_peak_and_end():
    figure = draw_schedule(lambda epoch: 0.01 + min(epoch, 2) - epoch / 100, 10, title="one_cycle")
    (axes,) = figure.axes
    curve = dict(curves_of(axes)[0])
    assert (curve[0], curve[10]) == (pytest.approx(0.01), pytest.approx(1.91))
    assert "1.99 at epoch 2, last 1.91" in axes.get_title()
    assert axes.get_yscale() == "linear"
    assert png_size(figure_png(figure, dpi=50))


def test_schedule_over_many_powers_of_ten_is_logarithmic():
    assert draw_schedule(lambda e: 10.0**-e, 6, title="smooth").axes[0].get_yscale() == "log"


@pytest.mark.parametrize(("num_augmented", "batch_size"), [(0, 1), (7, 8), (11, 19)])
def test_augmentations_show_every_image_with_its_label(num_augmented, batch_size):
    image = np.full((6, 4, 3), 300.0, np.float32)  # above white: clipped, not wrapped around
    labels = [f"class {i}" for i in range(batch_size)]
    augmented, batch = (image[None].repeat(number, 0) for number in (num_augmented, batch_size))
    figure = draw_augmentations(image, augmented, batch, labels, title="strength 1")
    panels = [axes for axes in figure.findobj(lambda part: bool(getattr(part, "images", None)))
             if hasattr(axes, "get_xlim")]  # fmt: skip
    assert len(panels) == 1 + num_augmented + batch_size
    assert [axes.get_title() for axes in panels[-batch_size:]] == labels
    assert panels[0].get_title() == "original"
    assert np.all(panels[0].images[0].get_array() == 255)
    assert png_size(figure_png(figure, dpi=40))


def test_any_class_name_and_title_can_be_drawn(tmp_path, recwarn):
    names = ["a$b^{$c", "$\\frac$", "小麦", "bad\udcffbyte", "two\nlines", "", "x" * 500]
    image = np.zeros((4, 4, 3), np.uint8)
    figure = draw_augmentations(image, image[None], np.stack([image] * 7), names, title="$\\x^{$小")
    save_figure(figure, tmp_path / "augmented.png", dpi=40)
    assert png_size((tmp_path / "augmented.png").read_bytes())
    assert png_size(figure_png(draw_curves(make_history(1), title="$\\x^{$\udcff小"), dpi=40))
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_a_label_is_shortened_and_put_on_one_line():
    assert clip_label("Shepherd's Purse", 10) == "Shepherd'…"
    assert clip_label("Maize", 5) == "Maize"
    assert clip_label("a\r\nb\x1b\udcff\u2028", 20) == "a  b ? "


def test_a_saved_figure_is_written_atomically_and_reproducibly(tmp_path):
    figure = draw_curves(make_history(2), title="run")
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")
    save_figure(figure, path, dpi=50)
    assert path.read_bytes() == figure_png(draw_curves(make_history(2), title="run"), dpi=50)
    assert [entry.name for entry in tmp_path.iterdir()] == ["curves.png"]


def test_importing_the_figures_of_reports_and_trainings_does_not_import_pyplot():
    modules = "seedtf.plots.report, seedtf.plots.training"
    code = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
