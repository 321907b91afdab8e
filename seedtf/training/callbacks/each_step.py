"""``EachStep``: callbacks around a train function that runs several steps, or is not waited for."""

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
    """Calls other callbacks for each step where a batch of ``fit`` is a call of one or more steps.

    Before a call they get ``on_train_batch_begin`` of its first step; after it, ``on_train_batch_end``
    of every step in order, with the metrics after that step, and all other events as they come. A
    callback that reads ``Position`` at the end of an epoch finds the last step.

    Reading a metric waits for the device. With ``ahead``, a thread reads the metrics and calls
    ``on_train_batch_end``, while the next calls are started. What a callback raises there is raised
    before a later call, or at the end of the epoch.

    Args:
        callbacks: in the order of ``fit``.
        steps: the steps of the epochs that ``fit`` trains, or what is left of a resumed one.
        per_call: steps in a call; the last call of an epoch has the rest.
        ahead: the number of calls whose metrics need not have been read when the next one starts. The
            number is small, because a loss that is not finite is noticed so much later.

    Example:
        >>> class Shown(keras.callbacks.Callback):
        ...     def on_train_batch_end(self, batch, logs=None):
        ...         print(batch, logs)
        >>> each = EachStep([Shown()], steps=3, per_call=2)
        >>> each.on_train_batch_end(0, {"loss": np.float32([0.5, 0.25])})
        0 {'loss': 0.5}
        1 {'loss': 0.25}
        >>> each.on_train_batch_end(1, {"loss": np.float32([0.125, 0.0])})
        2 {'loss': 0.125}
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        *,
        steps: int,
        per_call: int = 1,
        ahead: int = 0,
    ) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._steps, self._per_call, self._ahead = steps, per_call, ahead
        self._reader: ThreadPoolExecutor | None = None
        self._unread: deque[Future[None]] = deque()

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        for each in self._callbacks:
            each.set_model(model)

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        for each in self._callbacks:
            each.set_params(params)

    def on_train_batch_begin(self, batch: int, logs: _Logs = None) -> None:
        self._read(leave=max(self._ahead - 1, 0))
        self._call("on_train_batch_begin", batch * self._per_call, logs)

    def on_train_batch_end(self, batch: int, logs: _Logs = None) -> None:
        if self._ahead == 0:
            self._end_steps(batch, logs or {})
            return
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._unread.append(self._reader.submit(self._end_steps, batch, logs or {}))

    def on_train_begin(self, logs: _Logs = None) -> None:
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: _Logs = None) -> None:
        self._call("on_train_end", logs)
        if self._reader is not None:
            self._reader.shutdown()
            self._reader = None

    def on_test_begin(self, logs: _Logs = None) -> None:
        self._call("on_test_begin", logs)

    def on_test_end(self, logs: _Logs = None) -> None:
        self._call("on_test_end", logs)

    def on_epoch_begin(self, epoch: int, logs: _Logs = None) -> None:
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: _Logs = None) -> None:
        self._read(leave=0)
        for each in self._callbacks:
            if isinstance(each, Position):
                each.on_train_batch_begin(self._steps - 1)
        self._call("on_epoch_end", epoch, logs)

    def _read(self, leave: int) -> None:
        """Waits until at most ``leave`` calls are unread; raises what a callback has raised."""
        while len(self._unread) > leave:
            self._unread.popleft().result()

    def _end_steps(self, batch: int, logs: dict[str, Any]) -> None:
        first = batch * self._per_call
        values = {name: _as_vector(value) for name, value in logs.items()}
        for step in range(first, min(first + self._per_call, self._steps)):
            at_step = {name: float(value[step - first]) for name, value in values.items()}
            self._call("on_train_batch_end", step, at_step)

    def _call(self, event: str, *arguments: Any) -> None:
        for each in self._callbacks:
            getattr(each, event)(*arguments)


def _as_vector(value: Any) -> np.ndarray:
    return np.reshape(value.numpy() if hasattr(value, "numpy") else value, [-1])
