"""Training on several devices or machines: which strategy, and the two gaps of Keras 3 mended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from seedtf.compat.keras import KERAS_2
from seedtf.data.shard import Shard
from seedtf.errors import UserError, WorkerLostError
from seedtf.model.batch_norm import moving_statistics
from seedtf.training.distributed import waiting
from seedtf.training.distributed.cluster import Cluster, read_cluster
from seedtf.training.trainer import Prepare, Trainer

__all__ = ["Devices", "DistributedTrainer", "check_shares", "choose_devices", "choose_strategy"]

# how a worker that is gone shows in the others' collectives
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
)


@dataclass(frozen=True)
class Devices:
    """What a run trains on.

    Attributes:
        kind: ``none``, ``mirrored`` or ``multi_worker``.
        reason: one sentence for the console.
        replicas: devices that share every batch, over all workers.
        cluster: the workers of ``multi_worker``, else None.
        strategy: TensorFlow's; None for ``none``, and before ``started``.
    """

    kind: str
    reason: str
    replicas: int = 1
    cluster: Cluster | None = None
    strategy: tf.distribute.Strategy | None = None

    @property
    def workers(self) -> int:
        """Processes that train together."""
        return self.cluster.size if self.cluster else 1

    @property
    def chief(self) -> bool:
        """Whether this process writes the run."""
        return self.cluster is None or self.cluster.index == 0

    @property
    def shard(self) -> Shard:
        """The replicas that this process feeds."""
        local = self.replicas // self.workers
        return Shard(self.replicas, local * (self.cluster.index if self.cluster else 0), local)

    def started(self, worker_timeout: int) -> Devices:
        """The same with its strategy; among several workers it waits until all are there.

        Call it before TensorFlow computes anything.

        Args:
            worker_timeout: seconds of silence after which a worker counts as gone.

        Raises:
            UserError: TensorFlow is at work already, or this worker's port is taken.
            WorkerLostError: a worker left while the others gathered.
        """
        if self.kind == "none":
            return self
        if self.cluster is not None:
            strategy = _join(self.cluster, worker_timeout)
        else:
            # named one by one: TensorFlow would look into TF_CONFIG otherwise
            device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
            names = [f"/{device}:{number}" for number in range(self.replicas)]
            strategy = tf.distribute.MirroredStrategy(names)
        return replace(self, strategy=strategy, replicas=strategy.num_replicas_in_sync)

    def resolved(self) -> dict[str, Any]:
        """For config.json."""
        return {"strategy": self.kind, "replicas": self.replicas, "workers": self.workers}

    def scope(self) -> AbstractContextManager[Any]:
        """Where variables are made, so that every replica has one."""
        return self.strategy.scope() if self.strategy else nullcontext()

    def make_trainer(self, network: keras.Model, prepare: Prepare | None = None) -> Trainer:
        """A trainer of ``network``, built in ``scope``; ``prepare`` is what ``Trainer`` takes."""
        with self.scope():
            # Keras 2 has neither gap, and averages the moving statistics itself
            mended = self.strategy is not None and not KERAS_2
            kind = DistributedTrainer if mended else Trainer
            return kind(network, prepare)

    def distribute(self, make: Callable[[], tf.data.Dataset]) -> Any:
        """The dataset that ``make`` returns, whose elements go to this process's replicas in turn."""
        if self.strategy is None:
            return make()
        return self.strategy.distribute_datasets_from_function(lambda context: make())

    @contextmanager
    def watching(self, how: str = "") -> Iterator[None]:
        """Ends with one line when another worker is gone; ``how`` says how to start all again."""
        try:
            yield
        except _LOST as error:
            if self.cluster is None or self.workers == 1:
                raise
            raise WorkerLostError(
                f"{_who_is_lost(str(error), self.cluster)} is gone, so this one stops too; start all "
                f"{self.workers} again{how}"
            ) from error


