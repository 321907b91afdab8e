"""``EachStep`` calls callbacks for every step, even if a call of the train function runs several."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from seedtf.training.callbacks.position import Position

__all__ = ["EachStep"]

_Logs = dict[str, Any] | None


class EachStep(keras.callbacks.Callback):
    """Calls other callbacks for every step, even if a call of the train function runs several steps.

    Keras counts each call of the train function as one batch. Before a call, ``on_train_batch_begin``
    of the other callbacks is called once, with the number of the first step of this call. After the
    call, ``on_train_batch_end`` is called for each of its steps, in order, with the metrics after that
    step. The methods for the begin and the end of the training, of each epoch and of each validation
    are called as well, but not those for the batches of a validation. A ``Position`` among the
    callbacks is told only the first step of each call. So before ``on_epoch_end`` is called, it is set
    to the last step of that epoch.

    Reading a metric waits for the device. So if ``calls_ahead`` is above 0, a thread reads the metrics
    and calls ``on_train_batch_end`` while the next calls are started. An exception of a callback in
    this thread is raised before a later call, or at the end of the epoch.

    Args:
        callbacks: the other callbacks, in the order in which they are called.
        steps: the number of steps in each epoch of the ``fit``. An interrupted epoch is continued in a
            ``fit`` of its own; pass the number of its remaining steps.
        steps_per_call: the number of steps in a call; the last call of an epoch may have fewer.
        calls_ahead: the number of calls that may be started without waiting for their metrics. A loss
            that is not finite is noticed up to this many calls later.

    Example:
        >>> class PrintLogs(keras.callbacks.Callback):
        ...     def on_train_batch_end(self, batch, logs=None):
        ...         print(batch, logs)
        >>> each_step = EachStep([PrintLogs()], steps=3, steps_per_call=2)
        >>> each_step.on_train_batch_end(0, {"loss": np.float32([0.5, 0.25])})
        0 {'loss': 0.5}
        1 {'loss': 0.25}
        >>> each_step.on_train_batch_end(1, {"loss": np.float32([0.125, 0.0])})
        2 {'loss': 0.125}
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        steps: int,
        steps_per_call: int = 1,
        calls_ahead: int = 0,
    ) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._steps, self._steps_per_call = steps, steps_per_call
        self._calls_ahead = calls_ahead
        self._reader_thread: ThreadPoolExecutor | None = None
        self._unread: deque[Future[None]] = deque()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        for callback in self._callbacks:
            callback.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        for callback in self._callbacks:
            callback.set_params(params)

    def on_train_batch_begin(self, batch: int, logs: _Logs = None) -> None:
        # The call that starts now counts too, so one fewer of the earlier calls may be unread.
        self._wait_for_calls(max_unread=max(self._calls_ahead - 1, 0))
        self._call_all("on_train_batch_begin", batch * self._steps_per_call, logs)

    def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
        if self._calls_ahead == 0:
            self._end_steps(batch, logs or {})
            return
        if self._reader_thread is None:
            self._reader_thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._unread.append(self._reader_thread.submit(self._end_steps, batch, logs or {}))

    def on_train_begin(self, logs: _Logs = None) -> None:
        self._call_all("on_train_begin", logs)

    def on_train_end(self, logs: _Logs = None) -> None:
        self._call_all("on_train_end", logs)
        if self._reader_thread is not None:
            self._reader_thread.shutdown()
            self._reader_thread = None

    def on_test_begin(self, logs: _Logs = None) -> None:
        self._call_all("on_test_begin", logs)

    def on_test_end(self, logs: _Logs = None) -> None:
        self._call_all("on_test_end", logs)

    def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
        self._call_all("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        self._wait_for_calls(max_unread=0)
        for callback in self._callbacks:
            if isinstance(callback, Position):
                callback.on_train_batch_begin(self._steps - 1)
        self._call_all("on_epoch_end", epoch, logs)

    def _wait_for_calls(self, max_unread: int) -> None:
        """Waits until the metrics of at most ``max_unread`` calls are still unread.

        By then, the thread has also called the callbacks for all other calls; an exception of a
        callback is raised here.
        """
        while len(self._unread) > max_unread:
            self._unread.popleft().result()

    def _end_steps(self, batch: int, logs: dict[str, Any]) -> None:
        """Reads the metrics of a call, and calls ``on_train_batch_end`` for each of its steps."""
        first = batch * self._steps_per_call
        metrics = {name: _as_vector(value) for name, value in logs.items()}
        for step in range(first, min(first + self._steps_per_call, self._steps)):
            logs_of_step = {name: float(values[step - first]) for name, values in metrics.items()}
            self._call_all("on_train_batch_end", step, logs_of_step)

    def _call_all(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(*arguments)


def _as_vector(value: Any) -> np.ndarray:
    return np.reshape(value.numpy() if hasattr(value, "numpy") else value, [-1])
