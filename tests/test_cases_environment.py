"""Environments of users: notebooks, containers, clusters, old locales, settings of other projects.

The fixture ``hostile`` runs six commands in one process with all hostile settings at once, because each
import of TensorFlow takes seconds. Several tests check the output of these six commands.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from seedtf.commands import main as command_line
from seedtf.commands.main import COMMANDS, main
from seedtf.commands.process import describe_os_error
from seedtf.compat.keras_settings import override_keras_settings
from seedtf.config.flags import default_cache_dir
from seedtf.config.train_config import TrainConfig
from seedtf.errors import UserError
from seedtf.files import fsync, is_locked, lock_folder, write_text

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_VARIABLES = {"MPLBACKEND": "module://a_backend_of_another_environment"}
KERAS_JSON = '{"backend": "torch", "floatx": "float16", "image_data_format": "channels_first"}'

# Runs each line of standard input as a command of seedtf. After each command, this program writes the
# line ``@@ COMMAND EXIT_CODE`` to standard output and to standard error.
MANY_COMMANDS = """
import os, shlex, sys
from seedtf.commands.main import main
for line in sys.stdin.read().splitlines():
    try:
        code = main(shlex.split(line))
    except SystemExit as end:
        code = end.code
    for stream in (1, 2):
        os.write(stream, f"\\n@@ {line.split()[0]} {code}\\n".encode())
"""


class Shown(NamedTuple):
    """The exit code of a command, and what it wrote to standard output and standard error."""

    code: int
    out: str
    err: str


def child_environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """The environment variables of this process with ``changes``; None removes a variable."""
    merged = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return {name: value for name, value in merged.items() if value is not None}


# The beginning of a command that runs as in a Docker container. The user of the command has no name,
# may read every file, and may write only to folders that belong to this user or are writable for all.
# /dev/shm has 64 MB. Only root can start such a command.
USER = 54321
CONTAINER = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"',
    *("sh", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"),
)


@functools.cache
def why_no_container() -> str:
    """Why this machine cannot start a command with ``CONTAINER``; empty if it can."""
    if os.getuid() != 0:
        return "only root can start a process as another user"
    if missing := [name for name in ("unshare", "setpriv") if not shutil.which(name)]:
        return f"{missing[0]} is not installed"
    done = subprocess.run([*CONTAINER, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def run_commands(
    lines: list[str],
    folder: Path,
    changes: Mapping[str, str | None],
    prefix: Sequence[str] = (),
) -> dict[str, Shown]:
    """Runs command lines in one new process; returns the exit code and outputs of each command."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", MANY_COMMANDS],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=child_environment(changes),
        errors="backslashreplace",
    )
    parts = [re.split(r"\n@@ (\w+) (\d+)\n", text) for text in (done.stdout, done.stderr)]
    assert done.returncode == 0, done.stderr
    out, err = parts
    return {
        command: Shown(int(code), shown, log)
        for command, code, shown, log in zip(
            out[1::3], out[2::3], out[0::3], err[0::3], strict=False
        )
    }