class DistributedTrainer(Trainer):
    """A ``Trainer`` for networks that were built in a strategy's scope.

    Mends what Keras 3's ``fit`` lacks under MultiWorkerMirroredStrategy (keras-team/keras issue
    20585), and keeps the moving statistics of batch normalisation equal on all replicas: Keras 3 lets
    each replica go its own way and saves the first one's.
    """

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Prepares training as Keras does."""
        super().compile(*args, **kwargs)
        self._metrics_made = False

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update on one replica's share of a batch; returns the metrics so far."""
        logs = super().train_step(data)
        statistics = moving_statistics(self.network)
        if statistics:
            replica = tf.distribute.get_replica_context()
            with tf.device(statistics[0].value.device):  # where TensorFlow sends the averages
                values = [tf.identity(tf.convert_to_tensor(each)) for each in statistics]
            averages = replica.all_reduce(tf.distribute.ReduceOp.MEAN, values)
            for variable, average in zip(statistics, averages, strict=True):
                variable.assign(average)
        return _with_axis(logs)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Judges one replica's share of a batch; returns the metrics so far."""
        return _with_axis(super().test_step(data))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Makes the metrics' variables from one replica's share of a batch.

        Keras takes the mean of a whole distributed batch over the replicas for it, which fails, and
        does so again before every validation.
        """
        if self._metrics_made:
            return
        strategy = self.distribute_strategy
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = keras.tree.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], next(batches)
            )
            if self.prepare is not None and isinstance(
                data_batch[0], dict
            ):  # not yet images: the step makes them
                data_batch = self.prepare(data_batch)
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)
        self._metrics_made = True


def _with_axis(logs: dict[str, Any]) -> dict[str, Any]:
    """Scalars as arrays of one: Keras averages logs of several workers over their first axis."""
    return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def choose_strategy(
    requested: str, cluster: Cluster | None, gpus: int, cpus: int
) -> tuple[str, str]:
    """The strategy for ``--strategy=requested`` and a sentence that says why.

    Args:
        requested: ``auto``, ``none``, ``mirrored`` or ``multi_worker``.
        cluster: what ``TF_CONFIG`` describes.
        gpus: GPUs that TensorFlow sees here.
        cpus: logical CPU devices; one, unless the program split its CPU.

    Raises:
        UserError: ``multi_worker`` without a cluster.
    """
    workers = cluster.size if cluster else 1
    if requested == "multi_worker" and cluster is None:
        raise UserError(
            "--strategy=multi_worker: TF_CONFIG is not set; set it on every worker, or pass auto"
        )
    if workers > 1 and requested in ("auto", "multi_worker"):
        return "multi_worker", f"TF_CONFIG names {workers} workers"
    if requested == "none":
        unused = f"; the {workers} workers of TF_CONFIG are left alone" if workers > 1 else ""
        return "none", f"one device was asked for{unused}"
    alone = "TF_CONFIG names one worker and " if cluster and workers == 1 else ""
    if gpus > 1 or (requested == "mirrored" and not gpus and cpus > 1):
        found = f"{gpus} GPUs" if gpus else f"{cpus} logical CPU devices"
        return "mirrored", f"{alone}there are {found}"
    asked = "" if requested == "auto" else f"{requested} was asked for, but "
    return "none", f"{asked}{alone}there is one device"


def choose_devices(requested: str) -> Devices:
    """What ``--strategy=requested`` comes to on this machine and with its ``TF_CONFIG``.

    Raises:
        UserError: ``TF_CONFIG`` is wrong, or missing where it is needed.
    """
    cluster = read_cluster(os.environ.get("TF_CONFIG"))
    gpus, cpus = len(tf.config.list_physical_devices("GPU")), _cpu_count()
    kind, reason = choose_strategy(requested, cluster, gpus, cpus)
    if (
        kind == "multi_worker" and KERAS_2
    ):  # its moving statistics cannot be read by the chief alone
        raise UserError(
            f"--strategy={requested}: {reason}, which needs Keras 3; install seedtf without [addons], "
            "or unset TF_CONFIG"
        )
    return Devices(
        kind,
        reason,
        replicas=(gpus or cpus) if kind == "mirrored" else 1,
        cluster=cluster if kind == "multi_worker" else None,
    )


def check_shares(replicas: int, batch_size: int) -> None:
    """Raises UserError when ``replicas`` cannot share a batch evenly."""
    rest = batch_size % replicas
    if rest:
        lower = f"{batch_size - rest} or " if batch_size > rest else ""
        raise UserError(
            f"--batch_size={batch_size}: {replicas} replicas share a batch and cannot split that "
            f"evenly; pass {lower}{batch_size - rest + replicas}"
        )


def _cpu_count() -> int:
    """Logical CPU devices as they will be; asking for them directly would wake TensorFlow up."""
    physical = tf.config.list_physical_devices("CPU")
    return len(tf.config.get_logical_device_configuration(physical[0]) or [None])


def _join(cluster: Cluster, worker_timeout: int) -> tf.distribute.Strategy:
    try:
        _configure_heartbeat(cluster, worker_timeout)
        with _saying_who_is_missing(cluster):
            return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise UserError(
            "--strategy=multi_worker: TensorFlow computed something before in this process "
            f"({_first_line(error)}); train in a fresh one"
        ) from error
    except tf.errors.UnknownError as error:
        address = cluster.addresses[cluster.index]
        raise UserError(
            f"TF_CONFIG: this worker cannot listen on {address} ({_first_line(error)}); pass a free "
            "port of this machine"
        ) from error
    except tf.errors.OpError as error:
        raise WorkerLostError(
            f"{_who_is_lost(str(error), cluster)} left while the workers gathered "
            f"({_first_line(error)}); start all {cluster.size} again"
        ) from error


def _configure_heartbeat(cluster: Cluster, worker_timeout: int) -> None:
    """Sets how soon TensorFlow's coordination service calls a silent worker gone.

    The strategy would set the service up with ten seconds; there is no public way to other ones.
    """
    from tensorflow.python.eager import context  # noqa: PLC0415

    jobs = tf.compat.v1.ConfigProto().experimental.coordination_config.coordinated_job_list
    for role in dict.fromkeys(cluster.roles):
        jobs.add(name=role, num_tasks=cluster.roles.count(role))
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{cluster.roles[0]}/replica:0/task:0",
        coordinated_jobs=list(jobs),
        heartbeat_timeout_in_ms=1000 * worker_timeout,
    )


@contextmanager
def _saying_who_is_missing(cluster: Cluster) -> Iterator[None]:
    """Has a process of its own tell, now and then, which workers do not answer yet.

    TensorFlow waits for them without end, without a word, and without letting Python run meanwhile.
    """
    others = [
        name
        for index, name in enumerate(map(cluster.name, range(cluster.size)))
        if index != cluster.index
    ]
    command = [sys.executable, "-m", waiting.__name__, *others]
    can_interrupt = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if can_interrupt else None
    with subprocess.Popen(command) as teller:
        try:
            yield
        finally:
            teller.kill()
            if can_interrupt:
                signal.signal(signal.SIGINT, before)


def _who_is_lost(message: str, cluster: Cluster) -> str:
    """The worker that TensorFlow's message names, as far as it is not this one."""
    tasks = {cluster.task(index): index for index in range(cluster.size)}
    for role, number in re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", message):
        index = tasks.get((role, int(number)), cluster.index)
        if index != cluster.index:
            return cluster.name(index)
    return "another worker"


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
