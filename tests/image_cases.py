"""Small files, made from scratch, on which a header parser, a decoder and Pillow may disagree."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

__all__ = ["IMAGE", "image_cases"]

# Most files show this image, a colour gradient of 24×16 pixels.
W, H = 24, 16
Y, X = np.mgrid[:H, :W]
RGB = np.stack([10 + 9 * X, 240 - 12 * Y, 40 + 4 * (X + Y)], -1).astype(np.uint8)
ALPHA = (X * 10).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
IMAGE, CLEAR = Image.fromarray(RGB), Image.fromarray(RGBA)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def image_cases() -> dict[str, bytes]:
    """The bytes of each file, by its name."""
    cases: dict[str, bytes] = {}
    for make in (_jpegs, _pngs, _gifs, _bmps, _webps, _others):
        make(cases.__setitem__)
    return cases


Save = Callable[[str, bytes], None]


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes that Pillow writes for ``image`` in the format ``kind``."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_block(
    value: int,
    order: str = "<",
    kind: int = 3,
    count: int = 1,
    *,
    tag: int = 0x0112,
    magic: int = 42,
) -> bytes:
    """An EXIF block with one tag: by default the orientation ``value``, as EXIF prescribes it.

    ``order`` is "<" for little-endian and ">" for big-endian numbers. ``kind`` is the TIFF type of the
    value: 1 for BYTE, 3 for SHORT, 4 for LONG. The block lacks the prefix that it has in a JPEG file.
    """
    data = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind], value).ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", magic, 8)
    return start + struct.pack(order + "HHHI", 1, tag, kind, count) + data + bytes(4)


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def _exif(block: bytes) -> bytes:
    return _segment(0xE1, b"Exif\0\0" + block)


def _jpegs(save: Save) -> None:
    plain = encode(IMAGE, "JPEG", quality=95)
    scan = plain.index(b"\xff\xda")

    def after_start(extra: bytes) -> bytes:
        """The JPEG file with ``extra`` after its first marker."""
        return plain[:2] + extra + plain[2:]

    save("exif twice, 6 then 3.jpg", after_start(_exif(tiff_block(6)) + _exif(tiff_block(3))))
    save(
        "exif twice, 6 then none.jpg",
        after_start(_exif(tiff_block(6)) + _exif(tiff_block(1, tag=1))),
    )
    save("exif after the frame.jpg", plain[:scan] + _exif(tiff_block(6)) + plain[scan:])
    for order in "<>":
        save(f"exif as LONG {order}.jpg", after_start(_exif(tiff_block(6, order, 4))))
        save(f"exif as BYTE {order}.jpg", after_start(_exif(tiff_block(6, order, 1))))
    save("exif count 0.jpg", after_start(_exif(tiff_block(6, count=0))))
    save("exif count 2.jpg", after_start(_exif(tiff_block(6, count=2))))
    save("exif magic 44.jpg", after_start(_exif(tiff_block(6, magic=44))))
    save("exif magic swapped.jpg", after_start(_exif(tiff_block(6, magic=0x2A00))))
    save("exif prefix twice.jpg", after_start(_exif(b"Exif\0\0" + tiff_block(6))))
    save("exif in lower case.jpg", after_start(_segment(0xE1, b"EXIF\0\0" + tiff_block(6))))
    save("xmp.jpg", after_start(_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)))
    exif_and_xmp = _exif(tiff_block(3)) + _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    save("exif 3 and xmp 6.jpg", after_start(exif_and_xmp))
    cmyk = encode(IMAGE.convert("CMYK"), "JPEG", quality=95)
    adobe_start = cmyk.index(b"\xff\xee")
    length = 2 + struct.unpack(">H", cmyk[adobe_start + 2 : adobe_start + 4])[0]
    plain_cmyk = cmyk[:adobe_start] + cmyk[adobe_start + length :]
    save("cmyk.jpg", cmyk)
    save("cmyk without Adobe.jpg", plain_cmyk)
    cmyk_scan = plain_cmyk.index(b"\xff\xda")
    save(
        "cmyk, Adobe late.jpg",
        plain_cmyk[:cmyk_scan] + cmyk[adobe_start : adobe_start + length] + plain_cmyk[cmyk_scan:],
    )
    save("cmyk, Adobe cut.jpg", plain_cmyk[:2] + _segment(0xEE, b"Adobe\0d") + plain_cmyk[2:])
    save("ycck.jpg", cmyk[: adobe_start + length - 1] + b"\2" + cmyk[adobe_start + length :])
    save("grey.jpg", encode(IMAGE.convert("L"), "JPEG", quality=95))
    save("progressive.jpg", encode(IMAGE, "JPEG", progressive=True, quality=95))
    save("no JFIF.jpg", plain[:2] + plain[4 + struct.unpack(">H", plain[4:6])[0] :])
    save("no end.jpg", plain[:-2])
    save("tail.jpg", plain + encode(IMAGE.rotate(180), "JPEG"))
    save("fill bytes.jpg", after_start(b"\xff" * 17_000))
    save("comments.jpg", after_start(b"\xff\xfe\0\2" * 17_000))


def _chunk(kind: bytes, data: bytes, crc_error: int = 0) -> bytes:
    return (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) ^ crc_error)
    )


def png(
    values: np.ndarray, depth: int, colour: int, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG of samples ``[H, W, C]``, with the chunks ``before`` and ``after`` around the pixels.

    ``depth`` is the number of bits of a sample. ``colour`` is the colour type of the PNG standard: 0
    for grey, 2 for RGB, 3 for a palette, 4 for grey with alpha, 6 for RGBA.
    """
    rows = values.reshape(len(values), -1)
    packed = [row.astype(">u2" if depth == 16 else np.uint8).tobytes() for row in rows]
    if depth < 8:
        bits = [
            np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :] for row in rows
        ]
        packed = [np.packbits(row.reshape(-1)).tobytes() for row in bits]
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, colour, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed)))
    return PNG_MAGIC + _chunk(b"IHDR", head) + before + pixels + after + _chunk(b"IEND", b"")


