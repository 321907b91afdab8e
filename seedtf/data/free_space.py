"""How much memory and disk is free for decoded images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

__all__ = ["format_gib", "free_disk", "free_ram"]

_CGROUP = Path("/sys/fs/cgroup")


def free_disk(folder: Path) -> int:
    """Free bytes of the disk on which ``folder`` is or would be created; 0 if it is not accessible."""
    folder = folder.absolute()
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def free_ram() -> int:
    """Free bytes of memory; in a container, at most what its limit leaves free (cgroup v2)."""
    free = psutil.virtual_memory().available
    try:
        limit, used = (
            int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # Without a limit, the file is missing or contains "max".
        return free
    return min(free, max(limit - used, 0))


def format_gib(num_bytes: int) -> str:
    """A number of bytes as text, such as ``2.79 GiB``."""
    return f"{num_bytes / 2**30:.2f} GiB"
