"""Training on several devices or machines: starts the chosen strategy, and fixes Keras 3's ``fit``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import KERAS_2, build_optimizer
from seedtf.compat.keras_distribute import OneReplicaBuild, run_on_replicas
from seedtf.compat.tensorflow import configure_coordination_service
from seedtf.data.shard import Shard
from seedtf.errors import UserError, WorkerLostError, first_line
from seedtf.model.batch_norm import moving_statistics
from seedtf.training.distributed import waiting
from seedtf.training.distributed.choice import DeviceChoice
from seedtf.training.distributed.cluster import Cluster
from seedtf.training.distributed.halves import TwoHalves, can_be_halved
from seedtf.training.trainer import Prepare, Trainer

__all__ = ["Devices", "DistributedTrainer"]

# The errors that the collectives of the other workers raise when a worker is lost.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Devices(DeviceChoice):
    """The devices of a run, started.

    Attributes:
        strategy: TensorFlow's; None for one device.
    """

    strategy: tf.distribute.Strategy | None = None

    @classmethod
    def start(cls, choice: DeviceChoice, worker_timeout: int) -> Devices:
        """Starts the devices of ``choice``; among several workers, waits until all have joined.

        Call it before TensorFlow computes anything.

        Args:
            choice: from ``choose_devices``.
            worker_timeout: seconds of silence after which a worker counts as lost.

        Raises:
            UserError: TensorFlow is already running, or this worker's port is taken.
            WorkerLostError: a worker left while the others were joining.
        """
        strategy = _make_strategy(choice, worker_timeout)
        replicas = strategy.num_replicas_in_sync if strategy else choice.replicas
        return cls(choice.kind, choice.reason, replicas, choice.cluster, strategy)

    @property
    def shard(self) -> Shard:
        """The part of each batch that the replicas of this process take."""
        local = self.replicas // self.workers
        return Shard(self.replicas, local * (self.cluster.index if self.cluster else 0), local)

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the scope in which variables must be created, so that every replica has its copy."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def make_trainer(self, network: keras.Model, prepare: Prepare | None = None) -> Trainer:
        """Returns a trainer of ``network``, built in ``scope``; ``prepare`` as in ``Trainer``."""
        with self.scope():
            # Keras 2.15 has none of the faults that DistributedTrainer works around.
            if self.strategy is None or KERAS_2:
                return Trainer(network, prepare)
            return DistributedTrainer(network, prepare)

    def distribute(self, make: Callable[[], tf.data.Dataset]) -> Any:
        """Returns the dataset that ``make`` returns, distributed over the replicas of this process.

        Consecutive elements go to consecutive replicas.
        """
        if self.strategy is None:
            return make()
        return self.strategy.distribute_datasets_from_function(lambda context: make())

    @contextmanager
    def lost_workers_reported(self, with_flag: str = "") -> Iterator[None]:
        """Converts the errors that follow from the loss of another worker to WorkerLostError.

        Args:
            with_flag: the end of the advice "start all 4 again", such as `` with --resume=runs/1``.

        Raises:
            WorkerLostError: another worker was lost within the ``with`` block.
        """
        try:
            yield
        except _LOST as error:
            if self.cluster is None or self.workers == 1:
                raise
            raise WorkerLostError(
                f"{_lost_worker(str(error), self.cluster)} was lost, so this one stops too; start all "
                f"{self.workers} again{with_flag}"
            ) from error


class DistributedTrainer(OneReplicaBuild, Trainer):
    """A ``Trainer`` for networks that were built in the scope of a strategy. Keras 3 only.

    It works around two faults of Keras 3's ``fit`` under MultiWorkerMirroredStrategy (keras-team/keras
    issue 20585): ``OneReplicaBuild`` fixes the first one, the shape of the logs the second one. It also
    keeps the moving statistics of batch normalization equal on all replicas: in Keras 3 each replica
    updates its own copy, and only the first replica's copy is saved.

    Attributes:
        jit_halves: whether XLA compiles the step in two halves; None if the step is not divided.
    """

    jit_halves: bool | None = None
    _halves: TwoHalves | None = None

    def prepare_one_replica(self, batch: Any) -> Any:
        """Applies ``prepare`` to a batch of features; returns a batch of images unchanged."""
        if self.prepare is not None and isinstance(batch[0], dict):
            return self.prepare(batch)
        return batch

    def make_train_function(self, force: bool = False) -> Any:
        """Makes the function of ``Trainer``, with a step in two halves where ``jit_halves`` is set."""
        if force or self.train_function is None:
            self._halves = self._make_halves()
        return super().make_train_function(force)

    def run_step(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Runs a step on every replica of this process; returns the mean of what they return."""
        return run_on_replicas(self.distribute_strategy, step, data)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one replica's part of a batch and returns the metrics so far."""
        if self._halves is not None:
            return _with_axis(self._halves.step(data, super().train_step))
        logs = super().train_step(data)
        statistics = moving_statistics(self.network)
        if statistics:
            replica = tf.distribute.get_replica_context()
            # TensorFlow sends the averages to this device.
            with tf.device(statistics[0].value.device):
                values = [tf.identity(tf.convert_to_tensor(variable)) for variable in statistics]
            averages = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, average in zip(statistics, averages, strict=True):
                variable.assign(average)
        return _with_axis(logs)

    def _make_halves(self) -> TwoHalves | None:
        if self.jit_halves is None or not can_be_halved(self.network, self.optimizer):
            return None
        strategy = self.distribute_strategy
        with strategy.scope():
            build_optimizer(self.optimizer, self.trainable_variables)
        return TwoHalves(self, strategy.num_replicas_in_sync, jit_compile=self.jit_halves)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one replica's part of a batch and returns the metrics so far."""
        return _with_axis(super().test_step(data))


