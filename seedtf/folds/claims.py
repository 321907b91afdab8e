"""Shares pieces of work among processes, also of several machines, through files in a shared folder.

A piece is taken by creating the file ``NAME.1``, which only one process can do. Its owner touches the
file every few seconds. If the owner has died, the next process creates ``NAME.2``, and so on: the
highest number is the claim that counts, so that nothing is ever removed and two processes that see the
same dead owner cannot both succeed it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedtf.files import write_text

__all__ = ["Claim", "Claims", "this_process"]

BEAT_SECONDS = 3.0
"""How often an owner touches its claim."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def this_process() -> dict[str, Any]:
    """What identifies this process on its machine: host, boot, pid namespace, pid and start time."""
    return {
        "host": socket.gethostname(),
        "boot": _read(_BOOT_ID),
        "namespace": _inode("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


@dataclass
class Claim:
    """A piece of work that this process has taken.

    Attributes:
        path: its file.
    """

    path: Path
    _next_beat: float = field(default=0.0, init=False)

    def beat(self) -> None:
        """Touches the file, unless that was done a moment ago; to be called often."""
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_SECONDS
            with suppress(OSError):  # A file server may be away for a while.
                os.utime(self.path)

    def is_lost(self) -> bool:
        """Whether another process took the work over because it thought that this one had died."""
        name, number = self.path.name.rsplit(".", 1)
        return (self.path.parent / f"{name}.{int(number) + 1}").exists()

    def release(self) -> None:
        """Lets another process take the work at once."""
        with suppress(OSError):
            write_text(self.path, json.dumps({"released": True}))


class Claims:
    """The claims in one folder, as one process sees them.

    Args:
        folder: an existing folder that all processes share.
        timeout: seconds without a touch after which the owner on another machine counts as dead. The
            time is measured here, so that the clocks of the machines need not agree.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._folder, self._timeout = folder, timeout
        self._seen: dict[Path, tuple[int, float]] = {}

    def take(self, name: str) -> Claim | None:
        """Takes a piece of work, or returns None if a living process has it.

        Raises:
            OSError: the folder cannot be written.
        """
        newest = self._newest(name)
        if newest and self._is_alive(self._folder / f"{name}.{newest}"):
            return None
        path = self._folder / f"{name}.{newest + 1}"
        # A link to a complete file: unlike a file opened exclusively, it is never seen half written.
        temporary = self._folder / f".{name}.{secrets.token_hex(8)}"
        temporary.write_text(json.dumps(this_process()), encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return Claim(path)

    def owner(self, name: str) -> str:
        """The host and process number of the newest claim, for the console; empty if there is none."""
        content = _content(self._folder / f"{name}.{self._newest(name)}")
        return f"{content['host']} (process {content['pid']})" if "pid" in content else ""

    def _newest(self, name: str) -> int:
        """The highest number of a claim; 0 if there is none."""
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
        found = (pattern.fullmatch(entry) for entry in os.listdir(self._folder))
        return max((int(match[1]) for match in found if match), default=0)

    def _is_alive(self, path: Path) -> bool:
        content = _content(path)
        if content.get("released"):
            return False
        here = this_process()
        if all(content.get(key) == here[key] for key in ("host", "boot", "namespace")):
            started = content.get("started")
            return bool(started) and _start_time(int(content["pid"])) == started
        touched = path.stat().st_mtime_ns
        seen = self._seen.get(path)
        if seen is None or seen[0] != touched:
            self._seen[path] = touched, time.monotonic()
            return True
        return time.monotonic() - seen[1] < self._timeout


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _start_time(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if there is no such process (Linux)."""
    # The name in parentheses may itself contain spaces and parentheses.
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _inode(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_ino
    return 0


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
