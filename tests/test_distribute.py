"""Training on several devices, and by several workers, which are processes on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import forked
import keras
import numpy as np
import pytest
import tensorflow as tf
from figures import replace_figures
from hypothesis import given
from hypothesis import strategies as st

from seedtf.commands.main import main
from seedtf.data.catalog import scan_folder
from seedtf.data.order import BatchIndices
from seedtf.data.pipeline import eval_dataset, train_dataset
from seedtf.data.sample.write import write_sample
from seedtf.data.shard import Shard
from seedtf.data.store import build_store, plan_cache
from seedtf.errors import UserError
from seedtf.model.batch_norm import FusedBatchNormalization, moving_statistics
from seedtf.model.network import build_network, load_model
from seedtf.model.precision import choose_jit
from seedtf.runs.history import read_history
from seedtf.training import train
from seedtf.training.distributed import sync
from seedtf.training.distributed.choice import check_even_batch, choose_strategy
from seedtf.training.distributed.cluster import Cluster, read_cluster
from seedtf.training.distributed.devices import _join
from seedtf.training.distributed.halves import can_be_halved
from seedtf.training.distributed.waiting import missing_workers
from seedtf.training.state import load_newest_state, read_state, write_state
from seedtf.training.stop_signal import StopSignal

TIMEOUT_SECONDS = 240  # a process that takes longer is taken to hang
EPOCHS = 4
FLAGS = [
    *("--model=tiny", "--weights=none", "--image_size=16", "--batch_size=12", f"--epochs={EPOCHS}"),
    *("--optimizer=sgd", "--lr=0.05", "--threads=1", "--sync_bn", "--save_minutes=0.001"),
    "--augment_impl=tf_image",  # compiling the fused augmentation would take each process a second
]
# With SEEDTF_HANG in the environment, the worker that gets lost is stopped (SIGSTOP) instead of killed.
# A stopped worker keeps its sockets open, so that only the missing heartbeat shows that it is lost.
HANG = "SEEDTF_HANG" in os.environ


@dataclass
class Process:
    """A process of a run, while it runs and after it has ended."""

    process: forked.Process
    home: Path
    weights: Path
    output: str = ""
    errors: str = ""

    @property
    def code(self) -> int:
        return self.process.returncode

    def wait(self) -> None:
        rest, self.errors = self.process.communicate(timeout=TIMEOUT_SECONDS)
        self.output += rest

    def read_until(self, start: str) -> None:
        for line in self.process.stdout:
            self.output += line
            if line.startswith(start):
                return
        self.wait()
        pytest.fail(f"ended without {start!r}:\n{self.output}\n{self.errors}")


@dataclass
class Ended:
    """A process that has ended with exit code 0: its folder, its file of weights and its output."""

    home: Path
    weights: Path
    output: str
    errors: str


@dataclass
class Launcher:
    """Starts the processes of a run and ends them after the tests."""

    folder: Path
    processes: list[Process] = field(default_factory=list)

    def start(self, arguments: list[str], workers: int = 1, cpus: int = 1, **env) -> list[Process]:
        """Starts one process for each of ``workers`` workers; each has ``cpus`` logical CPU devices.

        ``env`` is added to the environment of the processes.
        """
        started = []
        for index, text in enumerate(tf_configs(workers)):
            home = self.folder / f"home{len(self.processes)}"
            home.mkdir()
            (home / "tmp").mkdir()
            weights = self.folder / f"{home.name}.npz"
            variables = {**os.environ, "TMPDIR": str(home / "tmp"), **env}
            # TensorFlow writes Python sources to TMPDIR. Python must not write their bytecode there.
            variables["PYTHONDONTWRITEBYTECODE"] = "1"
            variables.pop("TF_CPP_MIN_LOG_LEVEL", None)  # so that the output is that for a user
            if workers == 3:  # three workers find each other by SLURM, two by TF_CONFIG
                variables |= slurm_variables(index, workers)
            elif workers > 1:
                variables["TF_CONFIG"] = text
            process = forked.Process(
                "worker:main", [str(cpus), str(weights), *arguments], cwd=home, env=variables
            )
            started.append(Process(process, home, weights))
            self.processes.append(started[index])
        return started

    def run(self, arguments: list[str], **options) -> list[Ended]:
        """Calls ``start`` and waits until all processes have ended; each must have succeeded."""
        started = self.start(arguments, **options)
        for each in started:
            each.wait()
        for each in started:
            assert each.code == 0, each.output + each.errors
        return [Ended(each.home, each.weights, each.output, each.errors) for each in started]

    def close(self) -> None:
        for each in self.processes:
            if each.process.poll() is None:
                each.process.send_signal(signal.SIGCONT)
                each.process.kill()
                each.process.communicate()


def tf_configs(workers: int) -> list[str]:
    """The value of TF_CONFIG for each worker, with free ports of this machine."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(workers)
    ]