def _pngs(save: Save) -> None:
    save("exif.png", png(RGB, 8, 2, _chunk(b"eXIf", tiff_block(6))))
    save("exif late.png", png(RGB, 8, 2, after=_chunk(b"eXIf", tiff_block(6))))
    two_exif_chunks = _chunk(b"eXIf", tiff_block(6)) + _chunk(b"eXIf", tiff_block(3))
    save("exif twice.png", png(RGB, 8, 2, two_exif_chunks))
    save("exif as LONG.png", png(RGB, 8, 2, _chunk(b"eXIf", tiff_block(6, ">", 4))))
    wrong_checksum = _chunk(b"eXIf", tiff_block(6), crc_error=1)
    save("exif of wrong checksum.png", png(RGB, 8, 2, wrong_checksum))
    save("xmp.png", png(RGB, 8, 2, _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)))
    transparency = _chunk(b"tRNS", struct.pack(">HHH", *RGB[3, 5].tolist()))
    save("colour tRNS.png", png(RGB, 8, 2, transparency))
    save("colour tRNS late.png", png(RGB, 8, 2, after=transparency))
    deep = RGB.astype(np.uint16) * 257 + 1
    grey = (np.arange(W * H) * 167 % 65536).reshape(H, W, 1).astype(np.uint16)
    save("16-bit colour.png", png(deep, 16, 2))
    save("16-bit grey.png", png(grey, 16, 0))
    save("16-bit grey alpha.png", png(np.concatenate([grey, grey[::-1]], -1), 16, 4))
    save("16-bit RGBA.png", png(np.concatenate([deep, grey], -1), 16, 6))
    for depth in (1, 2, 4, 8):
        values = ((X + Y) % 2**depth)[..., None]
        colours = bytes((i * 37 + c * 90) % 256 for i in range(2**depth) for c in range(3))
        palette, alpha = _chunk(b"PLTE", colours), _chunk(b"tRNS", bytes([0, 128]))
        save(f"{depth}-bit grey.png", png(values, depth, 0))
        save(f"{depth}-bit grey tRNS.png", png(values, depth, 0, _chunk(b"tRNS", b"\0\1")))
        save(f"{depth}-bit palette.png", png(values, depth, 3, palette))
        save(f"{depth}-bit palette tRNS.png", png(values, depth, 3, palette + alpha))
    rgba = png(RGBA, 8, 6)
    claim = struct.pack(">IIBBBBB", W // 2, H // 2, 8, 2, 0, 0, 0)
    save("private chunk first.png", PNG_MAGIC + _chunk(b"abCd", claim) + rgba[8:])
    save("rgba.png", rgba)
    save("tail.png", png(RGB, 8, 2) + b"tail")
    save("no end.png", png(RGB, 8, 2)[:-12])
    save("texts.png", png(RGB, 8, 2, _chunk(b"tEXt", b"a\0") * 17_000))
    huge = struct.pack(">II", 2**32 - 1, 2**32 - 215)
    save("impossible size.png", rgba[:16] + huge + rgba[24:])


PALETTE = bytes((i * 7 + c * 60) % 256 for i in range(256) for c in range(3))
INDICES = ((X * 9 + Y * 5) % 256).astype(np.uint8).tobytes()


def _blocks(data: bytes) -> bytes:
    """``data`` in the sub-blocks of a GIF, each of which has at most 255 bytes."""
    parts = (data[i : i + 255] for i in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def _lzw(indices: bytes) -> bytes:
    """``indices`` compressed by LZW; the table is cleared before codes would need over nine bits."""
    bits = "".join(
        format(code, "09b")[::-1]
        for place, value in enumerate(indices)
        for code in ((256, value) if place % 200 == 0 else (value,))
    )
    bits += format(257, "09b")[::-1]
    bits += "0" * (-len(bits) % 8)
    return b"\x08" + _blocks(bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8)))


