"""The names of a zip's members, as their makers meant them."""

import io
import struct
import unicodedata
import zipfile
import zlib

import pytest

from cifar.data.zipnames import zip_name

NFD = unicodedata.normalize("NFD", "café")


def zip_with(name: bytes, extra: bytes = b"") -> zipfile.ZipInfo:
    """The member of a zip whose name has these very bytes, without the UTF-8 flag."""
    info = zipfile.ZipInfo("q" * len(name))
    info.extra = extra
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr(info, b"x")
    content = buffer.getvalue().replace(b"q" * len(name), name)
    (found,) = zipfile.ZipFile(io.BytesIO(content)).infolist()
    assert not found.flag_bits & 0x800
    return found


def unicode_path(name: str, plain: bytes) -> bytes:
    body = struct.pack("<BL", 1, zlib.crc32(plain)) + name.encode()
    return struct.pack("<HH", 0x7075, len(body)) + body


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (zip_with(b"cat/1.jpg"), "cat/1.jpg"),
        (zip_with(NFD.encode() + b"/1.jpg"), f"{NFD}/1.jpg"),  # macOS
        (zip_with(b"caf\x82/1.jpg"), "café/1.jpg"),  # DOS, code page 437
        (zip_with(b"caf?", unicode_path("café", b"caf?")), "café"),  # Info-ZIP
        (zip_with(b"caf?", b"\x99\x99\x01\0x" + unicode_path("犬", b"caf?")), "犬"),
        (zip_with(b"caf?", unicode_path("dog", b"cat?")), "caf?"),  # of another name
    ],
    ids=["plain", "macOS", "DOS", "Info-ZIP", "after another field", "renamed since"],
)
def test_names_without_the_utf8_flag(member, expected):
    """Info-ZIP's own field counts, then UTF-8 as macOS writes it, then DOS's code page 437."""
    assert zip_name(member) == expected


def test_names_with_the_utf8_flag():
    """A name that is marked as UTF-8 is taken as it is."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("犬/ä.png", b"x")
    assert zip_name(zipfile.ZipFile(buffer).infolist()[0]) == "犬/ä.png"
