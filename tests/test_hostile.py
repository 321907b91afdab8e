"""Hostile files give an image or a named refusal, in bounded time and memory, without a crash.

The files are decoded in a separate process with a memory limit. The system ends this process if one
file takes too much processor time. So a crash or an endless loop fails the tests.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import forked
import pytest
from hostile_files import hostile_files, whole_files

MAX_PIXELS = 4_000_000
MEMORY_BYTES = 1 << 30  # in addition to the memory that TensorFlow takes when it starts
SECONDS_PER_FILE = 1.0  # of processor time
FAULTS = {
    "corrupt",
    "empty file",
    "not an image",
    "too large",
    "truncated",
    "unsupported variant",
}


LARGE_PIXELS = 25_000_000
LARGE_MEMORY_BYTES = 512 << 20  # the decoded RGBA image takes 100 MB, the RGB image 75 MB


def decode_under_limits(arguments: list[str]) -> None:
    """Runs in the separate process: prints the name of each file, decodes it and prints the outcome.

    At the end, transparent.png is decoded under ``LARGE_PIXELS`` and ``LARGE_MEMORY_BYTES``.
    """
    from seedtf.images.decode import make_decoder
    from seedtf.images.header import RefusedError

    folder, decode = Path(arguments[0]), make_decoder(32, MAX_PIXELS)
    for data in whole_files().values():  # starts TensorFlow's threads before the memory is limited
        decode(data)
    limit_memory(MEMORY_BYTES)
    for path in sorted(folder.iterdir()):
        print(path.name, end="\t", flush=True)
        # ITIMER_PROF counts processor time, so a busy machine does not fail the test.
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_FILE)
        try:
            image = decode(path.read_bytes()).numpy()
            print("array", image.shape, image.dtype)
        except RefusedError as error:
            print(error.fault)
        signal.setitimer(signal.ITIMER_PROF, 0)
    limit_memory(LARGE_MEMORY_BYTES)
    print("large", make_decoder(32, LARGE_PIXELS)((folder / "transparent.png").read_bytes()).shape)


def limit_memory(more_bytes: int) -> None:
    """Lets the process allocate at most ``more_bytes`` from now on."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "class"
    root.mkdir()
    for name, data in hostile_files():
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, str]:
    done = forked.run("test_hostile:decode_under_limits", [str(folder)])
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()[-3:]
    *lines, large = done.stdout.splitlines()
    # transparent.png would take over 900 MB if all of its pixels were blended at once.
    assert large == "large (32, 32, 3)"
    return dict(line.split("\t") for line in lines)


def test_every_hostile_file_gives_an_image_or_a_refusal(
    folder: Path, outcomes: dict[str, str]
) -> None:
    assert len(outcomes) == len(os.listdir(folder)) >= 200
    assert set(outcomes.values()) <= FAULTS | {"array (32, 32, 3) uint8"}


def test_undamaged_files_are_decoded_under_the_same_limits(outcomes: dict[str, str]) -> None:
    assert {outcomes[name] for name in whole_files()} == {"array (32, 32, 3) uint8"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("57 bytes.png", "truncated"),
        ("claims 23000.png", "too large"),
        ("claims 65500.jpg", "too large"),
        ("private chunk.png", "unsupported variant"),
        ("stuffing.jpg", "too large"),
        ("scans.jpg", "unsupported variant"),
        ("claims 16383.webp", "too large"),
        ("empty.jpg", "empty file"),
    ],
)
def test_decompression_bombs_and_an_empty_file_are_refused_with_the_right_fault(
    outcomes: dict[str, str], name: str, fault: str
) -> None:
    assert outcomes[name] == fault


@pytest.mark.parametrize("name", ["second frame", "blank frame", "frames", "row and column"])
def test_only_the_first_frame_of_a_gif_is_decoded(outcomes: dict[str, str], name: str) -> None:
    """TensorFlow alone would allocate the largest width times the largest height of all frames.

    For these files, this is up to 13 GB.
    """
    assert outcomes[f"{name}.gif"].startswith("array")


def test_check_lists_every_hostile_file_as_usable_or_left_out(
    folder: Path, outcomes: dict[str, str]
) -> None:
    from seedtf.data.check.check import LEFT_OUT, check_data

    result = check_data(str(folder.parent), max_pixels=MAX_PIXELS)
    left_out = {f.path: f.fault for f in result.findings if f.severity == LEFT_OUT}
    outcome_of = {f"class/{name}": outcome for name, outcome in outcomes.items()}
    assert left_out == {
        path: outcome for path, outcome in outcome_of.items() if not outcome.startswith("array")
    }
    assert set(result.catalog.paths) == outcome_of.keys() - left_out.keys()
