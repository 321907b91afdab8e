"""Starts the ``tf.distribute`` strategy of a run, and works around faults of Keras with strategies."""

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

from seedtf.compat.keras import KERAS_2
from seedtf.compat.keras_distribute import OneReplicaBuild, run_on_replicas
from seedtf.compat.tensorflow import configure_coordination_service
from seedtf.data.shard import Shard
from seedtf.errors import UserError, WorkerLostError, first_line
from seedtf.model.batch_norm import moving_statistics
from seedtf.training.distributed import waiting
from seedtf.training.distributed.choice import DeviceChoice
from seedtf.training.distributed.cluster import SLURM, Cluster
from seedtf.training.distributed.halves import TwoHalves, can_be_halved
from seedtf.training.trainer import Prepare, Trainer

__all__ = ["Devices", "DistributedTrainer"]

# When a worker is lost, the collective operations of the other workers raise one of these errors.
_LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Devices(DeviceChoice):
    """The devices of a run after they were started.

    Attributes:
        strategy: the ``tf.distribute.Strategy``; None for one device.
    """

    strategy: tf.distribute.Strategy | None = None

    @classmethod
    def start(cls, choice: DeviceChoice, worker_timeout: int) -> Devices:
        """Starts the devices of ``choice``; with several workers, waits until all of them have joined.

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
        """The part of each batch that belongs to the replicas of this process."""
        num_local = self.replicas // self.workers
        first = num_local * (self.cluster.index if self.cluster else 0)
        return Shard(self.replicas, first, num_local)

    def scope(self) -> AbstractContextManager[Any]:
        """Returns the scope in which variables must be created, so that each replica gets a copy."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def make_trainer(self, network: keras.Model, prepare: Prepare | None = None) -> Trainer:
        """Returns a trainer of ``network``, which was built in ``scope``.

        ``prepare`` is passed to ``Trainer``.
        """
        with self.scope():
            # Keras 2.15 has none of the faults that DistributedTrainer works around.
            if self.strategy is None or KERAS_2:
                return Trainer(network, prepare)
            return DistributedTrainer(network, prepare)

    def distribute(self, make_dataset: Callable[[], tf.data.Dataset]) -> Any:
        """Returns the dataset of ``make_dataset``, distributed over the replicas of this process.

        Consecutive elements go to consecutive replicas. With one device, the dataset itself is
        returned.
        """
        if self.strategy is None:
            return make_dataset()
        return self.strategy.distribute_datasets_from_function(lambda context: make_dataset())

    @contextmanager
    def report_lost_workers(self, with_flag: str = "") -> Iterator[None]:
        """Converts TensorFlow's errors after the loss of another worker to WorkerLostError.

        Args:
            with_flag: text after the advice "start all 4 again", such as `` with --resume=runs/1``.

        Raises:
            WorkerLostError: another worker was lost within the ``with`` block.
        """
        try:
            yield
        except _LOST_WORKER_ERRORS as error:
            if self.cluster is None or self.workers == 1:
                raise
            lost = _name_lost_worker(str(error), self.cluster)
            raise WorkerLostError(
                f"{lost} was lost, so this one stops too; start all {self.workers} again{with_flag}"
            ) from error


