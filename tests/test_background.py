"""Background workers: at most one job waits, jobs run in order, and no exception of a job is lost."""

from __future__ import annotations

import threading

import pytest

from seedtf.training.background import LatestOnlyWorker, SerialWorker


def test_a_serial_worker_runs_one_job_at_a_time_in_order() -> None:
    worker, done, may_end = SerialWorker(), [], threading.Event()

    def first() -> None:
        may_end.wait(30)
        done.append(1)

    worker.submit(first)  # returns at once
    submitting = threading.Thread(target=lambda: worker.submit(lambda: done.append(2)))
    submitting.start()
    submitting.join(0.2)
    assert submitting.is_alive()  # waits for the first job
    assert done == []
    may_end.set()
    submitting.join(30)
    worker.wait()
    assert done == [1, 2]
    worker.close()


def test_the_exception_of_a_job_is_raised_by_the_next_call() -> None:
    def failing() -> None:
        raise OSError("no room")

    serial, latest = SerialWorker(), LatestOnlyWorker()
    serial.submit(failing)
    with pytest.raises(OSError, match="no room"):
        serial.submit(lambda: None)
    serial.wait()  # raised only once
    serial.submit(failing)
    with pytest.raises(OSError, match="no room"):
        serial.wait()
    serial.close()
    latest.submit(failing)
    with pytest.raises(OSError, match="no room"):
        latest.wait()


def test_a_latest_only_worker_skips_jobs_that_are_no_longer_the_newest() -> None:
    worker, done, started, may_end = LatestOnlyWorker(), [], threading.Event(), threading.Event()

    def first() -> None:
        started.set()
        may_end.wait(30)
        done.append(1)

    worker.submit(first)
    assert started.wait(30)
    for number in (2, 3, 4):
        worker.submit(lambda number=number: done.append(number))
    may_end.set()
    worker.wait()
    assert done == [1, 4]
    worker.submit(lambda: done.append(5))  # starts a new thread
    worker.wait()
    assert done == [1, 4, 5]


def test_wait_does_not_wait_for_the_pause_between_jobs() -> None:
    worker, done, first = LatestOnlyWorker(pause=3600), [], threading.Event()
    worker.submit(first.set)
    assert first.wait(30)
    worker.submit(lambda: done.append(2))
    waiting = threading.Thread(target=worker.wait, daemon=True)
    waiting.start()
    waiting.join(30)
    assert done == [2]