# A GIF file is put together from a screen (the header of the file), for each frame an optional control
# block (which names the transparent colour) and the frame itself, and a semicolon at the end.


def _screen(width: int = W, height: int = H, palette: bytes = PALETTE) -> bytes:
    flags = 0xF0 | (len(palette) // 3).bit_length() - 2 if palette else 0x70
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0) + palette


def _frame(
    width: int = W, height: int = H, indices: bytes = INDICES, place: tuple[int, int] = (0, 0),
    palette: bytes = b"",
) -> bytes:  # fmt: skip
    flags = 0x80 | (len(palette) // 3).bit_length() - 2 if palette else 0
    return b"," + struct.pack("<HHHHB", *place, width, height, flags) + palette + _lzw(indices)


def _control(transparent: int = -1) -> bytes:
    return b"\x21\xf9\4" + bytes([transparent >= 0, 5, 0, max(transparent, 0), 0])


def _gifs(save: Save) -> None:
    save("plain.gif", _screen() + _frame() + b";")
    save("local palette.gif", _screen(palette=b"") + _frame(palette=PALETTE[::-1]) + b";")
    save("two palettes.gif", _screen() + _frame(palette=PALETTE[::-1]) + b";")
    save("transparent.gif", _screen() + _control(9) + _frame() + b";")
    local = _frame(palette=PALETTE[::-1])
    save("transparent, local palette.gif", _screen() + _control(9) + local + b";")
    save("two controls.gif", _screen() + _control(9) + _control() + _frame() + b";")
    save("two colours.gif", _screen() + _control(9) + _control(8) + _frame() + b";")
    few = PALETTE[: 3 * 16]
    low = bytes(value % 16 for value in INDICES)
    save(
        "transparency unused.gif", _screen(palette=few) + _control(40) + _frame(indices=low) + b";"
    )
    save("comments.gif", _screen() + b"\x21\xfe" + _blocks(b"abc" * 100) + _frame() + b";")
    save("animated.gif", _screen() + _control() + _frame() + _control(9) + _frame() + b";")
    save("larger second frame.gif", _screen() + _frame() + _frame(30, 20, bytes(600)) + b";")
    save("damaged second frame.gif", _screen() + _frame() + _frame()[:60])
    save("no end.gif", _screen() + _frame())
    save("tail.gif", _screen() + _frame() + b"tail")
    save("part of the canvas.gif", _screen(W + 6, H + 4) + _frame(place=(2, 1)) + b";")
    part = _control(9) + _frame(place=(2, 1))
    save("transparent part of the canvas.gif", _screen(W + 6, H + 4) + part + b";")
    save("outside the canvas.gif", _screen(W - 6, H - 4) + _frame() + b";")
    save("pixels missing.gif", _screen() + _frame(indices=INDICES[:100]) + b";")
    row = encode(Image.new("P", (65_535, 1)), "GIF")
    column = encode(Image.new("P", (1, 65_535)), "GIF")
    frames = b"".join(data[data.index(b"," + bytes(4)) : -1] for data in (row, column))
    save("row and column.gif", _screen(1, 1) + _frame(1, 1, b"\1") + frames + b";")


def bmp(
    bits: int = 24, *, offset: int = 0, top_down: bool = False, header: int = 40, gap: int = 0
) -> bytes:
    """A BMP without compression.

    ``header`` is the size in bytes of its second header, and ``gap`` bytes follow this header. If
    ``offset`` is not 0, it replaces the true offset of the pixels in the first header.
    """
    values = RGB[..., ::-1] if bits == 24 else np.dstack([RGB[..., ::-1], ALPHA])
    rows = values if top_down else values[::-1]
    start = 14 + header + gap
    info = struct.pack("<IiiHHI", header, W, -H if top_down else H, 1, bits, 0)
    head = b"BM" + struct.pack("<IHHI", start + rows.size, 0, 0, offset or start)
    return head + info.ljust(header + gap, b"\0") + rows.tobytes()


def _bmps(save: Save) -> None:
    save("plain.bmp", bmp())
    save("top down.bmp", bmp(top_down=True))
    save("32 bits.bmp", bmp(32))
    save("tail of two bytes.bmp", bmp() + b"\0\0")
    save("short.bmp", bmp()[:-1])
    save("gap.bmp", bmp(gap=20))
    save("offset in the header.bmp", bmp(offset=40))
    save("header of 108.bmp", bmp(header=108))
    save("header of 124.bmp", bmp(32, header=124))
    save("palette.bmp", encode(IMAGE.quantize(64), "BMP"))
    save("grey.bmp", encode(IMAGE.convert("L"), "BMP"))
    save("1 bit.bmp", encode(IMAGE.convert("1"), "BMP"))
    masks = struct.pack("<III", 0xF800, 0x7E0, 0x1F)
    info = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 16, 3, 0, 0, 0, 0, 0)
    head = b"BM" + struct.pack("<IHHI", 66 + 2 * W * H, 0, 0, 66)
    save(
        "16 bits.bmp", head + info + masks + ((X * 997 + Y * 2000) % 65536).astype("<u2").tobytes()
    )
    core = struct.pack("<IHHHH", 12, W, H, 1, 24)
    save(
        "OS-2.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + core + RGB[::-1, :, ::-1].tobytes()
    )


