"""Runs seedtf in forked processes, which saves the five seconds that importing TensorFlow takes.

A server imports seedtf once for all test processes, and forks itself for each request. A forked process
differs from a new one only in the modules that are already imported. The environment, the working
folder and the random seeds are set for each process. TensorFlow starts its devices and threads at their
first use, which comes after the fork.

Two kinds of test need a new interpreter instead:

- Tests of how seedtf starts run ``python -m seedtf``.
- A test that compares two runs starts one of the two in a new interpreter. All forked processes hash
  strings with the same seed, so two forked runs would agree even if a result depended on that seed.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from figures import replace_figures

MODULES = (
    "seedtf.commands.train",
    "seedtf.evaluation.evaluate_run",
    "seedtf.export.versions",
    "seedtf.plots.report",
    "seedtf.plots.training",
    "seedtf.training.lr_finder.run",
    "seedtf.training.train",
)
"""The modules that the server imports, after TensorFlow, before it forks."""

ADDRESS = "SEEDTF_FORK_SERVER"
"""The name of the environment variable that has the path of the server's socket."""

_DIGITS = 12
"""The number of characters to which the server pads each number that it sends to a test process."""


class Process:
    """A forked process that runs ``target(arguments)``, with the interface of a ``Popen`` in text mode.

    The process runs on the processor cores of its caller.

    Args:
        target: a function that returns the exit code, as ``"module:function"``.
        arguments: the arguments of ``target``.
        cwd: the working folder; by default that of the caller.
        env: all environment variables; by default those of the caller.
        stdin: a file descriptor for the standard input, which is empty by default.
        terminal: a file descriptor for standard output and standard error. If it is given,
            ``communicate`` returns empty texts.
    """

    def __init__(
        self,
        target: str,
        arguments: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = None,
        terminal: int | None = None,
    ) -> None:
        self.args = [target, *arguments]
        self.returncode: int | None = None
        request = {
            "target": target,
            "arguments": [str(each) for each in arguments],
            "cwd": str((cwd or Path()).resolve()),
            "env": {**(os.environ if env is None else env)},
            "cores": [*os.sched_getaffinity(0)],
        }
        output, child_output = os.pipe()
        self._status, child_status = os.pipe()
        # Errors go to a file, so that a process that prints much to both streams does not block.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        null = os.open(os.devnull, os.O_RDONLY)
        descriptors = [
            null if stdin is None else stdin,
            child_output if terminal is None else terminal,
            self._errors.fileno() if terminal is None else terminal,
            child_status,
        ]
        socket.send_fds(_connect_to_server(), [json.dumps(request).encode()], descriptors)
        for each in (null, child_output, child_status):
            os.close(each)
        self.stdout = open(output, encoding="utf-8")  # noqa: SIM115
        self.pid = int(os.read(self._status, _DIGITS))

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(os.read(self._status, _DIGITS))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Returns what is left of standard output, and all of standard error, when the process ends.

        After ``timeout`` seconds, the process is killed.
        """
        alarm = threading.Timer(timeout or 1e6, os.kill, (self.pid, signal.SIGKILL))
        alarm.start()
        try:
            output = self.stdout.read()
            self.wait()
        finally:
            alarm.cancel()
        with self.stdout, self._errors as errors:
            errors.seek(0)
            return output, errors.read().decode()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(target: str, arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Runs ``target`` in a forked process to its end; ``options`` are those of ``Process``."""
    process = Process(target, arguments, **options)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def seedtf(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs ``seedtf ARGUMENT…`` in a forked process."""
    return run("seedtf.commands.main:main", [*arguments], **options)


def run_python(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Replaces ``subprocess.run`` of ``python -m MODULE ARGUMENT…`` or ``python -I FILE ARGUMENT…``."""
    return run("forked:run_as_main", [str(each) for each in command[1:]])


def run_as_main(arguments: list[str]) -> None:
    """Runs ``-m MODULE ARGUMENT…`` or ``-I FILE ARGUMENT…`` in a forked process, without figures."""
    replace_figures()
    kind, name, *sys.argv[1:] = arguments
    if kind == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-I", arguments
        runpy.run_path(name, run_name="__main__")


@cache
def _connect_to_server() -> socket.socket:
    """The connection of this test process to the server, which is started if none is running."""
    address = os.environ[ADDRESS]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connect(address)
        except OSError:  # no server has been started yet, or the last one has ended
            Path(address).unlink(missing_ok=True)
            _start_server(address)
            connection.connect(address)
    return connection


def _start_server(address: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(address)
        listening.listen()
        subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
        )


def _next_request(listening: socket.socket) -> tuple[dict, list[int]]:
    """Forks for each request, and returns the request and its descriptors in the forked process.

    The server itself stays in this function, and exits when no test process is connected any more.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The system removes processes that have ended.
    connections: list[socket.socket] = []
    while True:
        for ready in select.select([listening, *connections], [], [])[0]:
            if ready is listening:
                connections.append(listening.accept()[0])
                continue
            message, descriptors, _, _ = socket.recv_fds(ready, 1 << 20, 4)
            if not message:
                ready.close()
                connections.remove(ready)
                if not connections and not select.select([listening], [], [], 0)[0]:
                    sys.exit()
            elif os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (listening, *connections):
                    each.close()
                return json.loads(message), descriptors
            for each in descriptors:
                os.close(each)


def _become(request: dict, stdin: int, output: int, errors: int, status: int) -> None:
    """Forks once more; in the child, sets everything that the request asks for, and returns.

    The parent sends the child's process id, and later its exit code, to the test process.
    """
    process = os.fork()
    if process:
        os.write(status, b"%*d" % (_DIGITS, process))
        for each in (stdin, output, errors):
            os.close(each)
        _, code = os.waitpid(process, 0)
        os.write(status, b"%*d" % (_DIGITS, os.waitstatus_to_exitcode(code)))
        os._exit(0)
    os.close(status)
    for number, each in enumerate((stdin, output, errors)):
        os.dup2(each, number)
        os.close(each)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, "utf-8", "backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    os.sched_setaffinity(0, request["cores"])
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    sys.argv = ["seedtf", *request["arguments"]]
    tempfile.tempdir = None
    import numpy as np

    random.seed()
    np.random.seed()


def _serve(listening: socket.socket) -> NoReturn:
    from seedtf.compat.tensorflow_env import import_tensorflow

    import_tensorflow()
    for name in MODULES:
        importlib.import_module(name)
    # Without this, the garbage collector of a forked process would write to the memory of all modules,
    # and the system would copy that memory.
    gc.freeze()
    request, descriptors = _next_request(listening)
    _become(request, *descriptors)
    module, _, function = request["target"].partition(":")
    sys.exit(getattr(importlib.import_module(module), function)(request["arguments"]))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
