"""A tf.data service gives the batches of the local pipeline in the same order, even if workers fail."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import forked
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seedtf.augment.policy import Policy
from seedtf.commands import data_service as command
from seedtf.commands.main import main
from seedtf.config.train_config import TrainConfig
from seedtf.data import service as data_service
from seedtf.data.catalog import scan_folder
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import make_augmentation, train_dataset
from seedtf.data.service import check_service, numbered_order, portable_reader, service_dataset
from seedtf.data.shard import WHOLE, Shard
from seedtf.data.store import CachePlan, Store, build_store, plan_cache
from seedtf.errors import UserError

service = tf.data.experimental.service
ORDER = BatchIndices(30, 4, seed=5)


def wait_for_clients(
    seconds: float = 20.0, ignore: frozenset[threading.Thread] = frozenset()
) -> None:
    """Waits for at most ``seconds`` until no client of a service is left in this process.

    A client is a thread with the name "data service" that is not in ``ignore``. Stopping a server that
    has a client would take minutes.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        gc.collect()
        if all(thread.name != "data service" for thread in {*threading.enumerate()} - ignore):
            return
        time.sleep(0.1)


class Cluster:
    """A dispatcher and workers on loopback, in this process."""

    def __init__(self, num_workers: int) -> None:
        self._dispatcher = service.DispatchServer(service.DispatcherConfig(port=0))
        self.address = self._dispatcher.target.removeprefix("grpc://")
        config = service.WorkerConfig(self.address, heartbeat_interval_ms=100)
        self.workers = [service.WorkerServer(config) for _ in range(num_workers)]

    def stop(self) -> None:
        wait_for_clients(1.0)
        for worker in self.workers:
            worker._stop()
        self._dispatcher._stop()


class ClusterProcess:
    """A dispatcher and two workers in another process, which is killed at the end.

    A regular stop would wait minutes for clients that Python has not released yet.
    """

    def __init__(self) -> None:
        reading, self._requests = os.pipe()
        self._process = forked.Process("test_service:serve", [], stdin=reading)
        os.close(reading)
        self.address = self._process.stdout.readline().strip()

    def task_counts(self) -> list[int]:
        """The number of datasets that each worker is processing."""
        os.write(self._requests, b"\n")
        return [int(count) for count in self._process.stdout.readline().split()]

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        os.close(self._requests)


def serve(_: list[str]) -> None:
    """What a ``ClusterProcess`` runs: answers each line of input with each worker's number of tasks."""
    cluster = Cluster(2)
    print(cluster.address, flush=True)
    for _ in sys.stdin:
        print(*(worker._num_tasks() for worker in cluster.workers), flush=True)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[ClusterProcess]:
    cluster = ClusterProcess()
    yield cluster
    cluster.stop()


def indices_only(epoch: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return epoch, indices


def served_indices(
    address: str, start_step: int, order: BatchIndices = ORDER, remote_fn=indices_only
) -> tf.data.Dataset:
    return service_dataset(
        order, start_step, local_fn=indices_only, remote_fn=remote_fn, address=address
    )


def local_batches(order: BatchIndices, start_step: int, count: int) -> list[tuple[int, list[int]]]:
    return take_batches(order.dataset(start_step), count)


def take_batches(dataset: tf.data.Dataset, count: int) -> list[tuple[int, list[int]]]:
    return [(int(e), i.tolist()) for e, i in dataset.take(count).as_numpy_iterator()]


def test_an_epoch_has_every_record_once_in_training_order(two_workers: ClusterProcess) -> None:
    order = BatchIndices(200, 2, seed=1)
    batches = take_batches(served_indices(two_workers.address, 0, order), 300)
    for epoch in range(3):
        records = [i for e, batch in batches if e == epoch for i in batch]
        assert sorted(records) == list(range(200))
    assert batches == local_batches(order, 0, 300)


def test_batches_can_start_at_the_step_of_a_resumed_run(two_workers: ClusterProcess) -> None:
    assert take_batches(served_indices(two_workers.address, 10), 12) == local_batches(ORDER, 10, 12)


@pytest.mark.parametrize("shard", [WHOLE, Shard(2, 1, 1), Shard(4, 1, 2)])
def test_the_batches_of_a_shard_are_numbered_from_its_first_step(shard: Shard) -> None:
    expected = shard.slice_batches(ORDER.dataset(9)).take(20).as_numpy_iterator()
    found = numbered_order(ORDER, shard, 9 * shard.count).take(20).as_numpy_iterator()
    for position, ((epoch, indices), (number, *rest)) in enumerate(
        zip(expected, found, strict=True)
    ):
        assert number == 9 * shard.count + position
        assert rest[0] == epoch
        assert np.array_equal(rest[1], indices)


def test_both_workers_process_the_dataset(two_workers: ClusterProcess) -> None:
    take_batches(served_indices(two_workers.address, 0), 50)
    assert all(count >= 1 for count in two_workers.task_counts())


def test_no_batch_is_lost_when_workers_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_service, "_SECONDS_TO_WAIT", 2.0)
    monkeypatch.setattr(data_service, "_EARLY_BYTES", 0)
    cluster = Cluster(2)
    batches = iter(served_indices(cluster.address, 0))
    batches_taken = [next(batches) for _ in range(20)]
    cluster.workers.pop()._stop()
    batches_taken += [next(batches) for _ in range(60)]
    cluster.workers.pop()._stop()
    batches_taken += [next(batches) for _ in range(60)]
    assert [(int(e), i.numpy().tolist()) for e, i in batches_taken] == local_batches(ORDER, 0, 140)
    assert f"warning   data service at {cluster.address}: " in capsys.readouterr().out
    cluster.stop()


