"""``seedtf COMMAND``: it finds the command, shows help, and accepts a pipe that closes early."""

import subprocess
import sys

import pytest

import seedtf
from seedtf.commands.main import COMMANDS, EXIT_BROKEN_PIPE, main


def test_no_command_shows_the_usage_and_fails(capsys) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in COMMANDS)


def test_version_is_printed(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"seedtf {seedtf.__version__}\n"


def test_a_mistyped_command_gets_a_suggestion(capsys) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: seedtf {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", ["--help", "train --help", "sample --help"])
def test_a_pipe_closed_before_the_first_write_prints_no_traceback(arguments: str) -> None:
    # stdout is buffered, as in a user's shell. So the text that cannot be written to the closed pipe
    # stays in the buffer, and Python tries to write it again when the process ends.
    pipeline = f"(sleep 0.2; {sys.executable} -m seedtf {arguments}) | true"
    shell = ["env", "-u", "PYTHONUNBUFFERED", "bash", "-o", "pipefail", "-c", pipeline]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, "")


def test_a_pipe_closed_after_the_first_line_prints_no_traceback() -> None:
    command = f"{sys.executable} -m seedtf train --help | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("usage: seedtf train")


def test_sample_writes_class_folders(tmp_path, capsys) -> None:
    out = tmp_path / "drawn"
    assert main(["sample", f"--out={out}", "--images_per_class=2", "--image_size=16"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert len(list(out.glob("*/*.png"))) == 24
    assert main(["sample", f"--out={out}", "--images_per_class=0"]) == 2