class DistributedTrainer(OneReplicaBuild, Trainer):
    """A ``Trainer`` for networks that were built in the scope of a strategy. Keras 3 only.

    Under MultiWorkerMirroredStrategy, ``fit`` of Keras 3 has two faults (keras-team/keras issue 20585).
    First, it builds metrics from a distributed batch, which fails; ``OneReplicaBuild`` prevents that.
    Second, it averages logs over an axis that scalars lack, so the steps of this class return metrics
    of shape ``[1]``.

    The trainer also keeps the moving statistics of batch normalization equal on all replicas. In Keras
    3 each replica updates its own copy of them, and only the copy of the first replica is saved.

    Attributes:
        jit_halves: whether XLA compiles the two halves of the train step; None if the step is not to be
            divided. A step for which ``can_be_halved`` is False is never divided.
    """

    jit_halves: bool | None = None
    _halves: TwoHalves | None = None

    def prepare_one_replica(self, batch: Any) -> Any:
        """Applies ``prepare`` to a batch whose inputs are a dict, such as one of ``device_dataset``.

        Any other batch, such as a validation batch, is returned unchanged.
        """
        if self.prepare is not None and isinstance(batch[0], dict):
            return self.prepare(batch)
        return batch

    def make_train_function(self, force: bool = False) -> Any:
        """Makes ``train_function``; its step has two halves if ``jit_halves`` asks for them."""
        if force or self.train_function is None:
            self._halves = self._make_halves()
        return super().make_train_function(force)

    def run_step(self, step: Callable[[Any], Any], data: Any) -> Any:
        """Runs a step on every replica of this process; returns the mean of what they return."""
        return run_on_replicas(self.distribute_strategy, step, data)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Trains on one replica's part of a batch; returns the metrics since the start of the epoch."""
        if self._halves is not None:
            return _with_axis(self._halves.step(data, super().train_step))
        logs = super().train_step(data)
        statistics = moving_statistics(self.network)
        if statistics:
            replica = tf.distribute.get_replica_context()
            # The all-reduce returns the averages on the device of its inputs. So the inputs are placed
            # on the device of the statistics.
            with tf.device(statistics[0].value.device):
                values = [tf.identity(tf.convert_to_tensor(variable)) for variable in statistics]
            averages = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, average in zip(statistics, averages, strict=True):
                variable.assign(average)
        return _with_axis(logs)

    def _make_halves(self) -> TwoHalves | None:
        if self.jit_halves is None or not can_be_halved(self.network, self.optimizer):
            return None
        replicas = self.distribute_strategy.num_replicas_in_sync
        return TwoHalves(self, replicas, jit_compile=self.jit_halves)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates one replica's part of a batch; returns the metrics since validation started."""
        return _with_axis(super().test_step(data))


def _with_axis(logs: dict[str, Any]) -> dict[str, Any]:
    """Reshapes scalar metrics to ``[1]``, because Keras averages over an axis, which scalars lack."""
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def _make_strategy(choice: DeviceChoice, worker_timeout: int) -> tf.distribute.Strategy | None:
    if choice.kind == "none":
        return None
    if choice.cluster is not None:
        return _join(choice.cluster, worker_timeout)
    # The devices are named one by one, because without names TensorFlow would read TF_CONFIG.
    device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    return tf.distribute.MirroredStrategy(
        [f"/{device}:{number}" for number in range(choice.replicas)]
    )


def _join(cluster: Cluster, worker_timeout: int) -> tf.distribute.Strategy:
    """Connects this process with the other workers of the cluster."""
    # TensorFlow reads the cluster only from this variable, but SLURM describes it in other variables.
    os.environ["TF_CONFIG"] = cluster.tf_config
    try:
        configure_coordination_service(cluster.roles, worker_timeout)
        with _report_missing_workers(cluster):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "--strategy=multi_worker: TensorFlow has already computed something in this process "
            f"({first_line(error)}); train in a new process"
        ) from error
    except tf.errors.UnknownError as error:
        raise UserError(_describe_used_port(cluster, first_line(error))) from error
    except tf.errors.OpError as error:
        raise WorkerLostError(
            f"{_name_lost_worker(str(error), cluster)} was lost while the workers were connecting "
            f"({first_line(error)}); start all {cluster.size} again"
        ) from error


def _describe_used_port(cluster: Cluster, cause: str) -> str:
    fault = f"this worker cannot listen on {cluster.addresses[cluster.index]} ({cause})"
    if cluster.source == SLURM:
        return (
            f"SLURM_STEP_NODELIST and SLURM_JOB_ID: {fault}; start a new job, whose number gives other "
            "ports, or set TF_CONFIG with a free port of each machine"
        )
    return f"TF_CONFIG: {fault}; pass a free port of this machine"


@contextmanager
def _report_missing_workers(cluster: Cluster) -> Iterator[None]:
    """Within the ``with`` block, a child process reports every 30 s which workers are missing.

    TensorFlow waits for the other workers without a time limit and prints nothing. No Python code of
    this process runs meanwhile, not even a handler for Ctrl-C, so SIGINT gets its default action, which
    ends the process.
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


def _name_lost_worker(message: str, cluster: Cluster) -> str:
    """The name of the other worker in TensorFlow's error message; "another worker" if it names none."""
    tasks = {cluster.task(index): index for index in range(cluster.size)}
    for role, number in re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message):
        index = tasks.get((role, int(number)), cluster.index)
        if index != cluster.index:
            return cluster.name(index)
    return "another worker"
