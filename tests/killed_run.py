"""``seedtf`` in a process that kills itself: ``killed_run.py CALL ARGUMENT…``.

seedtf writes files with ``os.replace``, ``os.fsync`` and ``Path.write_bytes``. The process counts the
calls of these three functions together, from 1. Instead of making call number CALL, the process kills
itself; if this is a call of ``write_bytes``, half of the bytes are written before. With CALL 0, the
process ends as usual. Figures are replaced by a tiny image.
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

    fatal_call, num_calls = int(arguments[0]), 0

    def kill_at_fatal_call(
        function: Callable[..., Any], *, writes_half: bool = False
    ) -> Callable[..., Any]:
        def call(*values: Any, **options: Any) -> Any:
            nonlocal num_calls
            num_calls += 1
            if num_calls == fatal_call:
                if writes_half:
                    function(values[0], values[1][: len(values[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*values, **options)

        return call

    replace_figures()
    os.replace, os.fsync = kill_at_fatal_call(os.replace), kill_at_fatal_call(os.fsync)
    write_bytes = kill_at_fatal_call(pathlib.Path.write_bytes, writes_half=True)
    pathlib.Path.write_bytes = write_bytes  # type: ignore[method-assign]
    return run_command_line(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
