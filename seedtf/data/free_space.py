"""How much memory and disk is free for decoded images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

__all__ = ["free_disk", "free_ram", "gib"]

_CGROUP = Path("/sys/fs/cgroup")


def free_disk(folder: Path) -> int:
    """Bytes of free disk where ``folder`` is, or would be made; 0 if it cannot be accessed."""
    folder = folder.absolute()
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def free_ram() -> int:
    """Bytes of free memory, also within the limit of a container (cgroup v2)."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # There is no limit: no such file, or its content is "max".
        return free
    return min(free, max(limit - used, 0))


def gib(count: int) -> str:
    """A number of bytes as text: ``2.79 GiB``."""
    return f"{count / 2**30:.2f} GiB"
