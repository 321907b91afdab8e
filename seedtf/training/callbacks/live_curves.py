"""Callbacks that draw while training runs: the curves, and the sample of augmented images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras

from seedtf.files import write_bytes, write_text
from seedtf.plots.base import Figure, figure_png
from seedtf.plots.page import image_uri, render_page
from seedtf.plots.training import draw_curves
from seedtf.report import format_duration, report_error
from seedtf.runs.history import best_epoch, strength_varies
from seedtf.runs.paths import RunPaths
from seedtf.training.background import LatestOnlyWorker
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.live_view import View, in_notebook, open_view

__all__ = ["REFRESH_SECONDS", "AfterFirstStep", "LiveCurves"]

REFRESH_SECONDS = 5
"""The time between two reloads of the live page, and the shortest time between two drawings."""
_TABLE_ROWS = 15


class _Column(NamedTuple):
    """A column of the page's table: a key of a history row, its heading and its format."""

    name: str
    title: str
    format: str


_COLUMNS = (
    _Column("epoch", "epoch", "%d"),
    _Column("lr", "lr", "%.1e"),
    _Column("loss", "loss", "%.4f"),
    _Column("accuracy", "acc", "%.4f"),
    _Column("val_loss", "val loss", "%.4f"),
    _Column("val_accuracy", "val acc", "%.4f"),
)
_STRENGTH_COLUMN = _Column("augment_strength", "strength", "%.2f")


class LiveCurves(keras.callbacks.Callback):
    """Draws curves.png and live.html after an epoch; the page reloads until ``finish`` is called.

    A thread draws the files, with at least ``pause`` seconds between two drawings. So if epochs are
    shorter, the curves are not drawn after every epoch. If a file cannot be written, one line on stderr
    says so and training continues.

    Args:
        paths: the run folder.
        log: has the history of the run; must come before this callback in the list.
        title: the name of the run; any Unicode text.
        planned_lr: the learning rate of every planned epoch.
        show: whether to show the curves in a window if there is a display; a notebook always shows
            them.
        pause: minimum seconds from the end of a drawing to the start of the next one.
    """

    _throughput_unit = "images / s"

    def __init__(
        self,
        paths: RunPaths,
        log: HistoryLog,
        *,
        title: str,
        planned_lr: Sequence[float],
        show: bool = False,
        pause: float = REFRESH_SECONDS,
    ) -> None:
        super().__init__()
        self._paths = paths
        self._log = log
        self._title = title
        self._planned_lr = planned_lr
        self._view = self._open_view() if show or in_notebook() else None
        self._last_warning = ""
        self._worker = LatestOnlyWorker(pause)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._submit("training", refresh=True)  # the page exists before the first epoch ends

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._view is not None:
            self._view.process_events()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._submit("training", refresh=True)
        if self._view is not None:
            self._view.update(lambda figure: self._draw(self._log.rows, figure))

    def finish(self, ending: str = "finished") -> None:
        """Writes a last page that no longer reloads itself, and returns when it is on disk.

        ``on_train_end`` cannot do this, because Keras calls it after each ``fit``, and a training may
        consist of several ``fit`` calls.

        Args:
            ending: how training ended, for the page.
        """
        self._submit(ending, refresh=False)
        self._worker.wait()

    def _open_view(self) -> View | None:
        view = open_view(self._title)
        if view is None:
            report_error(
                "no display, or no Matplotlib backend with windows: see curves.png and live.html"
            )
        return view

    def _draw(self, rows: Sequence[Mapping[str, float]], figure: Figure | None = None) -> Figure:
        return draw_curves(
            rows,
            title=self._title,
            best_epoch=best_epoch(rows),
            planned_lr=self._planned_lr,
            show_strength=strength_varies(rows),
            figure=figure,
        )

    def _submit(self, state: str, *, refresh: bool) -> None:
        # The thread gets copies, because training continues while it draws.
        rows, headline = list(self._log.rows), self._headline()
        # The time shows whether the page is still updated, or its process was killed.
        state = f"{state}, {time.strftime('%Y-%m-%d %H:%M:%S')}"

        def draw() -> None:
            png = figure_png(self._draw(rows)) if rows else None
            page = render_page(
                __package__,
                "live.html.jinja",
                title=self._title,
                state=state,
                refresh_seconds=REFRESH_SECONDS if refresh else None,
                headline=headline,
                columns=(*_COLUMNS, _STRENGTH_COLUMN) if strength_varies(rows) else _COLUMNS,
                rows=rows[: -_TABLE_ROWS - 1 : -1],
                best_epoch=best_epoch(rows),
                curves=None if png is None else image_uri(png),
            )
            self._replace_files(png, page)

        self._worker.submit(draw)

    def _replace_files(self, png: bytes | None, page: str) -> None:
        try:
            if png is not None:
                write_bytes(self._paths.curves, png)
            write_text(self._paths.live_page, page)
        except OSError as error:
            # str(error) contains the name of a temporary file, which changes every time, so the warning
            # would be repeated in every epoch.
            self._warn(f"warning: no curves written to {self._paths.root}: {error.strerror}")

    def _headline(self) -> list[tuple[str, str]]:
        rows, timer = self._log.rows, self._log.timer
        epochs = len(self._planned_lr) or self.params["epochs"]
        if not rows:
            return [("epoch", f"0 / {epochs}")]
        epoch, best = int(rows[-1]["epoch"]), best_epoch(rows)
        strength = [("augmentation strength", f"{rows[-1]['augment_strength']:.2f}")]
        return [
            ("epoch", f"{epoch} / {epochs}"),
            ("best epoch", "–" if best is None else str(best)),
            ("validation loss", _number(rows[-1]["val_loss"])),
            ("validation accuracy", _number(rows[-1]["val_accuracy"])),
            *(strength if strength_varies(rows) else []),
            (self._throughput_unit, f"{timer.images_per_second:,.0f}"),
            ("time left", format_duration(timer.remaining(epochs - epoch))),
        ]

    def _warn(self, warning: str) -> None:
        if warning != self._last_warning:  # a warning is printed once, not in every epoch
            report_error(warning)
        self._last_warning = warning


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"


class AfterFirstStep(keras.callbacks.Callback):
    """Runs a job once, in a thread, after the first training step.

    The first step is traced by Python code that holds the global interpreter lock, so a thread that
    started earlier would delay the tracing.

    Args:
        job: the function to run; ``wait`` raises its exception.
    """

    def __init__(self, job: Callable[[], None]) -> None:
        super().__init__()
        self._job: Callable[[], None] | None = job
        self._worker = LatestOnlyWorker()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if batch > 0:
            self._start()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start()  # an epoch may have a single step

    def wait(self) -> None:
        """Returns when the job is done, or at once if it was not started."""
        self._worker.wait()

    def _start(self) -> None:
        job, self._job = self._job, None
        if job is not None:
            self._worker.submit(job)
