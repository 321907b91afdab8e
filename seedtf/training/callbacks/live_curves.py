"""Images of a training while it runs: curves.png, live.html and, on request, a window."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

import keras
from matplotlib.figure import Figure

from seedtf.files import write_bytes, write_text
from seedtf.plots.base import figure_png
from seedtf.plots.training import draw_curves
from seedtf.report import format_duration
from seedtf.runs.history import best_epoch, strength_varies
from seedtf.runs.paths import RunPaths
from seedtf.training.background import LatestOnlyWorker
from seedtf.training.callbacks.history_log import HistoryLog
from seedtf.training.callbacks.live_page import REFRESH_SECONDS, render_page
from seedtf.training.callbacks.live_view import View, in_notebook, open_view

__all__ = ["AfterFirstStep", "LiveCurves"]


class LiveCurves(keras.callbacks.Callback):
    """Replaces curves.png and live.html after each epoch; the page reloads itself until ``finish``.

    They are drawn beside training and no more often than the page reloads, so of quick epochs some
    are never drawn. A file that cannot be written becomes one line on stderr: an image never ends a
    training.

    Args:
        paths: the run folder.
        log: the record of the run; it stands before this callback in the list.
        title: the name of the run, in any script.
        planned_lr: the learning rate of every planned epoch.
        show: also show the curves in a window, where there is a display; a notebook shows them anyway.
        pause: least seconds between two drawings.
    """

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
        self._view = self._open() if show or in_notebook() else None
        self._warning = ""
        self._painter = LatestOnlyWorker(pause)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Writes the first page, so that it can be opened before the first epoch ends."""
        self._write("training", refresh=True)

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Lets the window answer."""
        if self._view is not None:
            self._view.idle()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Has everything drawn anew; a window or a notebook's image at once."""
        self._write("training", refresh=True)
        if self._view is not None:
            self._view.update(lambda figure: self._draw(self._log.rows, figure))

    def finish(self, state: str = "finished") -> None:
        """Writes the last page, which no longer reloads; ``state`` says how training ended.

        Returns when it is on disk. Not tied to the end of ``fit``: a training may consist of several.
        """
        self._write(state, refresh=False)
        self._painter.wait()

    def _open(self) -> View | None:
        view = open_view(self._title)
        if view is None:
            print("no display for a window: see curves.png and live.html", file=sys.stderr)
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

    def _write(self, state: str, *, refresh: bool) -> None:
        rows, headline = list(self._log.rows), self._headline()  # as they are now
        # the time tells a running training from one that was killed
        state = f"{state}, {time.strftime('%Y-%m-%d %H:%M:%S')}"

        def paint() -> None:
            png = figure_png(self._draw(rows)) if rows else None
            page = render_page(
                title=self._title,
                state=state,
                refresh=refresh,
                headline=headline,
                rows=rows,
                best_epoch=best_epoch(rows),
                png=png,
                show_strength=strength_varies(rows),
            )
            self._replace(png, page)

        self._painter.submit(paint)

    def _replace(self, png: bytes | None, page: str) -> None:
        try:
            if png is not None:
                write_bytes(self._paths.curves, png)
            write_text(self._paths.live_page, page)
        except OSError as error:
            # without the temporary file's name, which is another one every time
            self._warn(f"warning: no curves written to {self._paths.root}: {error.strerror}")

    def _headline(self) -> list[tuple[str, str]]:
        rows, epochs, timer = self._log.rows, len(self._planned_lr), self._log.timer
        if not rows:
            return [("epoch", f"0 / {epochs}")]
        epoch, best = int(rows[-1]["epoch"]), best_epoch(rows)
        strength = [("augmentation strength", f"{rows[-1]['augment_strength']:.2f}")]
        return [
            ("epoch", f"{epoch} / {epochs}"),
            ("best epoch", "–" if best is None else str(best)),
            ("validation loss", f"{rows[-1]['val_loss']:.4f}"),
            ("validation accuracy", f"{rows[-1]['val_accuracy']:.4f}"),
            *(strength if strength_varies(rows) else []),
            ("images / s", f"{timer.images_per_second:,.0f}"),
            ("time left", format_duration(timer.remaining(epochs - epoch))),
        ]

    def _warn(self, warning: str) -> None:
        if warning != self._warning:  # not again in every epoch
            print(warning, file=sys.stderr)
        self._warning = warning


class AfterFirstStep(keras.callbacks.Callback):
    """Runs a job once, in a thread, as soon as the first training step is done.

    The first step is traced by a thread that holds Python's global lock; starting earlier would only
    delay it.

    Args:
        job: the work; an exception that it raises is raised by ``wait``.
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
