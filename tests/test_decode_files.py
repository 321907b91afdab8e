"""A batch decoder gives for each path, in order, what decoding its file alone gives: image or error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedtf.data import decode_files
from seedtf.data.decode_files import make_batch_decoder
from seedtf.images.decode import make_decoder
from seedtf.images.header import RefusedError

SIZE = 16
GOOD = (0, 2, 3, 5, 7)
"""The positions of the undamaged images in ``mixed``."""


@pytest.fixture
def mixed(tmp_path: Path) -> list[str]:
    """Eight paths: five images, and at 1, 4 and 6 a damaged image, an empty file and a missing file."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for i in GOOD:
        Image.fromarray(rng.integers(0, 256, (9 + i, 20 - i, 3), np.uint8)).save(paths[i])
    Image.fromarray(rng.integers(0, 256, (30, 30, 3), np.uint8)).save(tmp_path / "whole.png")
    damaged = bytearray((tmp_path / "whole.png").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    paths[1].write_bytes(damaged)
    paths[4].touch()
    return [str(path) for path in paths]


def test_a_bad_file_does_not_affect_the_others(mixed: list[str]) -> None:
    results = [*make_batch_decoder(SIZE)(mixed)]
    assert [type(result) for result in results] == [
        np.ndarray, RefusedError, np.ndarray, np.ndarray,
        RefusedError, np.ndarray, FileNotFoundError, np.ndarray,
    ]  # fmt: skip
    assert [results[1].fault, results[4].fault] == ["corrupt", "empty file"]
    decode_single = make_decoder(SIZE)
    for i in GOOD:
        assert np.array_equal(results[i], decode_single(Path(mixed[i]).read_bytes()))


def test_a_batch_of_files_is_limited_by_the_bytes_that_it_needs(
    mixed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [mixed[i] for i in GOOD]
    files = [decode_files._read(path, max_pixels=1000) for path in paths]
    assert [len(batch) for batch in decode_files._batches(files)] == [5]
    sizes = [decode_files._bytes_needed(*file) for file in files]
    monkeypatch.setattr(decode_files, "_BATCH_BYTES", 2 * max(sizes))
    assert [len(batch) for batch in decode_files._batches(files)] == [2, 2, 1]
    monkeypatch.setattr(decode_files, "_BATCH_BYTES", 1)
    assert [len(batch) for batch in decode_files._batches(files)] == [1] * 5
    assert len([*make_batch_decoder(SIZE)(paths)]) == 5


def test_no_paths_give_no_images() -> None:
    assert [*make_batch_decoder(SIZE)([])] == []
