"""Clusters: the tasks of a SLURM step, and the manifests and batch scripts that are shipped."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from seedtf.commands.arguments import parse_given_flags
from seedtf.commands.folds import FoldsConfig
from seedtf.commands.tune import TuneConfig
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.training.distributed.choice import check_even_batch, choose_devices
from seedtf.training.distributed.cluster import read_cluster
from seedtf.training.distributed.slurm import in_slurm_step, slurm_tf_config
from seedtf.training.machine import Machine

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
KUBERNETES = "1.31"


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch):
    """A function that sets the environment variables which srun sets in one task."""

    def set_variables(
        nodes: str, tasks_per_node: str, num_tasks: int, rank: int, job: int = 7
    ) -> None:
        monkeypatch.setenv("SLURM_STEP_NODELIST", nodes)
        monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks_per_node)
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", str(num_tasks))
        monkeypatch.setenv("SLURM_PROCID", str(rank))
        monkeypatch.setenv("SLURM_JOB_ID", str(job))

    return set_variables


def test_the_tasks_of_a_step_are_the_workers(slurm) -> None:
    slurm("node[08-09,11]", "1(x3)", 3, 2)
    assert in_slurm_step()
    cluster = read_cluster(slurm_tf_config())
    hosts = [address.rpartition(":")[0] for address in cluster.addresses]
    assert hosts == ["node08", "node09", "node11"]
    assert (cluster.size, cluster.index, cluster.task(2)) == (3, 2, ("worker", 2))


def test_ranks_get_the_hosts_in_the_order_of_slurm_and_not_of_the_alphabet(slurm) -> None:
    slurm("host[2,9-10],login-1,r[1-2]n[08,09]-ib", "2,1(x7)", 9, 2)
    cluster = read_cluster(slurm_tf_config())
    hosts = [address.rpartition(":")[0] for address in cluster.addresses]
    assert hosts[:5] == ["host2", "host2", "host9", "host10", "login-1"]
    assert hosts[5:] == ["r1n08-ib", "r1n09-ib", "r2n08-ib", "r2n09-ib"]
    assert cluster.index == 2


def test_tasks_on_one_machine_and_different_jobs_use_different_ports(slurm) -> None:
    slurm("a,b", "2,1", 3, 0)
    addresses = read_cluster(slurm_tf_config()).addresses
    assert len(set(addresses)) == 3
    assert [address[0] for address in addresses] == ["a", "a", "b"]
    slurm("a,b", "2,1", 3, 0, job=8)
    assert not set(addresses) & set(read_cluster(slurm_tf_config()).addresses)


@pytest.mark.parametrize("job", [0, 1, 4_294_967_295])
def test_every_port_is_above_1023_and_below_the_ports_of_clients(slurm, job: int) -> None:
    slurm("a", "4", 4, 0, job)
    ports = [int(a.rpartition(":")[2]) for a in read_cluster(slurm_tf_config()).addresses]
    assert all(1024 < port < 32_768 for port in ports)  # Linux gives clients ports from 32,768


def test_a_batch_script_and_a_single_task_are_no_step_of_several_tasks(slurm, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert not in_slurm_step()
    slurm("a", "1", 1, 0)
    assert not in_slurm_step()


@pytest.mark.parametrize(
    ("config_class", "reason"),
    [
        (FoldsConfig, "a fold is trained by one machine; start the command on every machine"),
        (TuneConfig, "a trial runs on one machine; start the search on every machine"),
    ],
)
def test_folds_and_trials_are_not_divided_among_the_tasks_of_a_step(
    slurm, config_class: type, reason: str
) -> None:
    slurm("a,b", "1(x2)", 2, 1)
    with pytest.raises(UserError, match=f"^--strategy=auto: {reason} .*, pass --strategy=none$"):
        config_class(data_dir="d")
    config_class(data_dir="d", strategy="none")
    config_class(data_dir="d", cluster="tf_config")
    slurm("a", "1", 1, 0)
    config_class(data_dir="d")


def test_slurm_variables_that_cannot_be_read_give_a_one_line_error(slurm, monkeypatch) -> None:
    slurm("a[1-", "1", 2, 0)
    with pytest.raises(UserError, match=r"--cluster=slurm: the variables of SLURM cannot be read"):
        slurm_tf_config()
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(UserError, match="start seedtf with srun, or set TF_CONFIG"):
        slurm_tf_config()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SLURM_JOB_ID", "x", "SLURM_JOB_ID=x"),
        ("SLURM_STEP_NODELIST", "a[x]", r"SLURM_STEP_NODELIST=a\[x\]"),
        ("SLURM_STEP_NODELIST", "a,b", r"rank 1 of 2 tasks; 2 nodes, on which \[2\] tasks run"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x", r"SLURM_STEP_TASKS_PER_NODE=2\(x"),
        ("SLURM_STEP_TASKS_PER_NODE", "3", r"rank 1 of 2 tasks; 1 nodes, on which \[3\] tasks run"),
        ("SLURM_PROCID", "2", "rank 2 of 2 tasks"),
    ],
)
def test_each_slurm_variable_that_does_not_fit_is_refused(
    slurm, monkeypatch, variable: str, value: str, message: str
) -> None:
    slurm("a", "2", 2, 1)
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"the variables of SLURM cannot be read \({message}"):
        slurm_tf_config()


def tf_config(*hosts: str) -> str:
    """The TF_CONFIG of the first worker in a cluster with one worker on each host."""
    task = {"type": "worker", "index": 0}
    return json.dumps({"cluster": {"worker": [f"{host}:1" for host in hosts]}, "task": task})


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("auto", ("multi_worker", "TF_CONFIG names 2 workers")),
        ("tf_config", ("multi_worker", "TF_CONFIG names 2 workers")),
        ("slurm", ("multi_worker", "SLURM names 3 workers")),
    ],
)
def test_the_flag_cluster_selects_tf_config_or_slurm(flag: str, expected: tuple[str, str]) -> None:
    machine = Machine(tf_config=tf_config("a", "b"), slurm_config=tf_config("a", "b", "c"))
    choice = choose_devices("auto", machine, flag)
    assert (choice.kind, choice.reason) == expected


def test_auto_finds_slurm_and_cluster_slurm_is_refused_without_slurm() -> None:
    choice = choose_devices("auto", Machine(slurm_config=tf_config("a", "b", "c")))
    assert (choice.workers, choice.reason) == (3, "SLURM names 3 workers")
    assert (
        choose_devices("auto", Machine(slurm_config=tf_config("a", "b")), "tf_config").workers == 1
    )
    with pytest.raises(UserError, match=r"--cluster=slurm: srun has not started several tasks"):
        choose_devices("auto", Machine(tf_config=tf_config("a", "b")), "slurm")


def read_manifest() -> tuple[dict, dict]:
    service, job = yaml.safe_load_all((SCRIPTS / "kubernetes" / "job.yaml").read_text())
    return service, job


def test_the_manifest_fits_the_schemas_of_kubernetes() -> None:
    service, job = read_manifest()
    kubernetes_validate.validate(service, KUBERNETES, strict=True)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    job["spec"]["completionMode"] = 3
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_the_pods_of_the_manifest_are_a_cluster_of_seedtf() -> None:
    service, job = read_manifest()
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completions"] == spec["parallelism"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    variables = {each["name"]: each.get("value") for each in container["env"]}
    (port,) = (each["containerPort"] for each in container["ports"])
    for index in range(spec["completions"]):
        cluster = read_cluster(variables["TF_CONFIG"].replace("$(INDEX)", str(index)))
        assert cluster.index == index
        assert cluster.addresses == tuple(
            f"{name}-{number}.{pod['subdomain']}:{port}" for number in range(spec["completions"])
        )
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    commands = seedtf_commands(container["args"][0])
    assert len(commands) == 2
    for arguments in commands:
        given = parse_given_flags(TrainConfig, "train", arguments)
        check_even_batch(spec["completions"], given.get("batch_size", spec["completions"]))


def test_the_batch_scripts_are_valid_and_their_flags_exist() -> None:
    classes = {"train": TrainConfig, "tune": TuneConfig, "folds": FoldsConfig}
    assert {path.stem for path in (SCRIPTS / "slurm").iterdir()} == set(classes)
    for name, config_class in classes.items():
        script = (SCRIPTS / "slurm" / f"{name}.sbatch").read_text()
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        # Comments are left out, and --kill-on-bad-exit, which is a flag of srun.
        code = re.sub(r"^#.*$|--kill-on-bad-exit=0", "", script, flags=re.M)
        flags = re.findall(r"--(\w+)", code)
        assert flags
        assert set(flags) <= set(config_class.__dataclass_fields__)


# Shell programs that replace the commands in the batch scripts. The replacement of srun runs its
# command once. The replacement of seedtf makes config.json: a batch script resumes a run if this file
# exists.
STAND_INS = {
    "srun": '''[ "$1" = --kill-on-bad-exit=0 ] && shift; "$@"''',
    "seedtf": '''echo "$@" >> "$LOG"; touch "$RUN/config.json"; exit "$(cat "$CODE")"''',
    "scontrol": '''echo "scontrol $@" >> "$LOG"''',
}


@pytest.mark.parametrize(("code", "requeued"), [(75, True), (0, False), (2, False)])
def test_the_batch_script_requeues_and_resumes(tmp_path: Path, code: int, requeued: bool) -> None:
    for name, program in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{program}\n")
        (tmp_path / name).chmod(0o755)
    run, log = tmp_path / "my run", tmp_path / "log"
    run.mkdir()
    (tmp_path / "code").write_text(str(code))
    variables = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "RUN": str(run),
        "DATA": "/data/plants",
        "LOG": str(log),
        "CODE": str(tmp_path / "code"),
        "FLAGS": "--epochs=3 --image_size=64",
        "SLURM_JOB_ID": "12",
    }
    command = ["bash", str(SCRIPTS / "slurm" / "train.sbatch")]
    # The second time, the script finds the run of the first time.
    codes = [subprocess.run(command, env=variables, check=False).returncode for _ in range(2)]
    lines = log.read_text().splitlines()
    assert codes == [code, code]
    assert "--data_dir=/data/plants" in lines[0]
    assert "--epochs=3" in lines[0]
    assert lines.count("scontrol requeue 12") == (2 if requeued else 0)
    resumed = [line for line in lines if "--resume" in line]
    assert len(resumed) == 1
    assert f"--resume={run} " in resumed[0]


@pytest.mark.parametrize("name", ["folds", "tune"])
@pytest.mark.parametrize("code", [75, 4])
def test_a_task_of_an_array_is_requeued_after_exit_code_75(
    tmp_path: Path, name: str, code: int
) -> None:
    for program, text in STAND_INS.items():
        (tmp_path / program).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "code").write_text(str(code))
    variables = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        **{"DATA": "/data/plants", "RUN": str(tmp_path), "LOG": str(tmp_path / "log")},
        **{"CODE": str(tmp_path / "code"), "STORAGE": "postgresql://u@h/s"},
        **{"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2"},
    }
    command = ["bash", str(SCRIPTS / "slurm" / f"{name}.sbatch")]
    assert subprocess.run(command, env=variables, check=False).returncode == code
    first, *rest = (tmp_path / "log").read_text().splitlines()
    assert first.startswith(f"{name} --data_dir=/data/plants")
    assert rest == (["scontrol requeue 14"] if code == 75 else [])


def seedtf_commands(script: str) -> list[list[str]]:
    """The arguments of every ``seedtf train`` in a shell script."""
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    joined = script.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if "seedtf train " in line]
    return [shlex.split(line.split("seedtf train ")[1]) for line in lines]
