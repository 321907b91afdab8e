"""``seedtf tune`` in a process of its own, with ``fake_train.py`` in place of ``seedtf train``."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from matplotlib.figure import Figure

import seedtf.tuning.search as search_module
from seedtf.commands.main import main
from seedtf.tuning import records

FAKE = (sys.executable, "-I", "-S", str(Path(__file__).parent / "fake_train.py"))
"""The command that replaces ``seedtf train``. -I and -S leave out site packages, which saves time."""

if __name__ == "__main__":
    search_module.POLL_SECONDS = 0.01
    search_module.search = functools.partial(search_module.search, command=FAKE)
    records.draw_importance = lambda *_, **__: Figure((1, 1))
    sys.exit(main(["tune", *sys.argv[1:]]))
