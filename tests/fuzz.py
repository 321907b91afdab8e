"""Fuzzes the readers of foreign data with atheris: ``python tests/fuzz.py TARGET -max_total_time=60``.

``make fuzz`` runs all targets, which takes an hour in total. A target fails at a crash, at an exception
other than a refusal, at a result that contradicts the target's docstring, and at an input that takes
over five seconds or 3 GB. libFuzzer saves the input of a failure in ``build/fuzz``. The corpus of each
target is also there, and grows from run to run. pytest does not collect this module.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import atheris
from hostile_files import whole_files
from image_cases import image_cases

with atheris.instrument_imports(include=["seedtf.data", "seedtf.images"]):
    from seedtf.data.archives import unpack_archive
    from seedtf.data.label_table import read_label_table
    from seedtf.data.listing import list_files
    from seedtf.images.header import RefusedError, read_header

from seedtf.errors import UserError
from seedtf.report import silent

MAX_PIXELS = 1_000_000  # the limit that the readers get; an image with more pixels must be refused
MAX_BYTES = 20_000  # the longest input that libFuzzer makes
OUT = Path(__file__).resolve().parent.parent / "build" / "fuzz"
IMAGES = ("oak/1.jpg", "oak/2.jpg", "elm/3.png", "4.jpg")
# The parts of the paths and tables in the inputs. Random bytes would hardly ever form them.
NAMES = [
    *("train", "val", "test", "oak", "elm", "images", "archive", "runs", "state", "checkpoints"),
    *("1.jpg", "2.jpg", "3.png", "metadata.csv", "metadata.jsonl", "_classes.csv", "names.txt"),
]
ROWS = [
    *("file_name,label\n", "1.jpg,oak\n", "2.jpg,elm\n", "oak/1.jpg,oak\n", "filename, oak, elm\n"),
    *(
        "1.jpg, 1, 0\n",
        '{"file_name": "1.jpg", "label": "oak"}\n',
        "file;label;split\n",
        "1;oak;val\n",
    ),
]
WORK = OUT / "work"


def fuzz_header(data: bytes) -> None:
    """A header gives a size within the limit of pixels, or is refused with the name of a fault."""
    try:
        header = read_header(data, MAX_PIXELS)
    except RefusedError as error:
        assert error.fault
        return
    assert 0 < header.width * header.height <= MAX_PIXELS


def fuzz_decode(data: bytes) -> None:
    """An image is decoded to 16×16 pixels, or refused with the name of a fault."""
    try:
        image = get_decoder()(data).numpy()
    except RefusedError as error:
        assert error.fault
        return
    assert image.shape == (16, 16, 3)


@functools.cache
def get_decoder() -> Callable:
    """The decoder, made once. Importing TensorFlow may take longer than the limit for an input."""
    from seedtf.images.decode import make_decoder

    return make_decoder(16, MAX_PIXELS)


def fuzz_table(data: bytes) -> None:
    """Every row of a table names an existing image with one class, or the table is refused."""
    root = WORK / "images"
    for name in IMAGES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (WORK / "table").write_bytes(data)
    try:
        table = read_label_table(WORK / "table", root)
    except UserError:
        return
    assert all((root / path).is_file() for path in table.catalog.paths)
    assert len(set(table.catalog.paths)) == len(table.catalog.labels)
    assert table.sides is None or len(table.sides) == len(table.catalog)


def fuzz_layout(data: bytes) -> None:
    """The listed images exist and none is in both train and val, or the folder is refused."""
    source = atheris.FuzzedDataProvider(data)
    root = WORK / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for _ in range(source.ConsumeIntInRange(0, 12)):
        parts = [source.PickValueInList(NAMES) for _ in range(source.ConsumeIntInRange(1, 4))]
        path = root.joinpath(*parts)
        if any(parent.is_file() for parent in path.parents) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [source.PickValueInList(ROWS) for _ in range(source.ConsumeIntInRange(0, 5))]
        text = "".join(rows).encode() + source.ConsumeBytes(source.ConsumeIntInRange(0, 20))
        # Only tables need text. Images and files named like a folder (images, runs, checkpoints) stay
        # empty: their names end with g or s.
        path.write_bytes(text if not path.name.endswith(("g", "s")) else b"")
    try:
        catalog, split = list_files(str(root), min_images=1)
    except UserError:
        return
    assert len(catalog.class_names) >= 2
    assert all(os.path.isfile(path) for path in catalog.absolute_paths())
    if split is not None:
        assert not set(split.train.tolist()) & set(split.val.tolist())


def fuzz_archive(data: bytes) -> None:
    """An archive is unpacked into the cache, or refused; nothing is written anywhere else."""
    outer = WORK / "outer"
    shutil.rmtree(outer, ignore_errors=True)
    (outer / "inner").mkdir(parents=True)
    (outer / "inner" / "archive").write_bytes(data)
    try:
        folder = unpack_archive(str(outer / "inner/archive"), "--data_dir", outer / "inner/cache")
    except UserError:
        folder = ""
    assert [path.name for path in outer.iterdir()] == ["inner"]
    assert {path.name for path in (outer / "inner").iterdir()} <= {"archive", "cache"}
    if folder.startswith(str(outer / "inner/cache")):
        unpacked = Path(folder).resolve()
        assert all(unpacked in path.resolve().parents for path in unpacked.rglob("*"))


def first_inputs(target: str) -> list[bytes]:
    """The inputs that a target's corpus starts with. Some of them are valid."""
    if target == "table":
        return ["".join(ROWS[:3]).encode(), "".join(ROWS[4:6]).encode(), ROWS[6].encode()]
    if target == "layout":
        return [bytes(range(n, n + 120)) for n in (0, 60, 120)]
    if target != "archive":
        small = [data for data in image_cases().values() if len(data) < MAX_BYTES]
        return [*whole_files().values(), *small]
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("oak/1.jpg", b"image" * 20)
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("oak/1.jpg"))
    plain_tar = tarfile.TarInfo("oak/2.jpg").tobuf() + bytes(1024)
    return [zipped.getvalue(), tarred.getvalue(), plain_tar]


TARGETS = {
    "header": fuzz_header,
    "decode": fuzz_decode,
    "table": fuzz_table,
    "layout": fuzz_layout,
    "archive": fuzz_archive,
}


def main() -> None:
    """Fuzzes the target in the first argument; the other arguments are flags of libFuzzer."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python tests/fuzz.py {'|'.join(TARGETS)} [-max_total_time=60]")
    target = sys.argv[1]
    if target == "decode":
        get_decoder()
    corpus = OUT / target
    corpus.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(exist_ok=True)
    for number, data in enumerate(first_inputs(target)):
        (corpus / f"first-{number}").write_bytes(data)

    def fuzz_one(data: bytes) -> None:
        with silent():
            TARGETS[target](data)

    limits = [
        "-timeout=5",
        "-rss_limit_mb=3000",
        f"-max_len={MAX_BYTES}",
        f"-artifact_prefix={OUT}/",
    ]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *sys.argv[2:]], fuzz_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
