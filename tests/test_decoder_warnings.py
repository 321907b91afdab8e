"""Damaged JPEG files that a decoder accepts with a warning: ``seedtf check`` names each of them."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from seedtf.data.check.check import WARNING, check_data
from seedtf.data.check.decoder_warnings import DecoderWarnings

WARNING_LINE = b"Corrupt JPEG data: bad Huffman code\n"


def jpeg(seed: int, *, damaged: bool) -> bytes:
    """A JPEG of blurred noise; ``damaged`` overwrites 40 bytes in the middle of its pixel data."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    data = bytearray(out.getvalue())
    if damaged:
        middle = (data.index(b"\xff\xda") + len(data)) // 2
        # No byte is FF, because FF would start a marker.
        data[middle : middle + 40] = random.Random(3).randbytes(40).replace(b"\xff", b"\xfe")
    return bytes(data)


def test_a_check_names_the_damaged_files_and_no_others(tmp_path: Path, capfd) -> None:
    damaged = {f"oak/{n}.jpg" for n in (3, 4, 11)}
    for name in (f"{label}/{n}.jpg" for label in ("elm", "oak") for n in range(12)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg(sum(name.encode()), damaged=name in damaged))
    result = check_data(str(tmp_path))
    findings = {f.path: f for f in result.findings if f.fault == "damaged"}
    assert findings.keys() == damaged
    assert all(f.severity == WARNING for f in findings.values())
    assert all(f.detail.startswith("Corrupt JPEG data: ") for f in findings.values())
    assert len(result.catalog) == 24  # the damaged files are still used
    assert "Corrupt JPEG" not in capfd.readouterr().err


def test_warnings_belong_to_the_file_that_caused_them() -> None:
    warnings, called = DecoderWarnings(), []

    def decode(number: int) -> tuple[int, str]:
        def decode_file() -> int:
            called.append(number)
            time.sleep(0.001)
            if number % 5 == 0:
                os.write(2, WARNING_LINE)
            return number

        return warnings.decode(decode_file)

    with warnings.collect(), ThreadPoolExecutor(8) as pool:
        results = list(pool.map(decode, range(40)))
    assert [number for number, _ in results] == list(range(40))
    assert [number for number, text in results if text] == list(range(0, 40, 5))
    # A file that is being decoded while a warning is printed is decoded again, alone. So at least the
    # 8 files that print a warning are decoded twice.
    assert len(called) >= 48


def test_a_file_is_decoded_once_if_nothing_is_printed() -> None:
    warnings, called = DecoderWarnings(), []
    with warnings.collect():
        assert warnings.decode(lambda: called.append(1)) == (None, "")
    assert called == [1]


def test_files_are_decoded_at_the_same_time() -> None:
    warnings, barrier = DecoderWarnings(), threading.Barrier(4, timeout=10)
    with warnings.collect(), ThreadPoolExecutor(4) as pool:
        # barrier.wait returns only when four threads wait at the same time.
        waits = pool.map(lambda _: warnings.decode(barrier.wait), range(4))
        assert sorted(number for number, _ in waits) == [0, 1, 2, 3]


PROGRAM = """
import os, sys
from seedtf.data.check.decoder_warnings import DecoderWarnings
with DecoderWarnings().collect():
    os.write(2, b"Corrupt JPEG data: bad Huffman code\\n")
    os.write(2, b"another library\\n")
    print("python", file=sys.stderr)
print("after", file=sys.stderr)
"""


def test_only_decoder_warnings_are_removed_from_stderr_and_stderr_may_be_closed() -> None:
    def run(redirection: str) -> str:
        command = f"{sys.executable} -c '{PROGRAM}' {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        return done.stderr

    assert run("") == "python\nanother library\nafter\n"
    assert run("2>&-") == ""
