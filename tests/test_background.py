"""Work beside training: bounded, in order, and never silent about an error."""

from __future__ import annotations

import threading

import pytest

from seedtf.training.background import LatestOnlyWorker, SerialWorker


def test_the_writer_holds_one_job_and_does_them_in_order() -> None:
    writer, done, may_end = SerialWorker(), [], threading.Event()

    def first() -> None:
        may_end.wait(30)
        done.append(1)

    writer.submit(first)  # comes back at once
    submitting = threading.Thread(target=lambda: writer.submit(lambda: done.append(2)))
    submitting.start()
    submitting.join(0.2)
    assert submitting.is_alive()  # waits for the first
    assert done == []
    may_end.set()
    submitting.join(30)
    writer.wait()
    assert done == [1, 2]
    writer.close()


def test_what_a_job_raises_is_raised_by_the_next_call() -> None:
    def failing() -> None:
        raise OSError("no room")

    writer, painter = SerialWorker(), LatestOnlyWorker()
    writer.submit(failing)
    with pytest.raises(OSError, match="no room"):
        writer.submit(lambda: None)
    writer.wait()  # raised once
    writer.submit(failing)
    with pytest.raises(OSError, match="no room"):
        writer.wait()
    writer.close()
    painter.submit(failing)
    with pytest.raises(OSError, match="no room"):
        painter.wait()


def test_the_painter_skips_what_is_no_longer_the_newest() -> None:
    painter, done, begun, may_end = LatestOnlyWorker(), [], threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        may_end.wait(30)
        done.append(1)

    painter.submit(first)
    assert begun.wait(30)
    for number in (2, 3, 4):
        painter.submit(lambda number=number: done.append(number))
    may_end.set()
    painter.wait()
    assert done == [1, 4]
    painter.submit(lambda: done.append(5))  # it starts again
    painter.wait()
    assert done == [1, 4, 5]


def test_waiting_does_not_wait_for_the_pause() -> None:
    painter, done, first = LatestOnlyWorker(pause=3600), [], threading.Event()
    painter.submit(first.set)
    assert first.wait(30)
    painter.submit(lambda: done.append(2))
    waiting = threading.Thread(target=painter.wait, daemon=True)
    waiting.start()
    waiting.join(30)
    assert done == [2]
