"""Divides tasks among processes, also on several machines, through files in a shared folder.

A process takes the task ``NAME`` by creating the file ``NAME.1``, which only one process can do. Such a
file is a claim. The process then touches its claim every few seconds. If the process dies, another
process takes the task by creating ``NAME.2``, and so on; the claim with the highest number is valid.
Claims are never removed. So if two processes notice that a third has died, only one of the two can
create the next claim.
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

__all__ = ["Claim", "Claims", "identify_process"]

HEARTBEAT_SECONDS = 3.0
"""The seconds after which the owner of a claim touches the claim again."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def identify_process() -> dict[str, Any]:
    """Values that identify this process among the processes of all machines."""
    return {
        "host": socket.gethostname(),
        "boot": _read_text(_BOOT_ID),
        "namespace": _inode("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
    }


@dataclass
class Claim:
    """A task that this process has taken.

    Attributes:
        path: the file of the claim.
    """

    path: Path
    _next_heartbeat: float = field(default=0.0, init=False)

    def heartbeat(self) -> None:
        """Touches the file, but at most every ``HEARTBEAT_SECONDS``. Call this method often."""
        if time.monotonic() >= self._next_heartbeat:
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            # If a file server is unreachable, the next heartbeat may succeed.
            with suppress(OSError):
                os.utime(self.path)

    def is_lost(self) -> bool:
        """Whether another process has taken the task, because this process seemed to be dead."""
        name, number = self.path.name.rsplit(".", 1)
        return (self.path.parent / f"{name}.{int(number) + 1}").exists()

    def release(self) -> None:
        """Gives the task back, so that another process can take it without waiting for the timeout."""
        with suppress(OSError):
            write_text(self.path, json.dumps({"released": True}))


class Claims:
    """Takes tasks for this process, unless living processes have taken them.

    Args:
        folder: an existing folder that all processes share.
        timeout: a process on another machine counts as dead if it has not touched its claim for so many
            seconds. They are measured by the clock of this process, so the clocks of the machines may
            differ.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._folder, self._timeout = folder, timeout
        # For each claim, the time of its last touch, and the time at which this process noticed the
        # touch.
        self._seen: dict[Path, tuple[int, float]] = {}

    def take(self, name: str) -> Claim | None:
        """Takes a task. The result is None if a living process has taken the task.

        Raises:
            OSError: the folder cannot be written.
        """
        number = self._newest_number(name)
        if number and self._is_alive(self._folder / f"{name}.{number}"):
            return None
        path = self._folder / f"{name}.{number + 1}"
        # The claim is a hard link to a complete file. If the claim were created with O_EXCL and then
        # written, another process could read it before it is complete.
        temporary = self._folder / f".{name}.{secrets.token_hex(8)}"
        temporary.write_text(json.dumps(identify_process()), encoding="utf-8")
        try:
            os.link(temporary, path)
        except FileExistsError:
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return Claim(path)

    def describe_owner(self, name: str) -> str:
        """The host and process of the newest claim of a task, as text; empty without a claim."""
        content = _read_json(self._folder / f"{name}.{self._newest_number(name)}")
        return f"{content['host']} (process {content['pid']})" if "pid" in content else ""

    def _newest_number(self, name: str) -> int:
        """The number of the newest claim of a task; 0 without a claim."""
        pattern = re.compile(rf"{re.escape(name)}\.(\d+)")
        found = (pattern.fullmatch(entry) for entry in os.listdir(self._folder))
        return max((int(match[1]) for match in found if match), default=0)

    def _is_alive(self, path: Path) -> bool:
        """Whether the owner of a claim seems to be alive.

        For an owner on this machine, the process table gives the answer. For other owners, it depends
        on when they last touched the claim.
        """
        content = _read_json(path)
        if content.get("released"):
            return False
        own = identify_process()
        if all(content.get(key) == own[key] for key in ("host", "boot", "namespace")):
            started = content.get("started")
            return bool(started) and _start_time(int(content["pid"])) == started
        # The owner is a process of another machine or container, or of this machine before a restart,
        # so only its touches can be observed.
        touched_at = path.stat().st_mtime_ns
        seen = self._seen.get(path)
        if seen is None or seen[0] != touched_at:
            self._seen[path] = touched_at, time.monotonic()
            return True
        return time.monotonic() - seen[1] < self._timeout


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _start_time(pid: int) -> str:
    """The start time of a process in clock ticks since the boot of Linux; empty if it has ended."""
    # Split only the text after the last parenthesis. The name of the program, in parentheses, may have
    # spaces.
    fields = _read_text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _inode(path: str) -> int:
    with suppress(OSError):
        return os.stat(path).st_ino
    return 0


def _read_text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""
