"""Writes versions of an export, one after another, until the process is killed."""

from __future__ import annotations

import time
from typing import NoReturn

from seedtf.export.versions import new_version

NUM_FILES = 40


def main(arguments: list[str]) -> NoReturn:
    """Prints a line and writes versions of ``NUM_FILES`` files below the folder ``arguments[0]``."""
    print("ready", flush=True)
    while True:
        with new_version(arguments[0]) as version:
            for number in range(NUM_FILES):
                (version.folder / str(number)).write_text(str(version.number))
                time.sleep(0.0005)