def slurm_variables(rank: int, tasks: int) -> dict[str, str]:
    """The variables that srun sets for task ``rank`` of a step whose tasks all run on this machine."""
    return {
        "SLURM_JOB_ID": str(os.getpid()),  # decides the ports
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_STEP_TASKS_PER_NODE": str(tasks),
        "SLURM_PROCID": str(rank),
    }


@pytest.fixture(scope="module")
def launcher(tmp_path_factory) -> Iterator[Launcher]:
    made = Launcher(tmp_path_factory.mktemp("processes"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def data(shared) -> Path:
    """Eleven class folders with 55 training and 11 validation images, so not multiples of 2 or 3."""

    def draw(folder: Path) -> None:
        root = write_sample(folder / "s", images_per_class=6, image_size=20)
        shutil.rmtree(min(path for path in root.iterdir() if path.is_dir()))

    return shared("distribute-data", draw) / "s"


def train_flags(data: Path, run_dir: Path) -> list[str]:
    return ["train", f"--data_dir={data}", f"--run_dir={run_dir}", *FLAGS]


@pytest.fixture(scope="module")
def one_device_run(data, shared) -> Path:
    """A run on one device, trained in this process, with which all other runs are compared."""

    def train(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            replace_figures(patch.setattr)
            assert main([*train_flags(data, folder / "run"), "--strategy=none"]) == 0

    return shared("distribute-alone", train) / "run"


@pytest.fixture(scope="module")
def two_workers(data, shared) -> tuple[Path, list[Ended]]:
    """The folder of an undisturbed run of two workers, and both processes; see PROBE in worker.py."""

    def train(folder: Path) -> None:
        with contextlib.closing(Launcher(folder)) as launcher:
            ended = launcher.run(train_flags(data, folder / "two"), workers=2, PROBE="1")
        lines = [json.dumps(vars(each), default=str) for each in ended]
        (folder / "ended.jsonl").write_text("\n".join(lines))

    folder = shared("distribute-two", train)
    lines = (folder / "ended.jsonl").read_text().splitlines()
    return folder / "two", [
        Ended(Path(each.pop("home")), Path(each.pop("weights")), **each)
        for each in map(json.loads, lines)
    ]


def final_arrays(run_dir: Path) -> dict[str, list[np.ndarray]]:
    state, warnings = load_newest_state(run_dir / "state")
    assert not warnings
    return state.arrays


def assert_equal_to_rounding(run_dir: Path, one_device_run: Path) -> None:
    found, wanted = (
        read_history(run_dir / "history.csv"),
        read_history(one_device_run / "history.csv"),
    )
    assert len(found) == len(wanted) == EPOCHS
    for row, expected in zip(found, wanted, strict=True):
        assert row == pytest.approx(expected, rel=1e-4, abs=1e-6)
    arrays = final_arrays(run_dir)
    for group, expected in final_arrays(one_device_run).items():
        for array, other in zip(arrays[group], expected, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-3, atol=1e-4)


def test_two_devices_train_as_one_does(launcher, data, one_device_run) -> None:
    run_dir = launcher.folder / "mirrored"
    (process,) = launcher.run([*train_flags(data, run_dir), "--strategy=mirrored"], cpus=2)
    assert_equal_to_rounding(run_dir, one_device_run)
    assert "mirrored, because there are 2 logical CPU devices" in process.output
    assert "each of 2 replicas gets 6 images of a batch" in process.output
    resolved = json.loads((run_dir / "config.json").read_text())["resolved"]
    assert (resolved["strategy"], resolved["replicas"], resolved["workers"]) == ("mirrored", 2, 1)
    assert not process.errors  # no warning of Keras either


def test_two_halves_train_as_the_whole_step_does() -> None:
    """On several GPUs, XLA compiles each half; here the halves run on CPU devices without XLA."""
    done = forked.run("halves_worker:main", [])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["equal"]
    assert found["difference"] < 1e-5
    assert found["losses"][1] == pytest.approx(found["losses"][0], rel=1e-5)


def test_steps_with_sync_bn_dropout_or_loss_scaling_are_not_halved() -> None:
    plain, synchronized = (
        build_network(model="tiny", num_classes=3, image_size=16, weights="none", sync_bn=sync_bn)
        for sync_bn in (False, True)
    )
    inputs = keras.Input((4,))
    dropout = keras.Model(inputs, keras.layers.Dropout(0.5)(inputs))
    optimizer = keras.optimizers.SGD(0.1)
    assert can_be_halved(plain, optimizer)
    assert not can_be_halved(synchronized, optimizer)
    assert not can_be_halved(dropout, optimizer)
    assert not can_be_halved(plain, keras.mixed_precision.LossScaleOptimizer(optimizer))


def test_a_model_with_sync_bn_loads_without_a_strategy(two_workers, one_device_run) -> None:
    synchronized, plain = (
        load_model(run / "checkpoints" / "last.keras") for run in (two_workers[0], one_device_run)
    )
    images = np.random.default_rng(0).uniform(0, 255, (5, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(synchronized.predict(images, verbose=0), plain(images), atol=1e-4)
    assert synchronized.get_layer("conv1_bn").synchronized
    assert not plain.get_layer("conv1_bn").synchronized


@pytest.mark.parametrize("workers", [2, 3])
def test_all_workers_end_with_the_weights_of_one_process(
    launcher, data, one_device_run, two_workers, workers
) -> None:
    run_dir, processes = two_workers
    if workers == 3:
        run_dir = launcher.folder / "three"
        processes = launcher.run(train_flags(data, run_dir), workers=3)
        assert "SLURM names 3 workers" in processes[0].output
    first, *others = (np.load(process.weights) for process in processes)
    for other in others:
        assert [first[name].tobytes() for name in first] == [
            other[name].tobytes() for name in other
        ]
    assert_equal_to_rounding(run_dir, one_device_run)


def test_only_the_chief_writes_files_and_prints_epochs(two_workers) -> None:
    run_dir, (chief, worker) = two_workers
    assert (run_dir / "checkpoints" / "best.keras").exists()
    assert chief.output.count("\nepoch ") == EPOCHS
    assert chief.output.splitlines()[-1].startswith("RESULT ")
    (line,) = worker.output.splitlines()
    assert line.startswith("worker    worker 1 (127.0.0.1:")
    left = [path for path in worker.home.rglob("*") if path.is_file() and path.suffix != ".py"]
    assert not left
    assert not chief.errors + worker.errors


def test_a_run_resumes_with_another_number_of_replicas_only_with_sync_bn(
    two_workers, tmp_path, capsys, monkeypatch
) -> None:
    compared: dict[str, object] = {}
    monkeypatch.setattr(
        train, "check_equal_across_workers", lambda facts, cluster: compared.update(facts)
    )
    run_dir = shutil.copytree(two_workers[0], tmp_path / "synchronised")
    assert main(["train", f"--resume={run_dir}"]) == 0
    expected = "2 replicas before, 1 now: the batches and their statistics are the same"
    assert f"resume    {expected}" in capsys.readouterr().out

    # The workers compare these values when they start. Workers with different values would train
    # differently, or wait for each other forever.
    assert {"--seed", "the split", "--time_limit", "--save_minutes"} <= compared.keys()

    # The files are changed as if the run had been trained without --sync_bn.
    settings = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**settings, "sync_bn": False}))
    for path in (run_dir / "state").glob("*.state"):
        state = read_state(path)
        state.facts["identity"]["--sync_bn"] = False
        state.facts["identity"]["the number of replicas (--sync_bn not given)"] = 2
        write_state(path, state)
    assert main(["train", f"--resume={run_dir}"]) == 2
    refusal = "the number of replicas (--sync_bn not given) was 2 and is now 1"
    assert refusal in capsys.readouterr().err


def probe_results(process: Ended) -> dict:
    return json.loads(process.weights.with_suffix(".json").read_text())


def test_keras_still_needs_the_workarounds(two_workers) -> None:
    faults = probe_results(two_workers[1][0])
    remedy = "Keras has fixed its part of issue 20585: {} can be removed"
    assert "PerReplica" in faults["metrics"], remedy.format("compat.keras.OneReplicaBuild")
    assert "reduction dimension 0" in faults["logs"], remedy.format(
        "DistributedTrainer's _with_axis"
    )


def test_moving_statistics_are_equal_on_all_workers(two_workers) -> None:
    first, other = (probe_results(process)["statistics"] for process in two_workers[1])
    assert first == other
    means = np.concatenate(first[::2])
    assert np.abs(means).max() > 0.01  # training has updated the means, which are 0 at first


def test_a_signal_and_a_lost_worker_stop_all_and_the_resumed_run_is_equal(
    launcher, data, two_workers
) -> None:
    run_dir = launcher.folder / "disturbed"
    chief, worker = launcher.start(train_flags(data, run_dir), workers=2)
    chief.read_until("epoch 1/")
    worker.process.send_signal(signal.SIGTERM)  # as if its pod were preempted
    for each in (chief, worker):
        each.wait()
        assert each.code == 75, each.output + each.errors
    message = chief.errors.splitlines()[-1]
    assert message.startswith("seedtf train: SIGTERM at worker 1 (127.0.0.1:")
    assert message.endswith(f"continue with --resume={run_dir}")
    saved_at = message[message.index("saved at") : message.index(";")]
    assert saved_at in worker.errors.splitlines()[-1]  # both workers name the same step

    chief, worker = launcher.start(
        ["train", f"--resume={run_dir}", "--worker_timeout=5"], workers=2
    )
    chief.read_until("epoch 2/")
    worker.process.send_signal(signal.SIGSTOP if HANG else signal.SIGKILL)
    chief.wait()
    assert chief.code == 75, chief.output + chief.errors
    (line,) = chief.errors.splitlines()
    assert line.startswith("seedtf train: worker 1 (127.0.0.1:")
    assert line.endswith(
        f"was lost, so this one stops too; start all 2 again with --resume={run_dir}"
    )
    worker.process.kill()

    launcher.run(["train", f"--resume={run_dir}"], workers=2)
    undisturbed = two_workers[0]
    assert (run_dir / "history.csv").read_bytes() == (undisturbed / "history.csv").read_bytes()
    found, wanted = final_arrays(run_dir), final_arrays(undisturbed)
    for group in ("weights", "optimizer"):
        assert [a.tobytes() for a in found[group]] == [a.tobytes() for a in wanted[group]]


# --- tests that start no second worker ---


def config_text(task="worker", index=0, **cluster) -> str:
    addresses = cluster or {"worker": ["a:1", "b:2"]}
    return json.dumps({"cluster": addresses, "task": {"type": task, "index": index}})


def test_tf_config_is_read_as_kubernetes_operators_set_it() -> None:
    assert read_cluster(None) is None
    assert read_cluster("") is None
    text = json.loads(config_text("worker", "1", chief=["c:1"], worker=["a:1", "b:2"]))
    cluster = read_cluster(json.dumps({**text, "environment": "cloud"}))
    assert cluster == Cluster(("chief", "worker", "worker"), ("c:1", "a:1", "b:2"), 2)
    assert cluster.task(2) == ("worker", 1)
    assert cluster.name(0) == "chief (c:1)"
    assert cluster.name(2) == "worker 1 (b:2)"
    assert read_cluster(config_text("chief", 0, chief=["c:1"], worker=["a:1"])).index == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "is not JSON"),
        ("[]", "has no cluster"),
        ('{"task": {"type": "worker", "index": 0}}', "has no cluster"),
        ('{"cluster": {"worker": ["a:1"]}}', "has no task"),
        (config_text(index=2), "has the task worker 2, but the cluster has 2"),
        (config_text(index=-1), "has the task worker -1"),
        (config_text("chief"), "has the task chief 0, but the cluster has 0"),
        (config_text(worker=["a:1"], ps=["p:1"]), "parameter servers are not used"),
        (config_text("evaluator"), "leave the evaluator out"),
        (config_text(["worker"]), "the role ['worker'] in the task, neither chief nor worker"),
        (config_text({}), "the role {} in the task, neither chief nor worker"),
        (config_text(master=["m:1"], worker=["a:1"]), "name it chief"),
        (config_text(boss=["m:1"]), "neither chief nor worker"),
        (config_text(worker=["a:1", "a:1"]), "names one address twice"),
        (config_text(worker=["host"]), "not host:port"),
        (config_text(worker=[]), "without workers"),
        (config_text(worker="a:1"), "has no list of addresses"),
        (config_text("chief", 0, chief=["a:1", "b:1"]), "more than one chief"),
    ],
)
def test_a_wrong_tf_config_gives_a_one_line_error(
    text, fault, monkeypatch, tiny_folder, capsys
) -> None:
    with pytest.raises(UserError, match=r"^TF_CONFIG ") as raised:
        read_cluster(text)
    assert fault in str(raised.value)
    monkeypatch.setenv("TF_CONFIG", text)
    assert main(["train", f"--data_dir={tiny_folder}", "--model=tiny", "--weights=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line


def test_a_missing_worker_is_reported_by_name() -> None:
    with socket.socket() as listening, socket.socket() as silent:
        for each in (listening, silent):
            each.bind(("127.0.0.1", 0))
        listening.listen()
        ports = [each.getsockname()[1] for each in (listening, silent)]
        names = [f"worker {index} (127.0.0.1:{port})" for index, port in enumerate(ports)]
        assert missing_workers(names) == names[1:]
        module = "seedtf.training.distributed.waiting"
        command = (
            f"import sys; from {module} import report_missing_workers as report; "
            "report(sys.argv[1:], 0.1)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", command, *names], stderr=subprocess.PIPE, text=True
        ) as reporter:
            line = reporter.stderr.readline()
            reporter.kill()
    assert line == f"worker    still waiting after 0.0 min for {names[1]}\n"


TWO_WORKERS, ONE_WORKER = read_cluster(config_text()), read_cluster(config_text(worker=["a:1"]))


@pytest.mark.parametrize(
    ("requested", "cluster", "gpus_and_cpus", "kind", "reason"),
    [
        ("auto", None, (0, 1), "none", "there is one device"),
        ("auto", None, (1, 1), "none", "there is one device"),
        ("auto", None, (0, 2), "none", "there is one device"),
        ("auto", None, (4, 1), "mirrored", "there are 4 GPUs"),
        ("auto", TWO_WORKERS, (4, 1), "multi_worker", "TF_CONFIG names 2 workers"),
        ("auto", ONE_WORKER, (2, 1), "mirrored", "TF_CONFIG names one worker and there are 2 GPUs"),
        ("mirrored", None, (0, 2), "mirrored", "there are 2 logical CPU devices"),
        ("mirrored", None, (1, 2), "none", "mirrored was requested, but there is one device"),
        ("mirrored", TWO_WORKERS, (2, 1), "mirrored", "there are 2 GPUs"),
        (
            "multi_worker",
            ONE_WORKER,
            (0, 1),
            "none",
            "multi_worker was requested, but TF_CONFIG names one",
        ),
        ("none", TWO_WORKERS, (4, 1), "none", "the 2 workers of TF_CONFIG are not used"),
    ],
)
def test_choose_strategy_gives_a_strategy_and_its_reason(
    requested, cluster, gpus_and_cpus, kind, reason
) -> None:
    gpus, cpus = gpus_and_cpus
    found = choose_strategy(requested, cluster, num_gpus=gpus, num_cpus=cpus)
    assert found[0] == kind
    assert reason in found[1]


def test_multi_worker_without_a_cluster_is_refused() -> None:
    with pytest.raises(UserError, match="--strategy=multi_worker: TF_CONFIG is not set"):
        choose_strategy("multi_worker", None, 0, 1)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("TF_CONFIG", "TF_CONFIG: this worker cannot listen on a:1 (in use); pass a free port"),
        (
            "SLURM",
            "SLURM_STEP_NODELIST and SLURM_JOB_ID: this worker cannot listen on a:1 (in use); start a "
            "new job",
        ),
    ],
)
def test_a_port_in_use_is_reported_with_the_variables_that_it_comes_from(
    source: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def port_in_use() -> None:
        raise tf.errors.UnknownError(None, None, "in use")

    monkeypatch.setenv("TF_CONFIG", "")  # so that its value is restored after the test
    module = "seedtf.training.distributed.devices"
    monkeypatch.setattr(f"{module}.configure_coordination_service", lambda *_: None)
    monkeypatch.setattr(f"{module}._report_missing_workers", contextlib.nullcontext)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", port_in_use)
    with pytest.raises(UserError) as error:
        _join(read_cluster(config_text(), source), 30)
    assert str(error.value).startswith(message)


def test_a_batch_size_that_is_no_multiple_of_the_replicas_is_refused_with_multiples() -> None:
    check_even_batch(4, 32)
    with pytest.raises(UserError, match=r"--batch_size=32: 3 replicas .* pass 30 or 33"):
        check_even_batch(3, 32)
    with pytest.raises(UserError, match=r"--batch_size=2: 3 replicas .* pass 3$"):
        check_even_batch(3, 2)


def test_on_several_gpus_xla_compiles_two_halves_of_a_step_and_on_cpus_nothing() -> None:
    for requested in ("auto", "on"):
        choice = choose_jit(requested, 2, replicas=2)
        assert choice.halves and not choice.enabled and "two halves" in choice.reason
    assert not choose_jit("off", 2, replicas=2).halves
    assert not choose_jit("auto", 2, replicas=2, deterministic=True).halves
    for gpus, can_split_step in ((0, True), (2, False)):
        choice = choose_jit("auto", gpus, replicas=2, can_split_step=can_split_step)
        assert not choice.halves and "2 replicas share a step" in choice.reason
        with pytest.raises(UserError, match="--jit_compile=on: 2 replicas"):
            choose_jit("on", gpus, replicas=2, can_split_step=can_split_step)


@given(
    num_records=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    workers=st.integers(1, 4),
    devices=st.integers(1, 3),
)
def test_every_record_is_validated_once_and_all_workers_take_equally_many_steps(
    num_records, batch_size, workers, devices
) -> None:
    replicas = workers * devices
    shards = [Shard(replicas, worker * devices, devices) for worker in range(workers)]
    records = np.arange(num_records) * 7
    if num_records < replicas:
        with pytest.raises(ValueError, match="each replica needs a record"):
            shards[0].divide_records(records, batch_size)
        return
    parts = [[*shard.divide_records(records, batch_size).as_numpy_iterator()] for shard in shards]
    steps = shards[0].steps(num_records, batch_size)
    assert {len(each) for each in parts} == {steps * devices}
    assert min(len(part) for each in parts for part in each) >= 1
    in_order = [
        parts[worker][step * devices + device]
        for step in range(steps)
        for worker in range(workers)
        for device in range(devices)
    ]
    assert np.concatenate(in_order).tolist() == records.tolist()


class RecordingStore:
    """A store that records how many images each read takes."""

    def __init__(self, store) -> None:
        self.catalog, self.size, self._store = store.catalog, store.size, store
        self.soft_labels = None
        self.read_at_once: set[int | None] = set()

    def look_up(self, indices):
        self.read_at_once.add(indices.shape[0])
        return self._store.look_up(indices)


def test_the_slices_of_all_replicas_make_up_the_batches_of_one_device(
    tiny_folder, tmp_path
) -> None:
    catalog = scan_folder(tiny_folder)
    store = build_store(catalog, 8, plan_cache("ram", len(catalog), 8, tmp_path), tmp_path)
    order, records = BatchIndices(17, 6, seed=3), np.arange(17)[::-1].copy()

    # The factor depends on the image and the epoch, as the augmentation does.
    def noisy(images, epoch, chosen, rows):
        images = tf.gather(images, rows)
        factor = tf.cast(1 + epoch, tf.float32) + tf.cast(chosen, tf.float32) / 100
        return tf.cast(images, tf.float32) * factor[:, None, None, None]

    def batches(shard, steps):
        recording = RecordingStore(store)
        dataset = train_dataset(recording, records, order, noisy, start_step=1, shard=shard)
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
        found = [*dataset.take(steps * shard.count).as_numpy_iterator()]
        return found, recording.read_at_once

    whole, read = batches(Shard(), 5)
    assert read == {6}
    # There are two workers. The first worker has two devices, and the second has one device.
    shards = [Shard(3, 0, 2), Shard(3, 2, 1)]
    parts = []
    for shard in shards:
        found, read = batches(shard, 5)
        assert read == {2}  # a worker reads only the slices of its own devices
        parts.append(found)
    for step, (images, labels) in enumerate(whole):
        pieces = [*parts[0][2 * step : 2 * step + 2], parts[1][step]]
        np.testing.assert_array_equal(np.concatenate([piece[0] for piece in pieces]), images)
        np.testing.assert_array_equal(np.concatenate([piece[1] for piece in pieces]), labels)


def test_validation_shards_together_hold_all_images_in_order(tiny_folder, tmp_path) -> None:
    catalog = scan_folder(tiny_folder)
    store = build_store(catalog, 8, plan_cache("ram", len(catalog), 8, tmp_path), tmp_path)
    records = np.arange(11)
    whole = np.concatenate([images for images, _ in eval_dataset(store, records, 4)])
    pieces = [[*eval_dataset(store, records, 4, Shard(2, index, 1))] for index in range(2)]
    in_order = [piece[0] for pair in zip(*pieces, strict=True) for piece in pair]
    np.testing.assert_array_equal(np.concatenate(in_order), whole)


def test_all_workers_see_a_signal_at_the_same_step(monkeypatch) -> None:
    # In the second all-reduce, worker 1 has received SIGTERM. One number stands for the worker and the
    # signal: the index of the worker times NSIG, plus the signal.
    sent, other = [], [0.0, float(1 * signal.NSIG + signal.SIGTERM)]

    def all_reduce_max(values, workers):
        sent.append(values)
        return np.maximum(values, other if len(sent) == 2 else [0.0, 0.0])

    monkeypatch.setattr(sync, "_all_reduce_max", all_reduce_max)
    chief = sync.WorkerSync(TWO_WORKERS, StopSignal())
    chief.on_train_batch_begin(0)
    assert chief.signal_name == ""
    before = chief.clock()
    chief.on_train_batch_begin(1)
    assert chief.signal_name == "SIGTERM at worker 1 (b:2)"
    assert chief.clock() >= before
    stop = StopSignal()
    stop.signal_name = "SIGINT"
    worker = sync.WorkerSync(Cluster(TWO_WORKERS.roles, TWO_WORKERS.addresses, 1), stop)
    worker.on_train_batch_begin(0)
    # The first number, the clock, is 0, because only the chief's clock counts.
    assert sent[-1] == [0.0, 1 * signal.NSIG + signal.SIGINT]


def test_workers_exchange_signals_a_few_times_a_second_at_the_same_steps(monkeypatch) -> None:
    now, step, calls = [100.0], [0], []
    monkeypatch.setattr(sync.time, "monotonic", lambda: now[0])

    def all_reduce_max(values, workers):
        calls.append(step[0])
        return np.array([chief_clock(), signalled[0]])

    def chief_clock():
        return now[0] - 100.0

    monkeypatch.setattr(sync, "_all_reduce_max", all_reduce_max)
    signalled = [0.0]
    workers = [
        sync.WorkerSync(Cluster(TWO_WORKERS.roles, TWO_WORKERS.addresses, index), StopSignal())
        for index in (0, 1)
    ]
    seen = {}
    for step[0] in range(400):
        now[0] += 0.02 if step[0] < 200 else 0.005
        signalled[0] = float(signal.NSIG + signal.SIGTERM) if step[0] >= 300 else 0.0
        for worker in workers:
            worker.on_train_batch_begin(step[0])
            if worker.signal_name:
                seen.setdefault(id(worker), step[0])
    steps = [calls[index::2] for index in (0, 1)]
    assert steps[0] == steps[1]
    # The first interval is one step. Each further interval is at most twice as long as the one before.
    assert steps[0][:3] == [0, 1, 3]
    assert len(steps[0]) < 400 / 10
    # Both workers see the signal at the same step, within 0.3 s after step 300.
    assert len(set(seen.values())) == 1 and 300 <= next(iter(seen.values())) < 300 + 0.3 / 0.005


def test_a_difference_between_workers_is_named(monkeypatch) -> None:
    facts = {"--seed": 1, "the split": "abc"}
    others = [sync._digest(value) for value in (1, "abd")]

    def all_reduce_max(values, workers):
        return np.maximum(values, [*others, *(-number for number in others)])

    monkeypatch.setattr(sync, "_all_reduce_max", all_reduce_max)
    with pytest.raises(UserError, match=r'^the split: not the same on all 2 workers, here "abc"'):
        sync.check_equal_across_workers(facts, TWO_WORKERS)
    sync.check_equal_across_workers({**facts, "the split": "abd"}, TWO_WORKERS)
    sync.check_equal_across_workers(facts, None)


def test_moving_statistics_are_the_variables_that_replicas_update_separately() -> None:
    network = build_network(model="tiny", num_classes=2, image_size=16, weights="none")
    assert len(moving_statistics(network)) == 6
    nested = keras.Sequential([keras.Input((16, 16, 3)), network])
    assert len(moving_statistics(nested)) == 6
    network.get_layer("conv1_bn").trainable = False
    assert len(moving_statistics(network)) == 4
    synced = build_network(model="tiny", num_classes=2, image_size=16, weights="none", sync_bn=True)
    assert moving_statistics(synced) == []


def test_a_synchronized_layer_equals_the_plain_one_on_one_device() -> None:
    plain, synced = FusedBatchNormalization(), FusedBatchNormalization(synchronized=True)
    images = tf.constant(np.random.default_rng(0).normal(3, 2, (8, 4, 4, 5)).astype(np.float32))
    for training in (True, False):
        expected, found = plain(images, training=training), synced(images, training=training)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [w.shape for w in plain.weights] == [w.shape for w in synced.weights]