def test_without_workers_batches_are_made_locally_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_service, "_SECONDS_TO_WAIT", 0.5)
    cluster = Cluster(0)
    assert take_batches(served_indices(cluster.address, 3), 20) == local_batches(ORDER, 3, 20)
    assert capsys.readouterr().out == (
        f"\nwarning   data service at {cluster.address}: no batch for 0 s; batch 3 is made in this "
        "process, and so is any other that does not arrive in time\n"
    )
    cluster.stop()


def test_batches_that_fail_on_a_worker_are_made_locally(
    two_workers: ClusterProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    def remote_fn(epoch: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = tf.strings.length(tf.io.read_file("/no/such/file"))
        return epoch + tf.cast(length, tf.int64), indices

    dataset = served_indices(two_workers.address, 0, remote_fn=remote_fn)
    assert take_batches(dataset, 20) == local_batches(ORDER, 0, 20)
    output = capsys.readouterr().out
    assert output.count("warning") == 1
    assert "/no/such/file" in output


def test_a_bad_file_found_locally_is_reported_as_bad_data(two_workers: ClusterProcess) -> None:
    def bad(epoch: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([tf.Assert(False, ["cut.png is corrupt"])]):
            return epoch, tf.identity(indices)

    dataset = service_dataset(ORDER, 0, local_fn=bad, remote_fn=bad, address=two_workers.address)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cut\.png is corrupt"):
        next(iter(dataset))


def test_a_finished_dataset_leaves_no_thread(two_workers: ClusterProcess) -> None:
    before = frozenset(threading.enumerate())
    batches = iter(served_indices(two_workers.address, 0))
    next(batches)
    assert {*threading.enumerate()} - before
    del batches
    wait_for_clients(ignore=before)
    assert not {*threading.enumerate()} - before


# The images that workers read


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four formats; the PNG has an alpha channel, the JPEG an EXIF orientation."""
    root = tmp_path_factory.mktemp("varied") / "two words é"
    noise = np.random.default_rng(0).integers(0, 256, (6, 31, 17, 4)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation: rotated by 90°
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
    Image.fromarray(noise[0]).save(root / "a" / "0.png")
    Image.fromarray(noise[1, ..., :3]).save(root / "a" / "1.jpg", exif=exif)
    Image.fromarray(noise[2, ..., :3]).save(root / "b" / "2.gif")
    Image.fromarray(noise[3, ..., :3]).save(root / "b" / "ö.bmp")
    return root


def make_store(root: Path, mode: str, tmp_path: Path, **options: int) -> Store:
    return build_store(scan_folder(root), 12, CachePlan(mode, 0, ""), tmp_path / "cache", **options)


@pytest.fixture(params=["disk", "off"])
def store(request: pytest.FixtureRequest, varied: Path, tmp_path: Path) -> Store:
    return make_store(varied, request.param, tmp_path)


def test_a_worker_makes_the_same_pixels_as_this_process(
    varied: Path, tmp_path: Path, two_workers: ClusterProcess
) -> None:
    store = make_store(varied, "disk", tmp_path)
    records, order = np.array([0, 1, 2, 3]), BatchIndices(4, 2, seed=2)
    augmentation = make_augmentation(Policy(rotate=20.0), 2, 12, "tf_image")
    local, remote = (
        train_dataset(store, records, order, augmentation, start_step=3, data_service=address)
        for address in ("", two_workers.address)
    )
    assert local.element_spec == remote.element_spec
    pairs = zip(local.take(5).as_numpy_iterator(), remote.take(5).as_numpy_iterator(), strict=True)
    for (images, labels), (same_images, same_labels) in pairs:
        assert np.array_equal(images, same_images)
        assert np.array_equal(labels, same_labels)


def test_pixels_can_be_read_from_the_graph_alone(store: Store) -> None:
    """A worker receives the graph, so it must not need the process that created it."""
    everything = np.arange(len(store.catalog))
    dataset = tf.data.Dataset.from_tensors(everything).map(portable_reader(store))
    sent = tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=2
    )
    received = tf.raw_ops.DatasetFromGraph(graph_def=sent)
    (images,) = tf.data.experimental.from_variant(received, dataset.element_spec)
    assert np.array_equal(images, store.read(tf.constant(everything)))


def test_what_is_sent_to_a_worker_holds_no_images(store: Store) -> None:
    spec = tf.TensorSpec([4], tf.int64)
    graph = tf.function(portable_reader(store)).get_concrete_function(spec)
    sizes = [tensor.shape.num_elements() for tensor in graph.captured_inputs]
    assert sum(sizes) <= len(store.catalog) + 2


def test_a_worker_refuses_what_training_refuses(tiny_copy: Path, tmp_path: Path) -> None:
    store = make_store(tiny_copy, "off", tmp_path, sample=1, max_pixels=400)
    (tiny_copy / "alder" / "1.png").write_bytes(b"no image")
    # 21 × 20 pixels are more than max_pixels.
    Image.new("RGB", (21, 20)).save(tiny_copy / "alder" / "2.png")
    read = portable_reader(store)
    assert np.array_equal(read(tf.constant([0, 3])), store.read(tf.constant([0, 3], tf.int64)))
    for index in (1, 2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="cannot be used"):
            read(tf.constant([index]))


def test_images_in_memory_are_refused_for_a_service(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images in memory"):
        portable_reader(make_store(tiny_folder, "ram", tmp_path))
    with pytest.raises(UserError, match=r"^--cache=ram: .*pass --cache=disk or off$"):
        TrainConfig(data_dir="x", cache="ram", data_service="h:1")
    assert plan_cache("auto", 2, 8, tmp_path).mode == "ram"
    assert plan_cache("auto", 2, 8, tmp_path, shared=True).mode == "disk"


# The flag --data_service and the command seedtf data_service


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nowhere", "not an address; pass host:port of the dispatcher"),
        ("localhost:1", "no dispatcher is running there"),
        ("localhost:99999", "no dispatcher is running there"),
    ],
)
def test_an_address_without_a_dispatcher_is_refused(address: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        check_service(address)
    assert str(error.value).startswith(f"--data_service={address}: {message}")


def test_an_address_with_a_dispatcher_is_accepted(two_workers: ClusterProcess) -> None:
    check_service(two_workers.address)
    check_service(f"grpc://{two_workers.address}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["worker"], "--dispatcher: missing; pass the host:port of the dispatcher"),
        (
            ["dispatcher", "--dispatcher=a:1"],
            "--dispatcher: is only for the role worker; leave it out",
        ),
        (["both"], "--role=both: choose one of dispatcher, worker"),
        (["worker", "--dispatcher=localhost"], "--dispatcher=localhost: "),
    ],
)
def test_a_wrong_command_line_gives_a_one_line_error(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert main(["data_service", *arguments]) == 2
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert capsys.readouterr().err.startswith(f"seedtf data_service: {message}")


def test_only_an_error_about_the_port_names_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(UserError, match=f"^--port={port}: cannot serve .*; pass another port$"):
            command._start(tf, command.DataServiceConfig(role="dispatcher", port=port))

    def refuse(*_: object) -> None:
        # TensorFlow raises this error if another kind of server answers.
        raise NotImplementedError("unknown service")

    monkeypatch.setattr(command, "_start_worker", refuse)
    config = command.DataServiceConfig(role="worker", dispatcher="h:1")
    with pytest.raises(UserError) as error:
        command._start(tf, config)
    expected = "--dispatcher=h:1: the worker cannot start (unknown service); pass the host:port"
    assert str(error.value).startswith(expected)
    monkeypatch.setattr(command, "_start_dispatcher", refuse)
    with pytest.raises(UserError, match=r"^the dispatcher cannot start \(unknown service\)$"):
        command._start(tf, command.DataServiceConfig(role="dispatcher"))


def test_the_commands_run_until_they_are_stopped() -> None:
    started: list[forked.Process] = []

    def start(*arguments: str) -> str:
        process = forked.Process("seedtf.commands.main:main", ["data_service", *arguments])
        started.append(process)
        return process.stdout.readline()

    before = frozenset(threading.enumerate())

    try:
        port = start("dispatcher").partition("port ")[2].partition(";")[0]
        assert start("worker", f"--dispatcher=localhost:{port}").startswith("worker for localhost:")
        assert take_batches(served_indices(f"localhost:{port}", 2), 9) == local_batches(ORDER, 2, 9)
        wait_for_clients(ignore=before)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(30) for process in started]
    assert codes == [0, 0]
