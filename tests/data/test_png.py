"""The chunks of a PNG: those that the pixels need are kept, all others are removed."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cifar.data.png import essential_png

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def png(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG", **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    total = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", total)


def with_chunk(extra: bytes) -> bytes:
    """A PNG with one more chunk, after the header."""
    plain = png()
    return plain[:33] + extra + plain[33:]


def test_the_pixels_stay_and_the_text_goes():
    """A comment is removed; the result equals the PNG written without it, to the byte."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "taken yesterday")
    assert b"yesterday" in png(pnginfo=info)
    assert essential_png(png(pnginfo=info)) == png()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(essential_png(png())))), PIXELS)


@pytest.mark.parametrize(("checksum", "stays"), [(None, True), (0, False)])
def test_a_damaged_chunk_beside_the_pixels_goes(checksum, stays):
    """Transparency is kept only if its checksum is right: Pillow would fail on it otherwise."""
    extra = chunk(b"tRNS", bytes(6), checksum)
    assert essential_png(with_chunk(extra)) == (with_chunk(extra) if stays else png())


def test_anything_else_is_nothing():
    """Content without the signature of a PNG gives no bytes."""
    assert essential_png(b"\xff\xd8\xff") == b""
