"""Runs jobs in a thread: ``SerialWorker`` runs every job, ``LatestOnlyWorker`` only the newest one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["LatestOnlyWorker", "SerialWorker"]

Job = Callable[[], None]


class SerialWorker:
    """Runs one job at a time; ``submit`` waits until the previous job is done.

    So jobs, which may hold copies of all weights, do not queue up in memory. An exception in a job is
    raised by the next ``submit`` or ``wait``.

    Example:
        >>> worker, written = SerialWorker(), []
        >>> worker.submit(lambda: written.append("weights"))
        >>> worker.submit(lambda: written.append("state"))
        >>> worker.wait()
        >>> written
        ['weights', 'state']
        >>> worker.close()
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="serial-worker")
        self._pending: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether the last job is still running."""
        return self._pending is not None and not self._pending.done()

    def submit(self, job: Job) -> None:
        """Waits for the previous job, then starts ``job``; raises if the previous job failed."""
        self.wait()
        self._pending = self._pool.submit(job)

    def wait(self) -> None:
        """Waits for the last job, and raises its exception if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits for the last job and ends the thread; raises nothing."""
        self._pool.shutdown()


class LatestOnlyWorker:
    """Runs one job at a time. Of the jobs that are submitted while one runs, only the newest is run.

    An exception in a job is raised by the next ``submit`` or ``wait``.

    Args:
        pause: minimum seconds between the end of a job and the start of the next one.
    """

    def __init__(self, pause: float = 0.0) -> None:
        self._pause = pause
        self._changed = threading.Condition()
        self._job: Job | None = None
        self._running = self._skip_pause = False
        self._error: BaseException | None = None

    def submit(self, job: Job) -> None:
        """Makes ``job`` the next job, in place of a job that has not started; returns at once."""
        with self._changed:
            self._raise_error()
            self._job = job
            if not self._running:
                self._running = True
                # Not a daemon thread, because it would be killed in the middle of a job at exit.
                threading.Thread(target=self._run, name="latest-only-worker").start()

    def wait(self) -> None:
        """Waits until the newest job is done; this job starts without waiting for the pause."""
        with self._changed:
            self._skip_pause = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running)
            self._skip_pause = False
            self._raise_error()

    def _run(self) -> None:
        while job := self._next_job():
            try:
                job()
            except BaseException as error:  # the next `submit` or `wait` raises it
                self._error = error
            with self._changed:
                self._changed.wait_for(lambda: self._skip_pause, self._pause)

    def _next_job(self) -> Job | None:
        with self._changed:
            job, self._job = self._job, None
            if job is None:
                self._running = False
                self._changed.notify_all()
            return job

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