def riff(*parts: bytes) -> bytes:
    """A WebP file with these chunks (``parts``) in its RIFF container."""
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _part(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _extended(flags: int) -> bytes:
    size = (W - 1).to_bytes(3, "little") + (H - 1).to_bytes(3, "little")
    return _part(b"VP8X", bytes([flags, 0, 0, 0]) + size)


def _webps(save: Save) -> None:
    lossy, lossless = encode(IMAGE, "WEBP", quality=95), encode(IMAGE, "WEBP", lossless=True)
    pixels, exif = lossless[12:], _part(b"EXIF", tiff_block(6))
    save("lossy.webp", lossy)
    save("lossless.webp", lossless)
    save("exif.webp", riff(_extended(8), pixels, exif))
    save("exif without its flag.webp", riff(_extended(0), pixels, exif))
    save("exif behind the end.webp", riff(_extended(8), pixels) + exif)
    save("exif twice.webp", riff(_extended(8), pixels, exif, _part(b"EXIF", tiff_block(3))))
    save(
        "exif after many parts.webp", riff(_extended(8), pixels, _part(b"abcd", b"") * 17_000, exif)
    )
    save("xmp.webp", riff(_extended(4), pixels, _part(b"XMP ", XMP)))
    clear = encode(CLEAR, "WEBP", lossless=True, exact=True)
    alpha_pixels = clear[12:] if clear[12:16] == b"VP8L" else clear[30:]
    save("alpha.webp", clear)
    save("alpha of the pixels alone.webp", riff(_extended(0), alpha_pixels))
    soft = encode(CLEAR, "WEBP", quality=90)
    save("alpha plane.webp", soft)
    save("alpha plane without its flag.webp", soft[:20] + b"\0" + soft[21:])
    save("opaque with the flag of alpha.webp", riff(_extended(16), pixels))
    more_frames = [IMAGE.rotate(180)]
    moving = encode(IMAGE, "WEBP", save_all=True, append_images=more_frames, lossless=True)
    save("animated.webp", moving)
    save("animated, flag missing.webp", moving[:20] + b"\0" + moving[21:])
    clear_moving = encode(CLEAR, "WEBP", save_all=True, append_images=more_frames, quality=90)
    save("animated with alpha.webp", clear_moving)
    save("still with the flag of animation.webp", riff(_extended(2), pixels))
    save("cut.webp", lossy[:-1])
    save("tail.webp", lossy + b"tail")


def _others(save: Save) -> None:
    grey16 = Image.fromarray((np.arange(W * H).reshape(H, W) * 167 % 65536).astype(np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image, options in (
        ("plain", IMAGE, {}),
        ("lzw", IMAGE, {"compression": "tiff_lzw"}),
        ("grey", IMAGE.convert("L"), {}),
        ("16-bit grey", grey16, {}),
        ("rgba", CLEAR, {}),
        ("cmyk", IMAGE.convert("CMYK"), {}),
        ("palette", IMAGE.quantize(32), {}),
        ("1 bit", IMAGE.convert("1"), {"compression": "group4"}),
        ("turned", IMAGE, {"exif": turned}),
        ("two pages", IMAGE, {"save_all": True, "append_images": [IMAGE.rotate(180)]}),
    ):
        save(f"{name}.tif", encode(image, "TIFF", **options))
    fraction = Image.fromarray((X / W).astype(np.float32))
    save("fractions.tif", encode(fraction, "TIFF"))
    save("large numbers.tif", encode(Image.fromarray((X * 40.0).astype(np.float32)), "TIFF"))
    save("32-bit integers.tif", encode(Image.fromarray((X * 40).astype(np.int32)), "TIFF"))
    save("cut.tif", encode(IMAGE, "TIFF")[:-60])
    save("colour.ppm", encode(IMAGE, "PPM"))
    save("grey.pgm", encode(IMAGE.convert("L"), "PPM"))
    save("cut.ppm", encode(IMAGE, "PPM")[:-60])
    for name, image in (("plain", IMAGE), ("rgba", CLEAR)):
        save(f"{name}.avif", encode(image, "AVIF", quality=95))
    save("turned.avif", encode(IMAGE, "AVIF", quality=95, exif=turned))
    save("animated.avif", encode(IMAGE, "AVIF", save_all=True, append_images=[IMAGE.rotate(180)]))
    save("cut.avif", encode(IMAGE, "AVIF")[:-60])
    save("jpeg 2000.jp2", encode(IMAGE, "JPEG2000"))
    save("text.jpg", b"BMW,year\nX5,1999\n")
    save("nothing.png", b"")
