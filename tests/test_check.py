"""``seedtf check`` reports every fault of a folder, nothing else, and changes no file."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from seedtf.commands.main import main
from seedtf.data.catalog import scan_folder
from seedtf.data.check import check as check_module
from seedtf.data.check import traits
from seedtf.data.check.check import (
    LEFT_OUT,
    NOTE,
    WARNING,
    DataCheck,
    Finding,
    check_data,
    name_broken_files,
    write_findings,
)
from seedtf.data.check.near_duplicates import find_near_duplicates, fingerprint
from seedtf.data.check.traits import looks_like
from seedtf.data.store import CachePlan, build_store
from seedtf.errors import UserError
from seedtf.images.kinds import sniff

RNG = np.random.default_rng(0)


def draw_image(width: int = 96, height: int = 80) -> Image.Image:
    """An image of random blobs, which differs from every other image and is smooth as a photograph."""
    coarse = Image.fromarray(RNG.integers(0, 256, (6, 6, 3)).astype(np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb_png(side: int) -> bytes:
    """A PNG file with few bytes and ``side`` × ``side`` pixels."""
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((side // 8 + 1) * side), 9)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def deep_png() -> bytes:
    return encode(Image.fromarray(RNG.integers(0, 2**16, (40, 40)).astype(np.uint16)), "PNG")


def ycck(data: bytes) -> bytes:
    """A CMYK JPEG whose Adobe segment specifies YCCK."""
    transform = data.index(b"Adobe") + 11  # the position of the byte for the colour transform
    return data[:transform] + b"\x02" + data[transform + 1 :]


PALETTE = draw_image().quantize(32)
CMYK = encode(draw_image().convert("CMYK"))
WHOLE_JPEG, WHOLE_PNG = encode(draw_image()), encode(draw_image(), "PNG")
RGBA = draw_image().convert("RGBA")
RGBA.putalpha(90)
CLEAR = draw_image().convert("RGBA")
CLEAR.putalpha(200)
DUPLICATE, SHARED, ORIGINAL, CLASH = (draw_image() for _ in range(4))
LONG = "n" * 230

# The files of the checked folder: path: (bytes, fault, severity). `seedtf check` must report these
# faults, and nothing about a file whose fault is None.
FAULTY = {
    "oak/cut.jpg": (WHOLE_JPEG[:-400], "corrupt", LEFT_OUT),
    "oak/cut.png": (WHOLE_PNG[:-40], "truncated", LEFT_OUT),
    "oak/flipped.png": (
        WHOLE_PNG[:90] + bytes([WHOLE_PNG[90] ^ 8]) + WHOLE_PNG[91:],
        "corrupt",
        LEFT_OUT,
    ),
    "oak/zero.jpg": (b"", "empty file", LEFT_OUT),
    "oak/text.jpg": (b"hello\nworld\n", "not an image", LEFT_OUT),
    "oak/page.jpg": (b"<!DOCTYPE html><title>404</title>", "not an image", LEFT_OUT),
    "oak/lfs.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "not an image", LEFT_OUT),
    "oak/notes.txt": (b"notes", "not an image", NOTE),
    "stray.jpg": (encode(draw_image()), "no class folder", LEFT_OUT),
    "oak/png in disguise.jpg": (encode(draw_image(), "PNG"), "wrong suffix", WARNING),
    "oak/cmyk.jpg": (CMYK, "CMYK", NOTE),
    "oak/ycck.jpg": (ycck(encode(draw_image().convert("CMYK"))), "YCCK", NOTE),
    "oak/deep.png": (deep_png(), "16-bit", NOTE),
    "oak/palette.png": (encode(PALETTE, "PNG"), "palette", NOTE),
    "oak/grey.png": (encode(draw_image().convert("L"), "PNG"), "grey", NOTE),
    "oak/grey.jpg": (encode(draw_image().convert("L")), "grey", NOTE),
    "oak/alpha.png": (encode(RGBA, "PNG"), "alpha", NOTE),
    "oak/moving.gif": (
        encode(draw_image().quantize(), "GIF", save_all=True, append_images=[PALETTE]),
        "animated",
        NOTE,
    ),
    "oak/still.gif": (encode(draw_image().quantize(), "GIF"), "gif", NOTE),
    "oak/plain.bmp": (encode(draw_image(), "BMP"), "bmp", NOTE),
    "oak/palette.bmp": (encode(draw_image().quantize(32), "BMP"), "bmp", NOTE),
    "oak/plain.tif": (encode(draw_image(), "TIFF"), "tiff", NOTE),
    "oak/plain.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported variant", LEFT_OUT),
    "oak/plain.webp": (encode(draw_image(), "WEBP"), "webp", NOTE),
    "oak/alpha.webp": (encode(CLEAR, "WEBP"), "alpha", NOTE),
    "oak/turned.jpg": (
        encode(draw_image(), exif=make_exif(6)),
        "EXIF orientation",
        NOTE,
    ),
    "oak/wide.jpg": (encode(draw_image(300, 60)), "extreme aspect", WARNING),
    "oak/tiny.png": (encode(draw_image(16, 16), "PNG"), "tiny", WARNING),
    "oak/bomb.png": (bomb_png(11_000), "too large", LEFT_OUT),
    "oak/.DS_Store": (b"\0\0\0\1Bud1", "system file", NOTE),
    "elm/Thumbs.db": (b"\xd0\xcf\x11\xe0", "system file", NOTE),
    "__MACOSX/elm/._0.jpg": (b"\0\5\x16\7", None, None),
    "elm/copy 1.png": (encode(DUPLICATE, "PNG"), None, None),
    "elm/copy 2.png": (encode(DUPLICATE, "PNG"), "identical file", WARNING),
    "elm/shared.png": (encode(SHARED, "PNG"), None, None),
    "oak/shared.png": (encode(SHARED, "PNG"), "same image in two classes", WARNING),
    "elm/original.png": (encode(ORIGINAL, "PNG"), None, None),
    "elm/z smaller.jpg": (
        encode(ORIGINAL.resize((61, 51)), quality=70),
        "near duplicate",
        WARNING,
    ),
    "elm/clash.png": (encode(CLASH, "PNG"), None, None),
    "oak/clash.jpg": (encode(CLASH, quality=80), "same image in two classes", WARNING),
    "elm/pärla.jpg": (encode(draw_image()), "unicode name", NOTE),
    "elm/mu\u0308sli.jpg": (encode(draw_image()), "odd name", NOTE),
    f"elm/{LONG}.jpg": (encode(draw_image()), "long name", NOTE),
    "lone/one.jpg": (encode(draw_image()), None, None),
    **{
        f"{c}/good {n}.jpg": (encode(draw_image()), None, None)
        for c in ("oak", "elm")
        for n in "123"
    },
}
# Findings about folders, and about the links and files that make_folder adds.
OTHER_FINDINGS = {
    ("__MACOSX", "system file", NOTE),
    ("bare", "empty class", WARNING),
    ("lone", "small class", WARNING),
    ("elm/again", "symlink loop", NOTE),
    ("elm/dangling.jpg", "unreadable", LEFT_OUT),
    ("elm/itself.jpg", "unreadable", LEFT_OUT),
    ("elm/locked.jpg", "unreadable", LEFT_OUT),
    ("elm/pipe.jpg", "unreadable", LEFT_OUT),
}
# The second findings about files in FAULTY.
SECOND_FINDINGS = {
    ("oak/deep.png", "grey", NOTE),
    ("oak/moving.gif", "gif", NOTE),
    ("oak/alpha.webp", "webp", NOTE),
    ("oak/ycck.jpg", "blurred", WARNING),  # YCCK changes the colours, and so the sharpness
    ("oak/deep.png", "blurred", WARNING),  # this small image has no detail when it is enlarged
}


def snapshot(root: Path) -> dict[str, tuple[str, int]]:
    """Digest and modification time of every file except ``locked.jpg``."""
    return {
        path.as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file() and path.name != "locked.jpg"
    }


def make_folder(root: Path) -> None:
    """Writes the files in ``FAULTY``, and links, a pipe and an empty class folder."""
    for name, (data, _, _) in FAULTY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "bare").mkdir()
    (root / "elm" / "again").symlink_to(root / "elm")
    (root / "elm" / "dangling.jpg").symlink_to("nowhere.jpg")
    (root / "elm" / "itself.jpg").symlink_to("itself.jpg")
    (root / "elm" / "locked.jpg").write_bytes(encode(draw_image()))
    os.mkfifo(root / "elm" / "pipe.jpg")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faulty")
    make_folder(root)
    return root


@pytest.fixture(scope="module")
def checked(faulty: Path) -> DataCheck:
    read_file = check_module.read_file

    def locked(path: str, max_pixels: int) -> bytes:
        # Root may read any file, so a mode of 000 would have no effect.
        if path.endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return read_file(path, max_pixels)

    before = snapshot(faulty)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_module, "read_file", locked)
        result = check_data(str(faulty))
    assert snapshot(faulty) == before
    return result


def findings(result: DataCheck) -> set[tuple[str, str, str]]:
    return {(f.path, f.fault, f.severity) for f in result.findings}


def detail(result: DataCheck, path: str) -> str:
    return next(f.detail for f in result.findings if f.path == path)


def test_every_fault_is_reported_and_nothing_else(checked: DataCheck) -> None:
    expected = {(path, fault, severity) for path, (_, fault, severity) in FAULTY.items() if fault}
    assert findings(checked) == expected | OTHER_FINDINGS | SECOND_FINDINGS
    assert not checked.clean


def test_the_catalog_has_exactly_the_usable_files(checked: DataCheck) -> None:
    left_out = {f.path for f in checked.findings if f.severity == LEFT_OUT}
    ignored = {"oak/.DS_Store", "elm/Thumbs.db", "__MACOSX/elm/._0.jpg", "oak/notes.txt"}
    assert set(checked.catalog.paths) == FAULTY.keys() - left_out - ignored
    assert sum(checked.formats.values()) == len(checked.sizes) == len(checked.catalog)
    assert checked.formats["webp"] == 2
    assert checked.formats["tiff"] == 1


def test_details_describe_the_fault(checked: DataCheck) -> None:
    assert detail(checked, "oak/page.jpg").startswith("an HTML page; starts with")
    assert detail(checked, "oak/text.jpg").startswith("text; starts with")
    assert "git lfs pull" in detail(checked, "oak/lfs.jpg")
    assert detail(checked, "oak/png in disguise.jpg") == "holds png"
    assert detail(checked, "elm/copy 2.png") == "the same bytes as elm/copy 1.png"
    assert detail(checked, "oak/clash.jpg") == "looks like elm/clash.png"
    assert detail(checked, "elm/locked.jpg") == "Permission denied"
    assert detail(checked, "elm/itself.jpg") == "Too many levels of symbolic links"
    assert detail(checked, "elm/pipe.jpg") == "not an ordinary file"


def test_a_good_folder_has_only_findings_about_sizes_and_names(tiny_folder: Path) -> None:
    result = check_data(str(tiny_folder))
    assert {f.fault for f in result.findings} == {"tiny", "unicode name"}


def test_max_pixels_limits_width_times_height(tmp_path: Path) -> None:
    for name, width in (("a/1", 100), ("a/2", 41), ("b/1", 40), ("b/2", 39)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(encode(draw_image(width, 40), "PNG"))
    result = check_data(str(tmp_path), max_pixels=1600)
    assert findings(result) == {
        ("a/1.png", "too large", LEFT_OUT),
        ("a/2.png", "too large", LEFT_OUT),
    } | {("a", "small class", WARNING)}


def test_a_table_is_checked_like_a_folder(faulty: Path, tmp_path: Path) -> None:
    rows = [
        "file,label",
        "oak/zero.jpg,x",
        "oak/good 1.jpg,x",
        "oak/good 2.jpg,x",
        "elm/good 1.jpg,y",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    result = check_data(str(faulty), str(tmp_path / "labels.csv"))
    assert findings(result) == {
        ("oak/zero.jpg", "empty file", LEFT_OUT),
        ("y", "small class", WARNING),
    }


def test_a_folder_that_cannot_be_listed_is_named(
    tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if str(folder).endswith("alder"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert ("alder/", "unreadable", LEFT_OUT) in findings(check_data(str(tiny_copy)))
    with pytest.raises(UserError, match="cannot list"):
        scan_folder(tiny_copy)


# Near duplicates


def fingerprints(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    squares = (np.asarray(i.resize((72, 72), Image.Resampling.BOX)) for i in images)
    hashes, thumbnails = zip(*(fingerprint(square) for square in squares), strict=True)
    return np.array(hashes, np.uint64), np.stack(thumbnails)


def test_resized_and_recompressed_copies_are_found() -> None:
    originals = [draw_image() for _ in range(40)]
    copies = [Image.open(io.BytesIO(encode(i.resize((60, 50)), quality=60))) for i in originals]
    result = find_near_duplicates(*fingerprints([*originals, *copies]))
    assert all(result[later] == later - 40 for later in result)
    assert len(result) >= 38


def test_mirrored_and_turned_copies_are_found() -> None:
    originals = [draw_image(80, 80) for _ in range(40)]
    turns = list(Image.Transpose)
    copies = [image.transpose(turns[n % len(turns)]) for n, image in enumerate(originals)]
    saved = [Image.open(io.BytesIO(encode(image, quality=60))) for image in copies]
    result = find_near_duplicates(*fingerprints([*originals, *saved]))
    assert all(result[later] == later - 40 for later in result)
    assert len(result) >= 38


def test_different_images_are_not_near_duplicates() -> None:
    assert find_near_duplicates(*fingerprints([draw_image() for _ in range(300)])) == {}


def test_images_that_differ_only_in_colour_are_not_near_duplicates() -> None:
    blobs = np.asarray(draw_image()).copy()
    red, blue = np.zeros_like(blobs), np.zeros_like(blobs)
    red[..., 0] = blue[..., 2] = blobs[..., 1]
    assert find_near_duplicates(*fingerprints([Image.fromarray(red), Image.fromarray(blue)])) == {}


def test_images_of_one_colour_are_not_compared() -> None:
    flat = [Image.new("RGB", (72, 72), (100, 100, 100 + level)) for level in range(3)]
    assert find_near_duplicates(*fingerprints(flat)) == {}


def test_images_of_the_sample_data_are_not_near_duplicates(tmp_path: Path) -> None:
    from seedtf.data.sample.write import write_sample

    root = write_sample(tmp_path / "sample", images_per_class=8, image_size=48)
    result = check_data(str(root))
    assert [f.fault for f in result.findings] == ["system file"]
    assert result.clean


# Files that become unreadable later


def test_files_that_break_during_training_are_named(tiny_copy: Path) -> None:
    store = build_store(scan_folder(tiny_copy), 8, CachePlan("off", 0, ""), tiny_copy)
    store.read(tf.constant([0, 1, 2, 3, 13], tf.int64))
    (tiny_copy / "alder" / "3.png").write_bytes(bytes(700))
    (tiny_copy / "two words" / "1.png").unlink()
    (tiny_copy / "two words" / "2.png").unlink()
    assert [(f.path, f.fault) for f in name_broken_files(store)] == [
        ("alder/3.png", "not an image")
    ]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"two words/1\.png: unreadable"):
        store.read(tf.constant([7], tf.int64))
    assert [f.path for f in name_broken_files(store)] == ["alder/3.png", "two words/1.png"]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x20ftypisom", "a video (MP4, MOV) or a similar file"),
        (b"%PDF-1.7", "PDF"),
        (b"  <html><body>", "an HTML page"),
        (b"\x80\x81\x82", ""),
        (b"a\0b", ""),
    ],
)
def test_the_kind_of_a_file_that_is_not_an_image_is_recognised(start: bytes, kind: str) -> None:
    assert sniff(start) == ""  # looks_like is only called for files that sniff does not know
    assert looks_like(start) == kind


@pytest.mark.parametrize(("magic", "kind", "offset"), traits._OTHER_KINDS)
def test_no_file_of_another_kind_is_taken_for_an_image(
    magic: bytes, kind: str, offset: int
) -> None:
    data = bytes(offset) + magic + bytes(64)
    assert sniff(data) == ""
    assert looks_like(data) == kind


# The command


def test_the_command_writes_a_table_of_faults_and_ends_with_exit_code_1(
    faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.csv"
    assert main(["check", str(faulty), f"--out={out}"]) == 1
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "fault", "detail", "severity"]
    assert {
        "path": "oak/zero.jpg",
        "fault": "empty file",
        "detail": "0 bytes",
        "severity": LEFT_OUT,
    } in rows
    printed = capsys.readouterr().out
    for line in ("left out  not an image: 3", "class     lone: 1", "note      CMYK: 1"):
        assert f"\n{line}\n" in printed
    assert "16×16 smallest" in printed
    assert f"report    {out}: {len(rows)} lines\n" in printed


def test_the_command_ends_with_exit_code_0_if_there_are_only_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in ("a/1", "a/2", "b/1", "b/2"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / f"{name}.jpg").write_bytes(encode(draw_image().convert("L")))
    out = tmp_path / "report.csv"
    for _ in range(2):  # an earlier report may be replaced
        assert main(["check", str(data), f"--out={out}"]) == 0
    assert capsys.readouterr().out.count("note      grey: 4\n") == 2


def test_the_table_replaces_no_other_file(tiny_copy: Path, tmp_path: Path) -> None:
    finding = (Finding("a.jpg", "tiny", "1×1 pixels", WARNING),)
    (tmp_path / "mine.csv").write_text("path,label\n")
    with pytest.raises(
        UserError, match=r"^--out=.*mine\.csv: is a file of another kind; pass a new path$"
    ):
        write_findings(tmp_path / "mine.csv", finding, str(tiny_copy))
    with pytest.raises(UserError, match="is in the data folder; pass a path outside it"):
        write_findings(tiny_copy / "alder" / "x.csv", finding, str(tiny_copy))
    with pytest.raises(UserError, match=r"^--out=.*gone/x\.csv: no folder .*gone; create it"):
        write_findings(tmp_path / "gone" / "x.csv", finding, str(tiny_copy))
    assert (tmp_path / "mine.csv").read_text() == "path,label\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DATA_DIR is missing"),
        (["/nonexistent"], "DATA_DIR=/nonexistent: no such folder"),
        (["x", "--max_pixels=10"], "--max_pixels=10: out of range"),
    ],
)
def test_a_user_error_is_printed_as_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_help_does_not_import_tensorflow() -> None:
    code = (
        "import sys; from seedtf.commands.main import main\n"
        "try: main(['check', '--help'])\n"
        "except SystemExit: sys.exit('tensorflow' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode
        == 0
    )
