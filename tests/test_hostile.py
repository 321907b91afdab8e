"""The decoder survives abuse: an image or a named refusal, in bounded time and memory, no crash.

The files go through a process of its own, which may use so much memory and no more and is ended by the
system where one file takes more than so much processor time; so neither a crash nor a hang can hide.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import hostile_files, whole_files

MAX_PIXELS = 4_000_000
MEMORY_BYTES = 1 << 30  # above what TensorFlow has taken once it runs
SECONDS_A_FILE = 1.0
FAULTS = {
    "corrupt",
    "empty file",
    "not an image",
    "too large",
    "truncated",
    "unsupported variant",
}


def decode_under_limits(folder: Path) -> None:
    """The process under test: one line a file on stdout, its name before it is opened."""
    from seedtf.images.decode import make_decoder
    from seedtf.images.header import RefusedError

    decode = make_decoder(32, MAX_PIXELS)
    for data in whole_files().values():  # TensorFlow starts its threads
        decode(data)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for path in sorted(folder.iterdir()):
        print(path.name, end="\t", flush=True)
        # processor time of all threads, so that a busy machine fails no test; the signal ends all
        signal.setitimer(signal.ITIMER_PROF, SECONDS_A_FILE)
        try:
            image = decode(path.read_bytes()).numpy()
            print("array", image.shape, image.dtype)
        except RefusedError as error:
            print(error.fault)
        signal.setitimer(signal.ITIMER_PROF, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "class"
    root.mkdir()
    for name, data in hostile_files():
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def verdicts(folder: Path) -> dict[str, str]:
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-3:]
    return dict(line.split("\t") for line in done.stdout.splitlines())


def test_every_hostile_file_gives_an_array_or_a_refusal(
    folder: Path, verdicts: dict[str, str]
) -> None:
    assert len(verdicts) == len(os.listdir(folder)) >= 200
    assert set(verdicts.values()) <= FAULTS | {"array (32, 32, 3) uint8"}


def test_whole_files_still_decode(verdicts: dict[str, str]) -> None:
    assert {verdicts[name] for name in whole_files()} == {"array (32, 32, 3) uint8"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("57 bytes.png", "truncated"),
        ("claims 23000.png", "too large"),
        ("claims 65500.jpg", "too large"),
        ("second frame.gif", "too large"),
        ("blank frame.gif", "too large"),
        ("frames.gif", "too large"),
        ("scans.jpg", "unsupported variant"),
        ("claims 16383.webp", "too large"),
        ("empty.jpg", "empty file"),
    ],
)
def test_bombs_are_refused_by_name(verdicts: dict[str, str], name: str, fault: str) -> None:
    assert verdicts[name] == fault


def test_check_accounts_for_every_hostile_file(folder: Path, verdicts: dict[str, str]) -> None:
    from seedtf.data.check.check import LEFT_OUT, check_data

    found = check_data(str(folder.parent), max_pixels=MAX_PIXELS)
    left_out = {f.path: f.fault for f in found.findings if f.severity == LEFT_OUT}
    told = {f"class/{name}": verdict for name, verdict in verdicts.items()}
    assert left_out == {path: v for path, v in told.items() if not v.startswith("array")}
    assert set(found.catalog.paths) == told.keys() - left_out.keys()


if __name__ == "__main__":
    decode_under_limits(Path(sys.argv[1]))
