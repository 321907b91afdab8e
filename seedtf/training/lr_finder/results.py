"""What a range test leaves: its folder, the image and the table."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedtf.errors import UserError
from seedtf.files import csv_line, write_lines
from seedtf.plots.base import save_figure
from seedtf.plots.lr_finder import draw_range_test
from seedtf.runs.folder import create_named_folder
from seedtf.runs.paths import RUNS
from seedtf.training.lr_finder.finder import RangeTest, Suggestion

__all__ = ["result_folder", "write_results"]


@contextmanager
def result_folder(out_dir: str) -> Iterator[Path]:
    """A folder that can be written, known before the test rather than after it.

    One that was made here and is still empty after an error is removed.

    Args:
        out_dir: its path; empty for ``runs/<date>-<time>-lr_find``, with the first free number behind
            it where that is taken.

    Raises:
        UserError: it cannot be made or written.
    """
    own = not (out_dir and Path(out_dir).exists())
    try:
        folder = Path(out_dir) if out_dir else create_named_folder("lr_find")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        place = out_dir or RUNS
        raise UserError(f"--out_dir={place}: {error.strerror}; pass another folder") from error
    try:
        yield folder
    except BaseException:
        if own:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def write_results(
    folder: Path, test: RangeTest, suggestion: Suggestion | None, *, title: str
) -> tuple[Path, Path]:
    """Writes lr_find.png and lr_find.csv, and returns their paths.

    Args:
        folder: an existing one.
        test: at least one step.
        suggestion: the rates to mark in the image; None for none.
        title: of the image.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    image, table = folder / "lr_find.png", folder / "lr_find.csv"
    rows = zip(test.rates, test.losses, test.smoothed, strict=True)
    lines = [csv_line("step", "lr", "loss", "smoothed_loss")]
    lines += [csv_line(str(n), *(repr(v) for v in row)) for n, row in enumerate(rows, 1)]
    write_lines(table, lines)
    save_figure(draw_range_test(test, suggestion, title=title), image)
    return image, table
