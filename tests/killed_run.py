"""``seedtf`` in a process that kills itself: ``killed_run.py CALL ARGUMENT…``.

Every write calls rename, fsync or ``write_bytes``. These calls are counted, and at call number CALL the
process kills itself, for ``write_bytes`` with half of the file written; with CALL 0 it never does.
 Figures are replaced by a tiny image.
"""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from figures import replace_figures


def main(arguments: list[str]) -> int:
    from seedtf.commands.main import main as run_command_line

    fatal, calls = int(arguments[0]), 0

    def deadly(function: Callable[..., Any], *, torn: bool = False) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fatal:
                if torn:
                    function(values[0], values[1][: len(values[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*values, **options)

        return call

    replace_figures()
    os.replace, os.fsync = deadly(os.replace), deadly(os.fsync)
    write_bytes = deadly(pathlib.Path.write_bytes, torn=True)
    pathlib.Path.write_bytes = write_bytes  # type: ignore[method-assign]
    return run_command_line(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
