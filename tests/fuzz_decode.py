"""Fuzzes the decoder: ``pip install atheris; python tests/fuzz_decode.py -max_total_time=60``.

An exception other than RefusedError, a crash, or a file that takes over five seconds or 3 GB is a
finding, which libFuzzer saves as ``crash-…``, ``timeout-…`` or ``oom-…``. pytest does not collect this.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import atheris
from hostile_files import whole_files

with atheris.instrument_imports(include=["seedtf.images.header"]):
    from seedtf.images.header import RefusedError

from seedtf.images.decode import make_decoder

_DECODE = make_decoder(16, max_pixels=1_000_000)


def decode_once(data: bytes) -> None:
    """Decodes one input to an array of the right shape or a named refusal."""
    try:
        image = _DECODE(data).numpy()
    except RefusedError as error:
        assert error.fault
        return
    assert image.shape == (16, 16, 3)


def main() -> None:
    """Fuzzes from a corpus of one whole file of each kind; takes the flags of libFuzzer."""
    with tempfile.TemporaryDirectory() as corpus:
        for name, data in whole_files().items():
            (Path(corpus) / name).write_bytes(data)
        limits = ["-timeout=5", "-rss_limit_mb=3000", "-max_len=20000"]
        atheris.Setup([sys.argv[0], corpus, *limits, *sys.argv[1:]], decode_once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
