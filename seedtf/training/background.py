"""Work beside training in threads: ``SerialWorker`` runs every job, ``LatestOnlyWorker`` the newest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["LatestOnlyWorker", "SerialWorker"]

Job = Callable[[], None]


class SerialWorker:
    """Does one job at a time; whoever brings the next one waits for the one before.

    So what jobs hold in memory is bounded, and what they raise is raised in training.
    """

    def __init__(self) -> None:
        """Starts idle."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._pending: Future[None] | None = None

    def submit(self, job: Job) -> None:
        """Begins ``job``; raises what the job before has raised."""
        self.wait()
        self._pending = self._pool.submit(job)

    def wait(self) -> None:
        """Returns when nothing is left to do; raises what the last job has raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Lets the thread end; waits for it, but raises nothing."""
        self._pool.shutdown()


class LatestOnlyWorker:
    """Does the newest job given, when it has time; an older one not yet begun is dropped.

    What a job raises is raised by the next ``submit`` or ``wait``.

    Args:
        pause: least seconds between the end of a job and the begin of the next.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._changed = threading.Condition()
        self._job: Job | None = None
        self._working = self._hurry = False
        self._error: BaseException | None = None

    def submit(self, job: Job) -> None:
        """Begins ``job`` soon, unless a newer one comes first."""
        with self._changed:
            self._raise_error()
            self._job = job
            if not self._working:
                self._working = True
                # no daemon: those are killed at the process's end, in the middle of a drawing
                threading.Thread(target=self._work, name="painter").start()

    def wait(self) -> None:
        """Returns when the newest job is done, without any pause before it."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._working)
            self._hurry = False
            self._raise_error()

    def _work(self) -> None:
        while job := self._next_job():
            try:
                job()
            except BaseException as error:  # for the thread that waits
                self._error = error
            with self._changed:
                self._changed.wait_for(lambda: self._hurry, self._pause)

    def _next_job(self) -> Job | None:
        with self._changed:
            job, self._job = self._job, None
            if job is None:
                self._working = False
                self._changed.notify_all()
            return job

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