@pytest.fixture(scope="module")
def hostile(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """What each of six commands shows with all hostile settings at once, by the name of the command.

    The additional entry ``folder`` is no command: its ``out`` is the path of the folder in which the
    commands ran. If this machine can start commands with ``CONTAINER``, the commands run in that way,
    for a user without a home folder.
    """
    folder = tmp_path_factory.mktemp("hostile")
    in_container = not why_no_container()
    if in_container:
        os.chown(folder, USER, USER)
    (folder / "matplotlibrc").write_text("text.usetex: True\nfont.family: no such font\n")
    (folder / "keras.json").write_text(KERAS_JSON)
    lines = [
        f"check '{tiny_folder}'",
        f"train --data_dir='{tiny_folder}' --weights=none --model=tiny --image_size=16 --epochs=1"
        " --batch_size=4 --run_dir=run --seed=1 --augment_impl=tf_image",
        "evaluate run",
        f"predict run '{tiny_folder}'",
        f"preview --data_dir='{tiny_folder}' --image_size=16",
        "compare run run",
    ]
    changes = {
        **NOTEBOOK_VARIABLES,
        "KERAS_BACKEND": "jax",
        "KERAS_HOME": str(folder),
        "KERAS_MAX_STEPS_PER_EPOCH": "1",
        "PYTHONIOENCODING": "ascii",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **({"HOME": None, "XDG_CACHE_HOME": None, "USER": None} if in_container else {}),
    }
    shown = run_commands(lines, folder, changes, CONTAINER if in_container else ())
    assert set(shown) == {line.split()[0] for line in lines}
    return {**shown, "folder": Shown(0, str(folder), "")}


@pytest.mark.parametrize("command", ["check", "train", "evaluate", "predict", "preview", "compare"])
def test_a_command_works_with_all_hostile_settings_at_once(command, hostile) -> None:
    shown = hostile[command]
    assert shown.code in ((0, 1) if command == "check" else (0,)), shown
    assert "Traceback" not in shown.out + shown.err


def test_commands_work_as_in_a_container(hostile) -> None:
    if reason := why_no_container():
        pytest.skip(reason)
    run = Path(hostile["folder"].out, "run")
    assert run.stat().st_uid == USER
    cache = f"no home folder is known; cache files go to {tempfile.gettempdir()}/seedtf-{USER}"
    assert any(cache in shown.out for shown in hostile.values())


def test_commands_work_with_a_home_folder_that_is_read_only(
    tiny_folder: Path, tmp_path: Path
) -> None:
    if reason := why_no_container():
        pytest.skip(reason)
    home, folder = tmp_path / "home", tmp_path / "work"
    home.mkdir(0o555)
    folder.mkdir()
    os.chown(folder, USER, USER)
    lines = [f"preview --data_dir='{tiny_folder}'", f"check '{tiny_folder}'"]
    # This command writes the sample data to the cache.
    lines.append(f"lr_find --data_dir=sample {TRAINING_FLAGS}")
    changes = {"HOME": str(home), "XDG_CACHE_HOME": None}
    shown = run_commands(lines, folder, changes, CONTAINER)
    assert (shown["preview"].code, shown["preview"].err) == (0, "")
    # Exit code 1, because check reports that the images are tiny.
    assert (shown["check"].code, shown["check"].err.strip()) == (1, "")
    refused = f"seedtf lr_find: --cache_dir={home}/.cache/seedtf: Permission denied; pass another"
    assert shown["lr_find"].code == 2
    assert shown["lr_find"].err.strip().startswith(refused)
    assert list(home.iterdir()) == []


def test_settings_of_keras_do_not_reach_a_command(hostile) -> None:
    with zipfile.ZipFile(Path(hostile["folder"].out, "run/checkpoints/best.keras")) as archive:
        saved = archive.read("config.json").decode()
    assert "channels_last" in saved
    assert "channels_first" not in saved
    notes = hostile["check"].err.splitlines()  # the first command of the process
    assert "KERAS_BACKEND=jax is ignored; seedtf uses tensorflow" in notes
    assert any("floatx float16, image_data_format channels_first is ignored" in n for n in notes)
    assert any(note.startswith("KERAS_MAX_STEPS_PER_EPOCH=1 is ignored") for note in notes)


def test_a_backend_in_keras_json_is_reported_unless_keras_backend_is_set(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    notes = []
    for variables in ({}, {"KERAS_BACKEND": "tensorflow"}):
        changed = {"KERAS_HOME": str(tmp_path), **variables}
        with mock.patch.dict(os.environ, changed, clear=True):
            notes.append(override_keras_settings())
            assert os.environ["KERAS_BACKEND"] == "tensorflow"
    expected = f"{tmp_path}/keras.json: backend jax is ignored; seedtf uses tensorflow"
    assert notes == [[expected], []]


def test_with_tf_cpp_min_log_level_3_tensorflow_logs_nothing(hostile) -> None:
    lines = [line for line in hostile["check"].err.splitlines() if line]
    assert all("is ignored" in line for line in lines), lines


def test_matplotlib_can_be_imported_with_any_value_of_mplbackend(tmp_path: Path) -> None:
    code = "import seedtf.plots.training, os; print(os.environ['MPLBACKEND'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment(NOTEBOOK_VARIABLES),
    )
    assert (done.stdout.strip(), done.stderr) == (NOTEBOOK_VARIABLES["MPLBACKEND"], "")


def test_a_figure_does_not_depend_on_the_users_style() -> None:
    import matplotlib as mpl

    from seedtf.plots.base import figure_png
    from seedtf.plots.training import draw_schedule

    def draw() -> bytes:
        return figure_png(draw_schedule(lambda epoch: 0.1, 2, title="x"), dpi=40)

    plain = draw()
    users_style = {"text.usetex": True, "savefig.bbox": "tight", "font.size": 30.0}
    with mpl.rc_context(users_style):
        assert draw() == plain
        assert {name: mpl.rcParams[name] for name in users_style} == users_style


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"KERAS_BACKEND": "jax"}, "backend=jax in the environment"),
        (
            {"KERAS_BACKEND": None, "KERAS_HOME": "."},
            "backend=torch in the environment or keras.json",
        ),
        ({"KERAS_BACKEND": "tensorflow", "KERAS_HOME": "."}, "floatx=float16"),
    ],
)
def test_a_function_called_from_python_names_the_keras_setting_it_refuses(
    variables, message, tmp_path: Path
) -> None:
    (tmp_path / "keras.json").write_text(KERAS_JSON)
    done = subprocess.run(
        [sys.executable, "-c", "import seedtf; seedtf.train_and_evaluate"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=child_environment(variables),
    )
    assert f"UserError: {message}" in done.stderr


@pytest.mark.parametrize("content", ['{"floatx": "int8"}', "[]", '{"epsilon": 1}'])
def test_a_keras_json_that_keras_cannot_read_is_named(content, tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(content)
    shown = run_commands(["check data"], tmp_path, {"KERAS_HOME": str(tmp_path)})["check"]
    assert shown.code == 2
    assert "keras.json: " in shown.err
    assert "correct or remove it" in shown.err


ENVIRONMENTS = {
    "notebook": NOTEBOOK_VARIABLES,
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "keras": {"KERAS_BACKEND": "torch"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None},
    "missing TMPDIR": {"TMPDIR": "/no/such/folder"},
    "every warning an error": {"PYTHONWARNINGS": "error"},
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_command_has_help_in_a_hostile_environment(environment, tmp_path: Path) -> None:
    lines = [f"{command} --help" for command in COMMANDS]
    shown = run_commands(lines, tmp_path, ENVIRONMENTS[environment])
    assert {command: shown[command].code for command in COMMANDS} == dict.fromkeys(COMMANDS, 0)
    assert all(each.err == "" for each in shown.values())


def test_a_folder_with_an_umlaut_can_be_made_in_a_locale_without_utf_8(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seedtf", "sample", "--out=Bäume", "--images_per_class=1"],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=child_environment(ENVIRONMENTS["C locale"] | {"PYTHONIOENCODING": None}),
    )
    assert done.stdout.strip() == b"B\\xe4ume"
    assert (tmp_path / "Bäume").is_dir()


def test_a_tilde_is_the_home_folder_in_every_path_flag(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = TrainConfig(data_dir="~/data", run_dir="~/runs/x", cache_dir="~")
    assert config.data_dir == f"{tmp_path}/data"
    assert config.run_dir == f"{tmp_path}/runs/x"
    assert config.cache_dir == str(tmp_path)
    assert TrainConfig(data_dir="./~").data_dir == "./~"


def test_a_tilde_in_a_flagfile_is_the_home_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flags.txt").write_text("--out=~/drawn\n--images_per_class=1\n--image_size=16\n")
    assert main(["sample", "--flagfile=~/flags.txt"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/drawn\n"


def test_a_tilde_without_a_home_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match="--data_dir=~/data: no home folder is known"):
        TrainConfig(data_dir="~/data")


def test_a_path_that_is_not_utf_8_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"--data_dir=Bilder\\xe4/data: the name is not UTF-8"):
        TrainConfig(data_dir="Bilder\udce4/data")


def test_without_a_home_the_cache_lies_in_the_temporary_folder(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = default_cache_dir()
    assert folder == tmp_path / f"seedtf-{os.getuid()}"
    assert str(folder) in capsys.readouterr().out
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    (tmp_path / f"seedtf-{os.getuid()}").mkdir()
    with pytest.raises(UserError, match=r"--cache_dir: .* is another user's"):
        default_cache_dir()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_flushed_is_no_error(number, tmp_path: Path, monkeypatch) -> None:
    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "table.csv", "a\n")
    assert (tmp_path / "table.csv").read_text() == "a\n"


def test_an_input_output_error_of_fsync_is_raised(tmp_path: Path, monkeypatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output"):
        fsync(tmp_path)


def test_a_file_system_without_locks_gives_a_warning(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with lock_folder(tmp_path):
        assert not is_locked(tmp_path)
    assert "has no locks" in capsys.readouterr().out


def test_an_error_names_the_file_by_its_final_and_not_its_temporary_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file") as missing:
        write_text(tmp_path / "missing/table.csv", "")
    assert missing.value.filename == str(tmp_path / "missing/table.csv")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as no_folder:
        write_text(tmp_path / "file/table.csv", "")
    assert no_folder.value.filename == str(tmp_path / "file/table.csv")


class _FailingModule:
    """Replaces the module of a command; its function ``run`` raises an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def run(self, arguments: list[str]) -> int:
        raise self._error


@pytest.fixture
def make_commands_raise(monkeypatch, tmp_path: Path):
    """A function that makes every command raise an error; the log of the error goes to ``tmp_path``."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail_with(error: BaseException) -> None:
        monkeypatch.setattr(
            command_line.importlib, "import_module", lambda name: _FailingModule(error)
        )

    return fail_with


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_of_seedtf_itself_gives_one_line_with_the_path_of_a_log(
    command, make_commands_raise, capsys, tmp_path
) -> None:
    make_commands_raise(KeyError("colour"))
    assert main([command, "--out=a b"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.glob("seedtf-fault-*.log")
    assert line.startswith(f"seedtf {command}: a fault of seedtf itself (KeyError: 'colour')")
    assert line.endswith(str(log))
    text = log.read_text()
    assert f"seedtf {command} '--out=a b'" in text
    assert "Traceback (most recent call last)" in text
    assert re.search(r"^tensorflow \d", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_gives_one_line(command, make_commands_raise, capsys) -> None:
    make_commands_raise(KeyboardInterrupt())
    assert main([command]) == 130
    assert capsys.readouterr().err.strip() == f"seedtf {command}: interrupted"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_gives_one_line_that_names_the_flag(
    command, make_commands_raise, capsys
) -> None:
    make_commands_raise(OSError(errno.ENOSPC, "No space left on device", "/full/table.csv"))
    assert main([command, "--x=1", "--out=/full"]) == 2
    expected = f"seedtf {command}: --out=/full: No space left on device (/full/table.csv); "
    assert capsys.readouterr().err == f"{expected}pass another path\n"


@pytest.mark.parametrize(
    ("flag", "commands"),
    [
        ("run_dir", ["train"]),
        ("out", ["tune", "folds", "predict", "check", "runs", "benchmark gpu"]),
        ("", ["demo", "models", "completion", "compare", "data_service", "benchmark step"]),
        ("", ["benchmark epoch"]),
    ],
)
def test_the_error_of_a_full_disk_suggests_only_an_output_flag_that_the_command_has(
    flag, commands
) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/full/table.csv")
    remedy = f"; free some space or pass another path as --{flag}" if flag else ""
    for line in commands:
        command, *arguments = line.split()
        importlib.import_module("_".join(["seedtf.commands." + command, *arguments]))
        text = describe_os_error(error, command, [*arguments, "--x=1"])
        assert text == f"/full/table.csv: No space left on device{remedy}", line


def test_too_little_memory_gives_one_line(make_commands_raise, capsys) -> None:
    make_commands_raise(MemoryError("7 GB"))
    assert main(["evaluate"]) == 2
    assert capsys.readouterr().err == "seedtf evaluate: not enough memory (7 GB)\n"


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&-", "<&-"])
def test_a_full_or_closed_stream_gives_no_traceback(redirection: str) -> None:
    command = f"{sys.executable} -m seedtf train --help {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    full = "seedtf: the output cannot be written: No space left on device\n"
    assert done.stderr == (full if redirection == ">/dev/full" else "")
    assert done.returncode == (2 if redirection == ">/dev/full" else 0)


@pytest.fixture
def empty_file(tmp_path: Path, monkeypatch) -> None:
    """An empty file named ``file`` in the working folder, so that no folder can have this name."""
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)


TRAINING_FLAGS = "--model=tiny --image_size=16 --weights=none --batch_size=4 --epochs=1"


@pytest.mark.usefixtures("empty_file")
@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("sample", "--out"),
        ("check {data}", "--out"),
        ("preview --data_dir={data}", "--out"),
        ("predict run {data}", "--out"),
        (f"train --data_dir={{data}} {TRAINING_FLAGS}", "--run_dir"),
        (f"train --data_dir={{data}} {TRAINING_FLAGS} --cache=disk", "--cache_dir"),
        (f"lr_find --data_dir={{data}} {TRAINING_FLAGS}", "--out"),
        (f"tune --data_dir={{data}} {TRAINING_FLAGS} --trials=1", "--out"),
        ("evaluate {run}", "--out"),
        ("export {run}", "--out"),
    ],
)
def test_an_output_that_cannot_be_made_gives_one_line_that_names_the_flag(
    line, flag, hostile, tiny_folder, capfd
) -> None:
    run = Path(hostile["folder"].out, "run")
    words = [word.format(data=tiny_folder, run=run) for word in line.split()]
    assert main([*words, f"{flag}=file/x"]) == 2
    error = capfd.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"seedtf {words[0]}: "), error
    assert flag in error
    assert "file" in error


def test_check_refuses_its_output_before_it_reads_an_image(tiny_copy, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tiny_copy)
    monkeypatch.setattr("seedtf.data.check.check.check_data", None)
    assert main(["check", ".", "--out=report.csv"]) == 2
    assert "is in the data folder" in capsys.readouterr().err


def test_a_warning_is_no_error_if_python_runs_with_w_error(tmp_path: Path) -> None:
    code = (
        "from seedtf.commands.main import main; import warnings; main(['--version']);"
        "warnings.warn('old', DeprecationWarning)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=child_environment({}),
    )
    assert done.returncode == 0, done.stderr