def _with_axis(logs: dict[str, Any]) -> dict[str, Any]:
    """Reshapes scalars to ``[1]``: Keras averages the logs of several workers over their first axis."""
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def _make_strategy(choice: DeviceChoice, worker_timeout: int) -> tf.distribute.Strategy | None:
    if choice.kind == "none":
        return None
    if choice.cluster is not None:
        return _join(choice.cluster, worker_timeout)
    # Name the devices one by one: without names TensorFlow would read TF_CONFIG.
    device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    return tf.distribute.MirroredStrategy(
        [f"/{device}:{number}" for number in range(choice.replicas)]
    )


def _join(cluster: Cluster, worker_timeout: int) -> tf.distribute.Strategy:
    # TensorFlow reads the cluster from this variable alone; SLURM described it in others.
    os.environ["TF_CONFIG"] = cluster.tf_config
    try:
        configure_coordination_service(cluster.roles, worker_timeout)
        with _missing_workers_reported(cluster):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "--strategy=multi_worker: TensorFlow has already computed something in this process "
            f"({first_line(error)}); train in a new process"
        ) from error
    except tf.errors.UnknownError as error:
        address = cluster.addresses[cluster.index]
        raise UserError(
            f"TF_CONFIG: this worker cannot listen on {address} ({first_line(error)}); pass a free "
            "port of this machine"
        ) from error
    except tf.errors.OpError as error:
        raise WorkerLostError(
            f"{_lost_worker(str(error), cluster)} was lost while the workers were connecting "
            f"({first_line(error)}); start all {cluster.size} again"
        ) from error


@contextmanager
def _missing_workers_reported(cluster: Cluster) -> Iterator[None]:
    """Within the ``with`` block, a child process reports every 30 s which workers are missing.

    TensorFlow waits for the other workers without a time limit, prints nothing and lets no Python
    code run meanwhile. SIGINT therefore gets its default action, which ends the process at once.
    """
    others = [cluster.name(index) for index in range(cluster.size) if index != cluster.index]
    is_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL) if is_main_thread else None
    with subprocess.Popen([sys.executable, "-m", waiting.__name__, *others]) as reporter:
        try:
            yield
        finally:
            reporter.kill()
            if is_main_thread:
                signal.signal(signal.SIGINT, handler)


def _lost_worker(message: str, cluster: Cluster) -> str:
    """The worker that TensorFlow's error message names, unless it is this one."""
    tasks = {cluster.task(index): index for index in range(cluster.size)}
    for role, number in re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message):
        index = tasks.get((role, int(number)), cluster.index)
        if index != cluster.index:
            return cluster.name(index)
    return "another worker"
